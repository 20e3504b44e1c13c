"""Reads the labels of a table whose attributes are not known yet."""

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from product_vqa.csv_files import BROKEN_ARCHIVE, check_separator, compression_name, open_csv
from product_vqa.errors import InputError, argument
from product_vqa.quoting import one_line
from product_vqa.tables.layout import Layout
from product_vqa.tables.records import CsvRecords
from product_vqa.tables.rows import MAX_LENGTHS

_OTHER_FIELDS = ("index", "image", "image_link", "group_id")  # of a wide table, next to its attributes
MAX_COLUMNS = 1000  # of a table; and attributes of a long one
MAX_LABEL_LENGTH = MAX_LENGTHS["entity_value"]  # what is longer is cut after one more character, and fits no kind


@dataclass(frozen=True)
class LabelTable:
    """How often each label occurs, by attribute, in the order of the table; without the spaces around it."""

    name: str  # of the file, without its folder
    num_rows: int
    labels: Mapping[str, Counter[str]]
    num_missing: Mapping[str, int]  # attribute -> rows without a label


def read_label_table(path: str | Path, *, layout: Layout) -> LabelTable:
    """Read the labels of a CSV. All columns of a wide one are attributes, but for those of the dataset itself.

    Raises InputError for a file that is not such a CSV, with the line.
    """
    file, name = Path(path), str(path)
    with argument("train_csv"), open_csv(file) as stream:
        try:
            records = CsvRecords(io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""), file=name)
            return _count(records, layout, file=file)
        except BROKEN_ARCHIVE as error:
            reason = one_line(str(error))
            raise InputError(f"{name}: broken {compression_name(stream)} ({reason}); download it again") from error


def _count(records: CsvRecords, layout: Layout, *, file: Path) -> LabelTable:
    layout = layout.of_table(records.names)
    columns = _find_columns(records.names, layout, file=file)
    labels: dict[str, Counter[str]] = {name: Counter() for name in columns[1:]} if layout.is_wide else {}
    num_missing: Counter[str] = Counter()
    num_rows = 0
    for cells in records.read([layout.column(name) for name in columns]):
        num_rows += 1
        for name, value in zip(columns[1:], cells[1:], strict=True) if layout.is_wide else (cells,):
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


def _find_columns(header: Sequence[str], layout: Layout, *, file: Path) -> list[str]:
    """Our names of the columns to read: image_link and the attributes, or entity_name and entity_value."""
    if len(header) > MAX_COLUMNS:
        raise InputError(f"{file}: has {len(header)} columns, more than {MAX_COLUMNS}; remove some")
    found = one_line(", ".join(header), max_length=200)
    names = {column: name for name, column in layout.columns.items()}
    ours = [names.get(column, column) for column in header]
    needed = ("image_link", *layout.columns) if layout.is_wide else ("entity_name", "entity_value", *layout.columns)
    for name in needed:
        if layout.column(name) not in header:
            check_separator(header, file=file)
            shown, other = one_line(layout.column(name), max_length=100), one_line(header[-1], max_length=50)
            hint = "" if layout.is_wide else "; or set `wide`, if it has one row per product"
            raise InputError(
                f"{file}: no column {shown}, found {found}; name it with `columns` {name}={other or 'COLUMN'}{hint}"
            )
    fields = ["image_link", *_attributes(ours)] if layout.is_wide else ["entity_name", "entity_value"]
    for name in fields:
        if ours.count(name) > 1:
            shown = one_line(name, max_length=100)
            raise InputError(f"{file}: has {ours.count(name)} columns {shown}; rename or remove all but one")
    if len(fields) < 2:
        raise InputError(f"{file}: has no column of an attribute, found {found}")
    return fields


def _attributes(names: Sequence[str]) -> Iterator[str]:
    return (name for name in names if name and name not in _OTHER_FIELDS)
