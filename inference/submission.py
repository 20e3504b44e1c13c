"""The files of a prediction: the submission X.csv, and X.parquet with all columns and what made them."""

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from inference.tables import read_indexes, read_table
from product_vqa.atomic_io import atomic_write
from product_vqa.documents import DocumentError, parse_json
from product_vqa.errors import InputError, first_line
from product_vqa.paths import writable_folder

RUN_KEY = b"product_vqa.run"  # of the metadata of X.parquet
_REPORTED = ("adapter", "base_model", "dataset")  # keys of the run that a report shows


def check_output(output: str | Path) -> Path:
    """`output` as a Path. Creates its folder. Raises InputError if X.csv or X.parquet cannot be written there."""
    file = Path(output)
    writable_folder(file.parent)
    for taken in (file, file.with_suffix(".parquet")):
        if taken.is_dir():
            raise InputError(f"{taken} is a folder, but predictions are written to a file of that name")
    return file


def write_submission(table: pa.Table, output: Path, *, run: dict[str, Any]) -> None:
    """Write X.parquet, with `run` in its metadata, then the submission X.csv. Each file is complete or absent."""
    table = table.replace_schema_metadata({RUN_KEY: json.dumps(run)})
    with atomic_write(output.with_suffix(".parquet")) as temporary:
        pq.write_table(table, temporary)
    with atomic_write(output) as temporary, temporary.open("w", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(["index", "prediction"])
        writer.writerows(zip(table["index"].to_pylist(), table["prediction"].to_pylist(), strict=True))


def read_run(predictions: str | Path) -> dict[str, Any]:
    """The run that made X.parquet: adapter, base model and dataset with their revisions, and settings.

    Empty for a CSV, and for a Parquet file that predict did not write.
    """
    if not str(predictions).endswith(".parquet"):
        return {}
    try:
        metadata = pq.read_schema(predictions).metadata or {}
        run = parse_json(metadata.get(RUN_KEY, b"{}"))
    except (OSError, pa.ArrowException, DocumentError) as error:
        raise InputError(f"{predictions}: its metadata cannot be read ({first_line(error)}); predict again") from error
    if not isinstance(run, dict) or not all(isinstance(run.get(key, ""), str | None) for key in _REPORTED):
        raise InputError(f"{predictions}: its metadata was not written by inference.predict; predict again")
    return run


def read_predictions(path: str | Path) -> pd.DataFrame:
    """index, prediction ("" for none) and confidence (NaN if there is none) of a CSV or Parquet file."""
    table = read_table(path, columns=("index", "prediction"))
    confidence = table["confidence"] if "confidence" in table.columns else pd.Series("", index=table.index)
    return pd.DataFrame(
        {
            "index": read_indexes(table, path=path),
            "prediction": table["prediction"].str.strip(),
            "confidence": pd.to_numeric(confidence, errors="coerce"),
        }
    )
