"""Reads train.csv and test.csv, and checks every row: an error names the file and the line. Selects rows."""

import csv
import io
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from dataset_builder.options import TableOptions
from product_vqa.csv_files import BROKEN_ARCHIVE, compression_name, open_csv, parse_index
from product_vqa.errors import InputError, argument
from product_vqa.quoting import one_line
from product_vqa.row_selection import RowKey, RowSelection
from product_vqa.schemas import choose_schema
from product_vqa.task.attributes import Schema
from product_vqa.task.columns import TEST_COLUMNS, TRAIN_COLUMNS
from product_vqa.task.schema import CHALLENGE

logger = logging.getLogger(__name__)

# Longer values are not what the column is for, and would be published.
MAX_LENGTHS = {"image_link": 8192, "group_id": 1000, "entity_name": 1000, "entity_value": 1000}
_MIN_MAX_LENGTH = min(MAX_LENGTHS.values())
MAX_ROW_LENGTH = 4 * 1024**2  # of all lines of a row


class Row(NamedTuple):
    position: int  # of the row in its file, from 0
    index: int  # type: ignore[assignment]  # of the `index` column, or else the position; hides tuple.index
    image_link: str  # the URL, without the spaces and line ends around it
    group_id: str
    entity_name: str
    entity_value: str  # "" in test.csv


@dataclass(frozen=True)
class Table:
    name: str  # of the file, without its folder, because it is published
    sha256: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Tables:
    """The CSVs of a dataset: labelled rows, rows to predict, or both; and the schema of their attributes."""

    train: Table | None
    test: Table | None
    schema: Schema = CHALLENGE

    def __iter__(self) -> Iterator[Table | None]:
        return iter((self.train, self.test))

    def rows(self) -> Iterator[Row]:
        for table in self:
            if table is not None:
                yield from table.rows

    @property
    def num_rows(self) -> int:
        return sum(len(table.rows) for table in self if table is not None)

    def urls(self) -> list[str]:
        """Every image URL once, in the order of the rows."""
        return list(dict.fromkeys(row.image_link for row in self.rows()))


def read_tables(options: TableOptions) -> Tables:
    """Read the schema and the CSVs that the options name. Raises InputError as the two functions below do."""
    with argument("schema"):
        schema = choose_schema(options.schema)
    return Tables(
        train=None if options.train_csv is None else read_train_csv(options.train_csv, schema=schema),
        test=None if options.test_csv is None else read_test_csv(options.test_csv, schema=schema),
        schema=schema,
    )


def select_rows(tables: Tables, selection: RowSelection) -> Tables:
    """The tables with the selected rows alone, and how many these are, printed.

    Raises InputError if a table has none, or if indexes are listed for two tables: each numbers its rows on its own.
    """
    if selection.indexes is not None and None not in tables:
        raise InputError("`rows` lists indexes of one table: give `train_csv` or `test_csv`, and not both")
    train, test = (table and _select(table, selection) for table in tables)
    return replace(tables, train=train, test=test)


def _select(table: Table, selection: RowSelection) -> Table:
    if selection.is_all:
        return table
    keys = [RowKey(row.index, row.entity_name, row.image_link) for row in table.rows]
    rows = tuple(table.rows[position] for position in selection.positions(keys, name=table.name))
    logger.info("%s: %s of %s rows selected", table.name, len(rows), len(table.rows))
    return replace(table, rows=rows)


def read_train_csv(path: str | Path, *, schema: Schema = CHALLENGE) -> Table:
    """Raises InputError for anything but a train.csv. Its labels may have any form: `labels` judges them."""
    with argument("train_csv"):
        return _read_table(path, columns=TRAIN_COLUMNS, schema=schema)


def read_test_csv(path: str | Path, *, schema: Schema = CHALLENGE) -> Table:
    """Raises InputError for anything but a test.csv."""
    with argument("test_csv"):
        return _read_table(path, columns=TEST_COLUMNS, schema=schema)


def _read_table(path: str | Path, *, columns: tuple[str, ...], schema: Schema) -> Table:
    file, name = Path(path), str(path)
    if not file.name.isprintable():
        raise InputError(f"{name!r}: the name of the file, which is published, must be printable; rename it")
    with open_csv(file) as stream:
        try:
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
            rows = tuple(_read_rows(text, name=name, columns=columns, schema=schema))
        except BROKEN_ARCHIVE as error:
            reason = one_line(str(error))
            raise InputError(f"{name}: broken {compression_name(stream)} ({reason}); download it again") from error
        if not rows:
            raise InputError(f"{name}: has a header but no rows")
        return Table(file.name, stream.sha256(), rows)


def _count_characters(lines: Iterable[str], row_length: list[int]) -> Iterator[str]:
    """The lines, whose lengths are added to `row_length`. Raises csv.Error if a row has too many characters."""
    for line in lines:
        row_length[0] += len(line)
        if row_length[0] > MAX_ROW_LENGTH:
            raise csv.Error(f"a row of more than {MAX_ROW_LENGTH} characters")
        yield line


def _read_rows(lines: Iterable[str], *, name: str, columns: tuple[str, ...], schema: Schema) -> Iterator[Row]:
    row_length = [0]  # of the row that is being read
    reader = csv.reader(_count_characters(lines, row_length), strict=True)
    first_line = 1  # of that row
    try:
        header = next(reader, None)
        if header is None:
            raise InputError(f"{name}: is empty")
        cell_numbers = _find_columns(header, name=name, columns=columns)
        url_at, group_at, entity_at = (cell_numbers[column] for column in ("image_link", "group_id", "entity_name"))
        value_at, index_at = cell_numbers.get("entity_value"), cell_numbers.get("index")
        line_by_index: dict[int, int] = {}
        known = schema.attributes
        strings: dict[str, str] = {}  # most groups, entities and labels repeat: one object each halves the memory
        position = 0
        first_line, row_length[0] = reader.line_num + 1, 0
        for cells in reader:
            if not cells:  # an empty line
                row_length[0] = 0
                continue
            if len(cells) != len(header):
                raise InputError(
                    f"{name}, line {reader.line_num}: has {len(cells)} fields, but the header has {len(header)}; "
                    "put a value that contains a comma in double quotes"
                )
            if row_length[0] > _MIN_MAX_LENGTH:
                _check_lengths(cells, cell_numbers, where=f"{name}, line {reader.line_num}")
            row_length[0] = 0
            group_id, entity_name = cells[group_at], cells[entity_at]
            entity_value = "" if value_at is None else cells[value_at]
            if entity_name not in known:
                found = one_line(repr(entity_name), max_length=50)
                raise InputError(
                    f"{name}, line {reader.line_num}: unknown entity_name {found}; "
                    f"expected one of {', '.join(schema.names)}"
                )
            index = position
            if index_at is not None:
                where = f"{name}, line {reader.line_num}"
                index = _parse_index(cells[index_at], where=where)
                first_seen = line_by_index.setdefault(index, reader.line_num)
                if first_seen != reader.line_num:
                    raise InputError(f"{where}: duplicate index {index} (first seen on line {first_seen})")
            yield Row(
                position=position,
                index=index,
                image_link=cells[url_at].strip(),  # a space would be sent to the server as `%20`
                group_id=strings.setdefault(group_id, group_id),
                entity_name=strings.setdefault(entity_name, entity_name),
                entity_value=strings.setdefault(entity_value, entity_value),
            )
            position += 1
            first_line = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}, after line {reader.line_num}: not UTF-8 text ({error.reason}); save the CSV as UTF-8"
        ) from error
    except csv.Error as error:
        is_one_line = reader.line_num <= first_line
        where = f"{name}, line {first_line}" if is_one_line else f"{name}, lines {first_line} to {reader.line_num}"
        hint = "" if is_one_line else "; is a double quote never closed?"
        raise InputError(f"{where}: not a valid CSV ({error}){hint}") from error


def _check_lengths(cells: list[str], cell_numbers: dict[str, int], *, where: str) -> None:
    for column, max_length in MAX_LENGTHS.items():
        length = len(cells[cell_numbers[column]]) if column in cell_numbers else 0
        if length > max_length:
            raise InputError(
                f"{where}: {column} has {length} characters, more than {max_length}; correct or remove the row"
            )


def _find_columns(header: list[str], *, name: str, columns: tuple[str, ...]) -> dict[str, int]:
    """The positions of `columns` in the header, and of `index` where there is one. Other columns are ignored."""
    missing = [column for column in columns if column not in header]
    if missing:
        found = one_line(", ".join(header[:100]), max_length=200)
        raise InputError(
            f"{name}: no column {', '.join(missing)}; expected {', '.join(columns)}, found {found or 'none'}"
        )
    used = [column for column in ("index", *columns) if column in header]
    for column in used:
        if header.count(column) > 1:
            raise InputError(f"{name}: has {header.count(column)} columns {column}; rename or remove all but one")
    return {column: header.index(column) for column in used}


def _parse_index(text: str, *, where: str) -> int:
    index = parse_index(text)
    if index is None:
        raise InputError(f"{where}: index must be a whole number, got {one_line(repr(text), max_length=50)}")
    return index
