"""The CSV and Parquet tables of this room, read with the checks that they need."""

from pathlib import Path

import pandas as pd

from product_vqa.csv_files import BROKEN_ARCHIVE, open_csv, parse_index
from product_vqa.errors import InputError, first_line
from product_vqa.paths import readable_file


def read_table(path: str | Path, *, columns: tuple[str, ...] = ()) -> pd.DataFrame:
    """A CSV, compressed or not, or a Parquet file as text columns; "" stands for what pandas reads as missing.

    Raises InputError, naming the file, if it is no table or lacks one of `columns`.
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
        *BROKEN_ARCHIVE,
        pd.errors.ParserError,
        UnicodeError,
    ) as error:  # EmptyDataError is a ValueError
        raise InputError(f"{file} cannot be read as a table: {first_line(error)}") from error
    if missing := [column for column in columns if column not in table.columns]:
        raise InputError(
            f"{file} has no column {', '.join(missing)}; its columns are {', '.join(map(str, table.columns))}"
        )
    return table


def read_indexes(table: pd.DataFrame, *, path: str | Path) -> list[int]:
    """The column `index` as integers. Raises InputError, with the line, for one that is none or stands twice."""
    seen: dict[int, int] = {}
    for line, text in enumerate(table["index"], start=2):
        index = parse_index(text)
        if index is None:
            raise InputError(f"{path}, line {line}: index {text!r} is not an integer")
        if index in seen:
            raise InputError(f"{path}, line {line}: index {index} stands in line {seen[index]} already")
        seen[index] = line
    return list(seen)


def read_predictions(path: str | Path) -> pd.DataFrame:
    """index, prediction ("" for none), confidence (NaN where the file has none) of a CSV or Parquet file."""
    table = read_table(path, columns=("index", "prediction"))
    confidence = table["confidence"] if "confidence" in table.columns else pd.Series("", index=table.index)
    return pd.DataFrame(
        {
            "index": read_indexes(table, path=path),
            "prediction": table["prediction"].str.strip(),
            "confidence": pd.to_numeric(confidence, errors="coerce"),
        }
    )
