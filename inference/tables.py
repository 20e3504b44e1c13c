"""CSV and Parquet files of submissions, labels and test.csv, read as tables of text."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from product_vqa.csv_files import BROKEN_ARCHIVE, check_separator, open_csv, parse_index
from product_vqa.errors import InputError, first_line
from product_vqa.parquet_files import ParquetError, check_parquet
from product_vqa.paths import readable_file
from product_vqa.quoting import one_line
from product_vqa.tables.layout import LONG, Layout
from product_vqa.tables.rows import read_rows
from product_vqa.task.attributes import Schema
from product_vqa.task.schema import is_challenge

_PHYSICAL_TYPES = ("BOOLEAN", "INT32", "INT64", "INT96", "FLOAT", "DOUBLE", "BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")


def read_table(
    path: str | Path, *, columns: tuple[str, ...] = (), optional: tuple[str, ...] = (), as_written: bool = False
) -> pd.DataFrame:
    """Read columns of a CSV, compressed or not, or of a Parquet file as text. What pandas reads as missing is "".

    With `as_written`, that is the empty cell alone: `NA` and `None` may be answers. Returns `columns`, and those of
    `optional` that the file has. Raises InputError, with the file's name, if it is not a table, exceeds the limits of
    `product_vqa.parquet_files`, or lacks one of `columns`.
    """
    file = readable_file(path)
    names = (*columns, *optional)
    stream = None if file.suffix == ".parquet" else open_csv(file)
    try:
        if stream is None:
            found = check_parquet(file, dict.fromkeys(names, _PHYSICAL_TYPES))
            table = _read_parquet(file, [name for name in names if name in found])
        else:
            table = pd.read_csv(stream, dtype=str, encoding="utf-8-sig", keep_default_na=not as_written).fillna("")
            found = list(map(str, table.columns))
    except (
        ValueError,
        pd.errors.ParserError,
        pa.ArrowException,
        ParquetError,
        *BROKEN_ARCHIVE,
    ) as error:  # UnicodeError is a ValueError
        raise InputError(f"{file} cannot be read as a table: {first_line(error)}") from error
    if missing := [column for column in columns if column not in found]:
        check_separator(found, file=file)
        raise InputError(f"{file} has no column {', '.join(missing)}; its columns are {', '.join(found)}")
    return table[[name for name in names if name in found]]


def read_attribute_rows(
    path: str | Path, *, schema: Schema, layout: Layout, columns: tuple[str, ...], optional: tuple[str, ...] = ()
) -> pd.DataFrame:
    """Read `columns` of the rows of a table about attributes, long or wide, and those of `optional` that it has.

    They are texts, and `index` is an integer: that of the dataset's row (see `Layout`). A table may lack that column,
    unless it is the challenge's test.csv. Raises InputError, with the line, for a table that has no such rows.
    """
    if is_challenge(schema) and layout == LONG:
        table = read_table(path, columns=columns, optional=optional)
        indexes = read_indexes(table, path=path) if "index" in table.columns else range(len(table))
        return table.assign(index=list(indexes))
    rows = read_rows(
        readable_file(path),
        schema=schema,
        layout=layout,
        is_labelled="entity_value" in columns,
        required_if_long=[name for name in columns if name != "index"],
    ).rows
    return pd.DataFrame(
        {name: [getattr(row, name) for row in rows] for name in dict.fromkeys((*columns, *optional, "index"))}
    )


def _read_parquet(file: Path, names: list[str]) -> pd.DataFrame:
    # Without `ignore_metadata`, a column could become the index of the table.
    table = pq.read_table(file, columns=names, use_threads=False).cast(
        pa.schema([(name, pa.string()) for name in names])
    )
    return table.to_pandas(ignore_metadata=True).fillna("")


def check_entities(names: Iterable[str], indexes: Iterable[int], *, schema: Schema, path: str | Path) -> None:
    """Raise InputError, with the row, for a name that is not an attribute of the schema."""
    for index, name in zip(indexes, names, strict=True):
        if name not in schema.attributes:
            shown = one_line(repr(name), max_length=100)
            known = one_line(", ".join(schema.names), max_length=200)
            raise InputError(
                f"{path}, index {index}: unknown entity_name {shown}; expected one of {known}. Is `schema` right?"
            )


def read_indexes(table: pd.DataFrame, *, path: str | Path) -> list[int]:
    """The column `index` as integers. Raises InputError, with the line, for a value that is not one or a duplicate."""
    seen: dict[int, int] = {}
    for line, text in enumerate(table["index"], start=2):
        index = parse_index(text)
        if index is None:
            raise InputError(f"{path}, line {line}: index {text!r} is not an integer")
        if index in seen:
            raise InputError(f"{path}, line {line}: duplicate index {index} (first seen on line {seen[index]})")
        seen[index] = line
    return list(seen)
