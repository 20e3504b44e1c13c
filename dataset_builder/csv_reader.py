"""train.csv and test.csv: read whole, checked row by row, every complaint with its file and line."""

import csv
import hashlib
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dataset_builder.options import TableOptions
from product_vqa.errors import InputError, argument
from product_vqa.tables import BROKEN_ARCHIVE, compression_of, open_csv, parse_index
from product_vqa.task.features import TEST_COLUMNS, TRAIN_COLUMNS
from product_vqa.task.schema import ENTITIES


class Row(NamedTuple):
    position: int  # among the rows of its file, from 0
    index: int  # the file's own, or the position where it has none
    image_link: str  # without the spaces and line ends around it
    group_id: str
    entity_name: str
    entity_value: str  # "" in test.csv


@dataclass(frozen=True)
class Table:
    name: str  # the file's, without its folder: it is published
    sha256: str
    rows: tuple[Row, ...]


def read_tables(options: TableOptions) -> tuple[Table | None, Table | None]:
    """train.csv and test.csv, each None where the options do not name it."""
    train = read_train_csv(options.train_csv) if options.train_csv is not None else None
    test = read_test_csv(options.test_csv) if options.test_csv is not None else None
    return train, test


def links_of(*tables: Table | None) -> list[str]:
    """Every image link once, in the order of the rows."""
    return list(dict.fromkeys(row.image_link for table in tables if table for row in table.rows))


def read_train_csv(path: str | Path) -> Table:
    """Raises InputError for whatever is not a train.csv; a label of any form is none of that."""
    with argument("train_csv"):
        return _read(path, columns=TRAIN_COLUMNS)


def read_test_csv(path: str | Path) -> Table:
    """Raises InputError for whatever is not a test.csv."""
    with argument("test_csv"):
        return _read(path, columns=TEST_COLUMNS)


def _read(path: str | Path, *, columns: tuple[str, ...]) -> Table:
    file, name = Path(path), str(path)
    stream = open_csv(file)
    try:
        rows = tuple(_rows(io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""), name=name, columns=columns))
    except BROKEN_ARCHIVE as error:
        raise InputError(f"{name}: broken {compression_of(stream)} ({error}); fetch it again") from error
    if not rows:
        raise InputError(f"{name}: has a header and no rows")
    return Table(file.name, hashlib.sha256(file.read_bytes()).hexdigest(), rows)


def _rows(lines: io.TextIOWrapper, *, name: str, columns: tuple[str, ...]) -> Iterator[Row]:
    reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise InputError(f"{name}: is empty")
        if missing := [column for column in columns if column not in header]:
            found = ", ".join(header)[:200]
            raise InputError(
                f"{name}: no column {', '.join(missing)}; expected {', '.join(columns)}, found {found or 'none'}"
            )
        places = {column: header.index(column) for column in ("index", *columns) if column in header}
        line_of_index: dict[int, int] = {}
        words: dict[str, str] = {}  # entities, groups and most labels repeat: one string each saves half the memory
        position = 0
        for cells in reader:
            if not cells:  # a blank line
                continue
            if len(cells) != len(header):
                raise InputError(
                    f"{name}, line {reader.line_num}: {len(cells)} fields where the header has {len(header)}; "
                    "a value that holds a comma must be in double quotes"
                )
            cell = {column: cells[place] for column, place in places.items()}
            if cell["entity_name"] not in ENTITIES:
                raise InputError(
                    f"{name}, line {reader.line_num}: unknown entity_name {cell['entity_name']!r}; "
                    f"expected one of {', '.join(ENTITIES)}"
                )
            index = position
            if "index" in cell:
                index = _index(cell["index"], where=f"{name}, line {reader.line_num}")
                first_line = line_of_index.setdefault(index, reader.line_num)
                if first_line != reader.line_num:
                    raise InputError(
                        f"{name}, line {reader.line_num}: index {index} stands in line {first_line} already; "
                        "every row needs its own"
                    )
            yield Row(
                position,
                index,
                cell["image_link"].strip(),  # a server would be asked for `%20`
                words.setdefault(cell["group_id"], cell["group_id"]),
                sys.intern(cell["entity_name"]),
                words.setdefault(value := cell.get("entity_value", ""), value) if "entity_value" in columns else "",
            )
            position += 1
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}, after line {reader.line_num}: not UTF-8 text ({error.reason}); save it as a CSV in UTF-8"
        ) from error
    except csv.Error as error:
        raise InputError(f"{name}, line {reader.line_num}: not CSV ({error})") from error


def _index(text: str, *, where: str) -> int:
    index = parse_index(text)
    if index is None:
        raise InputError(f"{where}: index must be a whole number, got {text!r}")
    return index
