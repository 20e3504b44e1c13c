"""Reads the labels of a table whose attributes are not known yet, long or wide, with any names of its columns."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dataset_builder.csv_reader import MAX_LENGTHS, MAX_ROW_LENGTH
from product_vqa.csv_files import BROKEN_ARCHIVE, compression_name, open_csv
from product_vqa.errors import InputError, argument
from product_vqa.quoting import one_line

_LONG_COLUMNS = ("entity_name", "entity_value")
_NO_ATTRIBUTES = ("", "index", "image", "image_link", "group_id")  # columns of a wide table next to its attributes
MAX_COLUMNS = 1000  # of a table, attributes of a long one included
MAX_LABEL_LENGTH = MAX_LENGTHS["entity_value"]  # what is longer is cut after one more character, and fits no kind


@dataclass(frozen=True)
class LabelTable:
    """How often each label occurs, by attribute, in the order of the table; without the spaces around it."""

    name: str  # of the file, without its folder
    num_rows: int
    labels: Mapping[str, Counter[str]]
    num_missing: Mapping[str, int]  # attribute -> rows without a label


def parse_columns(text: str | None) -> dict[str, str]:
    """Parse `image_link=photo_url,"colour=Colour, main"`: our name of a column -> its name in the file.

    Raises InputError for anything else, with the part that is wrong.
    """
    if text is None:
        return {}
    try:
        (parts,) = csv.reader([text], strict=True, skipinitialspace=True)
    except (csv.Error, ValueError) as error:
        raise InputError("`columns`: expected name=column,name=column on one line, each in double quotes if it has a "
                         "comma") from error  # fmt: skip
    columns: dict[str, str] = {}
    for part in parts or [""]:
        name, _, found = (side.strip() for side in part.partition("="))
        if not name or not found:
            shown = one_line(repr(part), max_length=100)
            raise InputError(f"`columns` {shown}: expected name=column, such as image_link=photo_url")
        for what, known in ((name, columns), (found, columns.values())):
            if what in known:
                raise InputError(f"`columns` has {one_line(what, max_length=100)} twice; remove one of them")
        columns[name] = found
    return columns


def read_label_table(path: str | Path, *, wide: bool = False, columns: Mapping[str, str] | None = None) -> LabelTable:
    """Read the labels of a CSV: long (a row for each label) or wide (a row for each product, a column for each
    attribute). `columns` are those of `parse_columns`.

    Raises InputError for a file that is not such a CSV, with the line.
    """
    file, name = Path(path), str(path)
    with argument("train_csv"), open_csv(file) as stream:
        try:
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
            return _count(_read_cells(text, name=name), file=file, wide=wide, columns=columns or {})
        except BROKEN_ARCHIVE as error:
            reason = one_line(str(error))
            raise InputError(f"{name}: broken {compression_name(stream)} ({reason}); download it again") from error


def _read_cells(lines: Iterable[str], *, name: str) -> Iterator[list[str]]:
    """The header and the rows, all of the same length. Raises InputError, with the line, for a malformed CSV."""
    row_length = [0]

    def count_characters() -> Iterator[str]:
        for line in lines:
            row_length[0] += len(line)
            if row_length[0] > MAX_ROW_LENGTH:
                raise csv.Error(f"a row of more than {MAX_ROW_LENGTH} characters")
            yield line

    reader = csv.reader(count_characters(), strict=True)
    first_line, width = 1, 0
    try:
        for cells in reader:
            width = width or len(cells)
            if cells and len(cells) != width:
                raise InputError(
                    f"{name}, line {reader.line_num}: has {len(cells)} fields, but the header has {width}; put a "
                    "value that contains a comma in double quotes"
                )
            if cells:
                yield cells
            row_length[0], first_line = 0, reader.line_num + 1
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}, after line {reader.line_num}: not UTF-8 text ({error.reason}); save the CSV as UTF-8"
        ) from error
    except csv.Error as error:
        hint = "; is a double quote never closed?" if reader.line_num > first_line else ""
        raise InputError(f"{name}, line {first_line}: not a valid CSV ({error}){hint}") from error


def _count(rows: Iterator[list[str]], *, file: Path, wide: bool, columns: Mapping[str, str]) -> LabelTable:
    header = next(rows, None)
    if header is None:
        raise InputError(f"{file}: is empty")
    names = _rename(header, columns, name=str(file))
    needed = ("image_link",) if wide else _LONG_COLUMNS
    missing = [column for column in needed if column not in names]
    if missing:
        found = one_line(", ".join(header[:100]), max_length=200)
        other = "" if wide else "; for a row a product and a column an attribute, add `wide`"
        raise InputError(
            f"{file}: no column {', '.join(missing)}, found {found}; say which one it is, such as `columns` "
            f"{missing[0]}={one_line(header[-1], max_length=50) or 'column'}{other}"
        )
    labels: dict[str, Counter[str]] = {}
    num_missing: Counter[str] = Counter()
    num_rows = 0
    if wide:
        at = {name: position for position, name in enumerate(names) if name not in _NO_ATTRIBUTES}
        labels = {name: Counter() for name in at}
    else:
        name_at, value_at = (names.index(column) for column in _LONG_COLUMNS)
    for cells in rows:
        num_rows += 1
        for name, value in ((name, cells[position]) for name, position in at.items()) if wide else (
            (cells[name_at], cells[value_at]),
        ):  # fmt: skip
            if name not in labels:
                labels[name] = Counter()
                if len(labels) > MAX_COLUMNS:
                    raise InputError(
                        f"{file}: has more than {MAX_COLUMNS} attributes in entity_name; is it the column?"
                    )
            label = value.strip()[: MAX_LABEL_LENGTH + 1]
            if label:
                labels[name][label] += 1
            else:
                num_missing[name] += 1
    if not num_rows:
        raise InputError(f"{file}: has a header but no rows")
    return LabelTable(file.name, num_rows, labels, num_missing)


def _rename(header: list[str], columns: Mapping[str, str], *, name: str) -> list[str]:
    """Our names of the columns of the file."""
    if len(header) > MAX_COLUMNS:
        raise InputError(f"{name}: has {len(header)} columns, more than {MAX_COLUMNS}; remove some")
    ours = {found: ours for ours, found in columns.items()}
    for found in ours:
        if found not in header:
            shown = one_line(", ".join(header[:100]), max_length=200)
            raise InputError(f"{name}: no column {one_line(found, max_length=100)} for `columns`, found {shown}")
    names = [ours.get(column, column) for column in header]
    for column in {column for column in names if column}:
        if names.count(column) > 1:
            shown = one_line(column, max_length=100)
            raise InputError(f"{name}: has {names.count(column)} columns {shown}; rename or remove all but one")
    return names
