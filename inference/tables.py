"""CSV and Parquet files of submissions, labels and test.csv, read as tables of text."""

from pathlib import Path

import pandas as pd
import pyarrow as pa

from product_vqa.csv_files import BROKEN_ARCHIVE, open_csv, parse_index
from product_vqa.errors import InputError, first_line
from product_vqa.paths import readable_file


def read_table(path: str | Path, *, columns: tuple[str, ...] = ()) -> pd.DataFrame:
    """Read a CSV, compressed or not, or a Parquet file as text columns. What pandas reads as missing is "".

    Raises InputError, with the file's name, if it is not a table or lacks one of `columns`.
    """
    file = readable_file(path)
    stream = None if file.suffix == ".parquet" else open_csv(file)
    try:
        if stream is None:
            table = pd.read_parquet(file)
            table = table.where(table.notna(), "").astype(str)
        else:
            table = pd.read_csv(stream, dtype=str, encoding="utf-8-sig").fillna("")
    except (
        ValueError,
        pd.errors.ParserError,
        pa.ArrowException,
        *BROKEN_ARCHIVE,
    ) as error:  # UnicodeError is a ValueError
        raise InputError(f"{file} cannot be read as a table: {first_line(error)}") from error
    if missing := [column for column in columns if column not in table.columns]:
        raise InputError(
            f"{file} has no column {', '.join(missing)}; its columns are {', '.join(map(str, table.columns))}"
        )
    return table


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
