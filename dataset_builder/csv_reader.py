"""Reads the tables of a dataset. Selects rows."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dataset_builder.corrections import NO_CORRECTIONS, Corrections
from dataset_builder.options import TableOptions
from product_vqa.errors import InputError, argument
from product_vqa.row_selection import RowKey, RowSelection
from product_vqa.schemas import choose_schema, load_schema
from product_vqa.tables.layout import Layout
from product_vqa.tables.record_files import split_of
from product_vqa.tables.rows import Row, Table, read_rows
from product_vqa.task.attributes import Schema
from product_vqa.task.schema import CHALLENGE

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tables:
    """The CSVs of a dataset: labelled rows, rows to predict, or both; and the schema of their attributes."""

    train: Table | None
    test: Table | None
    schema: Schema
    layout: Layout
    corrections: Corrections = NO_CORRECTIONS  # they are in the rows already, but for those that they drop

    def __iter__(self) -> Iterator[Table | None]:
        return iter((self.train, self.test))

    def rows(self) -> Iterator[Row]:
        for table in self:
            if table is not None:
                yield from table.rows

    @property
    def num_rows(self) -> int:
        return sum(len(table.rows) for table in self if table is not None)

    def describe_corrections(self) -> dict[str, Any]:
        """What a manifest records about them; {} without any."""
        return {} if self.train is None else self.corrections.describe(self.train.rows)

    def urls(self) -> list[str]:
        """Every image URL once, in the order of the rows."""
        return list(dict.fromkeys(row.image_link for row in self.rows()))


def read_tables(options: TableOptions) -> Tables:
    """Read the schema and the CSVs that the options name. Raises InputError as the two functions below do."""
    own, of = _schema_of_source(options)
    with argument("schema"):
        schema = choose_schema(options.schema, own=own, of=of)
    layout = Layout.of(wide=options.wide, columns=options.columns)
    layout.check(schema)
    return Tables(
        train=None if options.train_csv is None else read_train_csv(options.train_csv, schema=schema, layout=layout),
        test=None if options.test_csv is None else read_test_csv(options.test_csv, schema=schema, layout=layout),
        schema=schema,
        layout=layout,
    )


def _schema_of_source(options: TableOptions) -> tuple[Schema | None, str]:
    """The schema of the first dataset among the tables that brings its own, and the name of the dataset."""
    for option, name in (("train_csv", options.train_csv), ("test_csv", options.test_csv)):
        with argument(option):
            split = None if name is None else split_of(name)
            if split and (own := load_schema(split[0])) != CHALLENGE:
                return own, str(split[0])
    return None, ""


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


def read_train_csv(path: str | Path, *, schema: Schema, layout: Layout) -> Table:
    """Raises InputError for anything but a train.csv. Its labels may have any form: `labels` judges them."""
    with argument("train_csv"):
        return read_rows(path, schema=schema, layout=layout, is_labelled=True)


def read_test_csv(path: str | Path, *, schema: Schema, layout: Layout) -> Table:
    """Raises InputError for anything but a test.csv."""
    with argument("test_csv"):
        return read_rows(path, schema=schema, layout=layout, is_labelled=False)
