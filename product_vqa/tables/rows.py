"""The rows of a table about the attributes of a schema, long or wide, each checked: an error names file and line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from product_vqa.csv_files import parse_index
from product_vqa.errors import InputError
from product_vqa.quoting import one_line
from product_vqa.tables.layout import Layout
from product_vqa.tables.record_files import open_table
from product_vqa.tables.records import Records
from product_vqa.task.attributes import Schema

# Longer values are not what the column is for, and would be published.
MAX_LENGTHS = {"image_link": 8192, "group_id": 1000, "entity_name": 1000, "entity_value": 1000}
_MIN_MAX_LENGTH = min(MAX_LENGTHS.values())
MAX_INDEX = 2**63 - 1  # of a row of the dataset


class Row(NamedTuple):
    position: int  # of the row in its file, from 0
    index: int  # type: ignore[assignment]  # of the dataset's row (see `Layout`); hides tuple.index
    image_link: str  # the URL, without the spaces and line ends around it
    group_id: str
    entity_name: str
    entity_value: str  # "" in test.csv


@dataclass(frozen=True)
class Table:
    name: str  # of the file, without its folder, because it is published; or of the split of a dataset
    sha256: str
    rows: tuple[Row, ...]


def read_rows(
    path: str | Path,
    *,
    schema: Schema,
    layout: Layout,
    is_labelled: bool,
    required_if_long: Sequence[str] | None = None,
) -> Table:
    """Read a table and check every row. Raises InputError, with the line.

    `required_if_long` are the fields that a long table needs. Default: what a dataset's rows are made from.
    """
    name = str(path)
    with open_table(path) as table:
        records = table.records
        layout = layout.of_table(records.names)
        fields = layout.find_fields(
            records.names, schema, is_labelled=is_labelled, required_if_long=required_if_long, file=name
        )
        make_rows = _wide_rows if layout.is_wide else _long_rows
        before = records.number
        rows = tuple(make_rows(records, fields, schema, layout, file=name, is_labelled=is_labelled))
        if not rows:
            empty = "no value in a column of an attribute" if records.number > before else "no rows"
            raise InputError(f"{name}: has a header but {empty}")
        return Table(table.name, table.sha256(), rows)


def _long_rows(
    records: Records, fields: Sequence[str], schema: Schema, layout: Layout, *, file: str, is_labelled: bool
) -> Iterator[Row]:
    """A row for each record. Its index is the record's, or else its number."""
    wanted = ("image_link", "group_id", "entity_name", "entity_value", "index")
    known = schema.attributes
    strings: dict[str, str] = {}  # most groups, entities and labels repeat: one object each halves the memory
    indexes = _Indexes(records, file=file)
    has_index = "index" in fields
    for position, cells in enumerate(_read_cells(records, wanted, fields, layout, file=file)):
        url, group_id, entity_name, entity_value, index = cells
        if entity_name not in known:
            found = one_line(repr(entity_name), max_length=50)
            raise InputError(
                f"{file}, {records.word} {records.number}: unknown entity_name {found}; "
                f"expected one of {', '.join(known)}"
            )
        yield Row(
            position=position,
            index=indexes.read(index) if has_index else position,
            image_link=url.strip(),  # a space would be sent to the server as `%20`
            group_id=strings.setdefault(group_id, group_id),
            entity_name=strings.setdefault(entity_name, entity_name),
            entity_value=strings.setdefault(entity_value, entity_value),
        )


def _wide_rows(
    records: Records, fields: Sequence[str], schema: Schema, layout: Layout, *, file: str, is_labelled: bool
) -> Iterator[Row]:
    """A row for each value of a record, and for each missing one that means "not shown"; in test, for each attribute.

    Its index is `product * n + k`: the record's index, or else its number, times the number of attributes, plus the
    position of the attribute in the schema.
    """
    wanted = ("image_link", "group_id", "index", *(schema.names if is_labelled else ()))
    strings: dict[str, str] = {}
    indexes = _Indexes(records, file=file, most=MAX_INDEX // len(schema.names) - 1)
    has_index = "index" in fields
    attributes = tuple(schema.attributes.values())
    for position, cells in enumerate(_read_cells(records, wanted, fields, layout, file=file)):
        url, group_id, index, *values = cells
        first = (indexes.read(index) if has_index else position) * len(attributes)
        for number, attribute in enumerate(attributes):
            value = values[number] if is_labelled else ""
            if is_labelled and not value.strip():
                if not attribute.missing_is_not_shown:
                    continue
                value = ""
            yield Row(
                position=position,
                index=first + number,
                image_link=url.strip(),
                group_id=strings.setdefault(group_id, group_id),
                entity_name=attribute.name,
                entity_value=strings.setdefault(value, value),
            )


def _read_cells(
    records: Records, wanted: Sequence[str], fields: Sequence[str], layout: Layout, *, file: str
) -> Iterator[Sequence[str]]:
    """The cells of each record for `wanted`; "" for what the table does not have."""
    present = [name for name in wanted if name in fields]
    found = records.read([layout.column(name) for name in present])
    missing = [number for number, name in enumerate(wanted) if name not in fields]
    max_lengths = [MAX_LENGTHS.get(name, MAX_LENGTHS["entity_value"]) for name in wanted]
    for cells in found:
        if missing:
            filled = list(cells)
            for number in missing:
                filled.insert(number, "")
            cells = tuple(filled)
        if records.length > _MIN_MAX_LENGTH:
            for name, cell, max_length in zip(wanted, cells, max_lengths, strict=True):
                if len(cell) > max_length:
                    raise InputError(
                        f"{file}, {records.word} {records.number}: {name} has {len(cell)} characters, more than "
                        f"{max_length}; correct or remove the row"
                    )
        yield cells


class _Indexes:
    """Reads the indexes of a table, and refuses one that is not a whole number or occurs twice."""

    def __init__(self, records: Records, *, file: str, most: int = MAX_INDEX) -> None:
        self._records = records
        self._file = file
        self._most = most
        self._seen: dict[int, int] = {}  # index -> line

    def read(self, text: str) -> int:
        number, word = self._records.number, self._records.word
        index = parse_index(text)
        if index is None or abs(index) > self._most:
            found = one_line(repr(text), max_length=50)
            limit = "" if index is None else f" of at most {self._most}"
            raise InputError(f"{self._file}, {word} {number}: index must be a whole number{limit}, got {found}")
        first = self._seen.setdefault(index, number)
        if first != number:
            raise InputError(f"{self._file}, {word} {number}: duplicate index {index} (first seen on {word} {first})")
        return index
