"""The records of a table: the cells of each row as texts, in the order of the columns that are asked for."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Protocol

from product_vqa.errors import InputError, first_line
from product_vqa.quoting import one_line
from product_vqa.tables.cells import cell_text

if TYPE_CHECKING:
    from product_vqa.tables.parquet_records import ParquetRecords, download_split

__all__ = ["CsvRecords", "JsonRecords", "ParquetRecords", "Records", "download_split"]

MAX_ROW_LENGTH = 4 * 1024**2  # characters, of all lines of a row


class Records(Protocol):
    names: list[str]  # of the columns; a name may occur twice
    word: str  # what a number counts: line, row

    @property
    def number(self) -> int:
        """That of the line or row that was read last."""

    @property
    def length(self) -> int:
        """At least the number of characters of the row that was read last."""

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """The cells of each row in these columns. Raises InputError."""


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
        indexes = [self.names.index(name) for name in names]
        first = indexes[0]
        # itemgetter returns a tuple for several columns only.
        cells_of = itemgetter(*indexes) if len(indexes) > 1 else itemgetter(slice(first, first + 1))
        width = len(self.names)
        for cells in self._rows():
            if not cells:
                continue
            if len(cells) != width:
                raise InputError(
                    f"{self.file}, line {self.number}: has {len(cells)} fields, but the header has {width}; "
                    "put a value that contains a comma in double quotes"
                )
            yield tuple(cells_of(cells))

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


class JsonRecords:
    """The objects of a file with one per line. An empty line is none, and a key that an object lacks an empty cell."""

    word = "line"

    def __init__(self, lines: Iterable[str], names: list[str], *, file: str) -> None:
        self.names = names
        self.number = 0
        self.length = 0
        self._lines = lines
        self._file = file

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
        for row in self.objects():
            yield tuple(
                cell_text(row[name], where=f"{self._file}, line {self.number}: {name}") if name in row else ""
                for name in names
            )

    def objects(self) -> Iterator[dict[str, Any]]:
        try:
            for line in self._lines:
                self.number += 1
                self.length = len(line)
                if line.strip():
                    yield self._parse(line)
        except UnicodeDecodeError as error:
            raise InputError(
                f"{self._file}, after line {self.number}: not UTF-8 text ({error.reason}); save it as UTF-8"
            ) from error

    def _parse(self, line: str) -> dict[str, Any]:
        try:
            # Numbers as they are written: a label of 1.50 is the text 1.50.
            row = json.loads(line, parse_int=str, parse_float=str, parse_constant=lambda text: None)
        except (ValueError, RecursionError) as error:
            raise self._refuse(first_line(error)) from error
        if not isinstance(row, dict):
            raise self._refuse("not an object")
        return row

    def _refuse(self, reason: str) -> InputError:
        reason = one_line(reason, max_length=100)
        return InputError(f"{self._file}, line {self.number}: not JSON Lines ({reason}); write one object per line")


def __getattr__(name: str) -> Any:
    # Imported on first use: pyarrow takes as long to import as hundreds of images to download, in each shard.
    if name in ("ParquetRecords", "download_split"):
        from product_vqa.tables.parquet_records import ParquetRecords, download_split

        return {"ParquetRecords": ParquetRecords, "download_split": download_split}[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
