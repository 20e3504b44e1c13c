"""The files of a prediction: the submission X.csv, and X.parquet with all columns and what made them."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from inference.tables import read_indexes, read_table
from product_vqa.atomic_io import atomic_write
from product_vqa.documents import DocumentError, parse_json
from product_vqa.errors import InputError, first_line
from product_vqa.ocr.image_text import Box
from product_vqa.parquet_files import ParquetError, check_parquet
from product_vqa.quoting import one_line

PREDICTIONS = pa.schema(
    [
        pa.field("index", pa.int64(), nullable=False),
        pa.field("image_link", pa.string()),
        pa.field("entity_name", pa.string()),
        pa.field("prediction", pa.string(), nullable=False),  # as in the submission
        # The columns from here to `alternatives` are null where no image could be read.
        pa.field("answer", pa.string()),  # as decoded
        pa.field("confidence", pa.float64()),  # 0..1
        # That the image shows the attribute, 0..1; null where the adapter was not trained to be silent, and with
        # --constrain off.
        pa.field("shown", pa.float64()),
        pa.field("number_confidence", pa.float64()),  # null with --constrain off too, like the next two
        pa.field("unit_confidence", pa.float64()),
        pa.field("allowed_probability", pa.float64()),
        pa.field("alternatives", pa.list_(pa.struct({"prediction": pa.string(), "confidence": pa.float64()}))),
        # The text that supports the answer: left, top, right and bottom, as fractions of the image; null without OCR.
        pa.field("box", pa.list_(pa.float64())),
        pa.field("reason", pa.string()),  # why no image could be read: `no_image`, or as in `left_out.csv`; else null
    ]
)
NO_IMAGE = "no_image"  # the reason where the dataset has no image for a row
RUN_KEY = b"product_vqa.run"  # of the metadata of X.parquet
RECORDED = ("split", "constrain", "allow_empty", "num_beams", "min_confidence")  # options that a run records
_NO_CONFIDENCE = ("", "nan")  # Arrow's text of NaN in a Parquet file
_REPORTED = ("adapter", "base_model", "dataset")  # keys of the run that a report shows


def write_submission(table: pa.Table, output: Path, *, run: dict[str, Any]) -> None:
    """Write X.parquet, with `run` in its metadata, then the submission X.csv. Each file is complete or absent."""
    table = table.replace_schema_metadata({RUN_KEY: json.dumps(run)})
    with atomic_write(output.with_suffix(".parquet")) as temporary:
        pq.write_table(table, temporary)
    with atomic_write(output) as temporary, temporary.open("w", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(["index", "prediction"])
        writer.writerows(zip(table["index"].to_pylist(), table["prediction"].to_pylist(), strict=True))


def summarize(table: pa.Table) -> str:
    """`809 rows, 800 answered; empty: 5 below the threshold or not valid, 4 without an image`.

    Rows whose image cannot be read are counted by reason at the end, if there are any.
    """
    answered = pc.sum(pc.not_equal(table["prediction"], "")).as_py() or 0
    without_answer = table["answer"].null_count
    abstained = len(table) - answered - without_answer
    reasons = Counter(reason.partition(":")[0] for reason in table["reason"].drop_null().to_pylist())
    without_image = reasons.pop(NO_IMAGE, 0)
    text = (
        f"{len(table)} rows, {answered} answered; "
        f"empty: {abstained} below the threshold or not valid, {without_image} without an image"
    )
    if reasons:
        counts = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        text += f", {reasons.total()} whose image cannot be read ({counts})"
    return text


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


def read_boxes(predictions: str | Path) -> dict[int, Box]:
    """The text that supports each prediction of X.parquet, by its index: of those with OCR that have one.

    Left, top, right and bottom, as fractions of the image. Empty for a CSV. Raises InputError, with the index, for a
    box that is none.
    """
    if not str(predictions).endswith(".parquet"):
        return {}
    columns = {"index": ("INT32", "INT64"), "box.list.element": ("FLOAT", "DOUBLE")}
    try:
        if not columns.keys() <= set(check_parquet(Path(predictions), columns)):
            return {}
        table = pq.read_table(predictions, columns=["index", "box"])
    except (OSError, ParquetError, pa.ArrowException) as error:
        raise InputError(f"{predictions}: its boxes cannot be read ({first_line(error)}); predict again") from error
    boxes = {}
    for index, box in zip(table["index"].to_pylist(), table["box"].to_pylist(), strict=True):
        if box is None:
            continue
        is_box = len(box) == 4 and all(value is not None and 0 <= value <= 1 for value in box)
        if not is_box or box[0] > box[2] or box[1] > box[3]:
            raise InputError(f"{predictions}, index {index}: its box is not left, top, right and bottom of a text")
        boxes[index] = (box[0], box[1], box[2], box[3])
    return boxes


def read_predictions(path: str | Path, *, optional: tuple[str, ...] = (), as_written: bool = False) -> pd.DataFrame:
    """index, prediction ("" for none), confidence and shown (NaN if there is none) of a CSV or Parquet file.

    With those of the `optional` columns that it has, as text. `as_written` is that of `read_table`. Raises InputError,
    with the index, for a confidence, or a probability `shown`, that is not a number from 0 to 1.
    """
    table = read_table(
        path, columns=("index", "prediction"), optional=("confidence", "shown", *optional), as_written=as_written
    )
    indexes = read_indexes(table, path=path)
    probabilities = {name: _read_probabilities(table, name, indexes, path=path) for name in ("confidence", "shown")}
    return table[[name for name in optional if name in table.columns]].assign(
        index=indexes, prediction=table["prediction"].str.strip(), **probabilities
    )


def _read_probabilities(table: pd.DataFrame, name: str, indexes: list[int], *, path: str | Path) -> pd.Series:
    texts = table[name].str.strip() if name in table.columns else pd.Series("", index=table.index)
    found = pd.to_numeric(texts, errors="coerce")
    wrong = np.flatnonzero(~found.between(0, 1) & ~texts.isin(_NO_CONFIDENCE))
    if len(wrong):
        text = one_line(texts.iloc[wrong[0]], max_length=50)
        raise InputError(f"{path}, index {indexes[wrong[0]]}: {name} {text} is not a number from 0 to 1")
    return found
