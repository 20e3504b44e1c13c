"""The records of a table: the cells of each row as texts, in the order of the columns that are asked for."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Protocol

from product_vqa.errors import InputError

MAX_ROW_LENGTH = 4 * 1024**2  # characters, of all lines of a row


class Records(Protocol):
    names: list[str]  # of the columns; a name may occur twice
    number: int  # of the line or row that was read last
    word: str  # what a number counts: line, row
    length: int  # characters of the row that was read last, at least

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """The cells of each row in these columns, of which there are at least two. Raises InputError."""


class CsvRecords:
    """The rows of a CSV. An empty line is none."""

    word = "line"

    def __init__(self, lines: Iterable[str], *, file: str) -> None:
        """Read the header. Raises InputError for anything but a CSV in UTF-8, with the line."""
        self.file = file
        self.length = 0
        self._reader = csv.reader(self._count_characters(lines), strict=True)
        self._first_line = 1  # of the row that is read
        header = next(self._rows(), None)
        if header is None:
            raise InputError(f"{file}: is empty")
        self.names = header
        self._first_line = self.number + 1
        self.length = 0

    @property
    def number(self) -> int:
        return self._reader.line_num

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
        cells_of = itemgetter(*map(self.names.index, names))
        width = len(self.names)
        for cells in self._rows():
            if not cells:
                continue
            if len(cells) != width:
                raise InputError(
                    f"{self.file}, line {self.number}: has {len(cells)} fields, but the header has {width}; "
                    "put a value that contains a comma in double quotes"
                )
            yield cells_of(cells)

    def _rows(self) -> Iterator[list[str]]:
        reader = self._reader
        try:
            for cells in reader:
                yield cells
                self._first_line = reader.line_num + 1
                self.length = 0
        except UnicodeDecodeError as error:
            raise InputError(
                f"{self.file}, after line {reader.line_num}: not UTF-8 text ({error.reason}); save the CSV as UTF-8"
            ) from error
        except csv.Error as error:
            is_one_line = reader.line_num <= self._first_line
            lines = f"line {self._first_line}" if is_one_line else f"lines {self._first_line} to {reader.line_num}"
            hint = "" if is_one_line else "; is a double quote never closed?"
            raise InputError(f"{self.file}, {lines}: not a valid CSV ({error}){hint}") from error

    def _count_characters(self, lines: Iterable[str]) -> Iterator[str]:
        """The lines. Raises csv.Error if a row has too many characters."""
        for line in lines:
            self.length += len(line)
            if self.length > MAX_ROW_LENGTH:
                raise csv.Error(f"a row of more than {MAX_ROW_LENGTH} characters")
            yield line
