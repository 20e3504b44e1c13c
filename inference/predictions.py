"""What was said of each row: the table that predict writes, as Parquet and as the submission."""

import csv
import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from inference.dataloader import NO_IMAGE, RowBatch
from product_vqa.atomic_io import atomic_write
from product_vqa.modeling.attribute_reader import AttributeReader
from product_vqa.modeling.collator import Batch, take_rows
from product_vqa.modeling.generation import Answer, is_not_finite

logger = logging.getLogger(__name__)

ANSWERS = pa.schema(
    [
        pa.field("index", pa.int64(), nullable=False),
        pa.field("image_link", pa.string()),
        pa.field("entity_name", pa.string()),
        pa.field("prediction", pa.string(), nullable=False),  # as in the submission
        pa.field("answer", pa.string()),  # as decoded; this and what follows: null where no image could be read
        pa.field("confidence", pa.float64()),  # 0..1
        pa.field("number_confidence", pa.float64()),  # null without --constrain too
        pa.field("unit_confidence", pa.float64()),
        pa.field("allowed_probability", pa.float64()),  # null with --constrain off too
        pa.field("alternatives", pa.list_(pa.struct({"prediction": pa.string(), "confidence": pa.float64()}))),
        pa.field("reason", pa.string()),  # why no image could be read: `no_image`, or as in `left_out.csv`; else null
    ]
)


def answer_rows(reader: AttributeReader, batch: RowBatch, *, min_confidence: float = 0.0) -> pa.Table:
    """One row of `ANSWERS` for each row of the batch, in order.

    A row whose image is missing or cannot be read goes out empty, with the reason. So does an answer below
    `min_confidence`; what it was stays in the column `answer`.
    """
    answers = iter(_answer(reader, batch.inputs, batch.entity_names) if batch.inputs is not None else ())
    records = []
    for row, failure in zip(batch.rows, batch.failures, strict=True):
        record = {name: row[name] for name in ("index", "image_link", "entity_name")}
        record |= {"prediction": "", "reason": failure}
        if failure is None:
            answer = next(answers)
            record |= {
                "prediction": answer.prediction if answer.confidence >= min_confidence else "",
                "answer": answer.text,
                "confidence": answer.confidence,
                "number_confidence": answer.number_confidence,
                "unit_confidence": answer.unit_confidence,
                "allowed_probability": answer.allowed_probability,
                "alternatives": [
                    {"prediction": other.prediction, "confidence": other.confidence} for other in answer.alternatives
                ],
            }
        records.append(record)
    return pa.Table.from_pylist(records, schema=ANSWERS)


def _answer(reader: AttributeReader, inputs: Batch, entity_names: list[str]) -> list[Answer]:
    """All in one batch, or in halves of halves where the memory does not suffice for that."""
    try:
        return reader.answer(inputs, entity_names)
    except RuntimeError as error:
        if len(entity_names) == 1 or not should_reduce_batch_size(error):
            raise
        logger.warning(
            "no memory for %d rows at a time: halved; a smaller --batch_size saves the attempt", len(entity_names)
        )
    clear_device_cache()  # outside of `except`, which still holds the failed batch
    half = len(entity_names) // 2
    parts = (slice(0, half), slice(half, len(entity_names)))
    return [answer for part in parts for answer in _answer(reader, take_rows(inputs, part), entity_names[part])]


_RUN_KEY = b"product_vqa.run"


def write_answers(table: pa.Table, output: Path, *, run: dict[str, Any]) -> None:
    """X.parquet, then the submission X.csv: each written beside and renamed, so that neither is ever a half.

    The Parquet file's metadata say what made it: `run`.
    """
    parquet = output.with_suffix(".parquet")
    table = table.replace_schema_metadata({_RUN_KEY: json.dumps(run)})
    with atomic_write(parquet) as temporary:
        pq.write_table(table, temporary)
    with atomic_write(output) as temporary, temporary.open("w", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(["index", "prediction"])
        writer.writerows(zip(*(table[name].to_pylist() for name in ("index", "prediction")), strict=True))


def read_provenance(predictions: str | Path) -> dict[str, Any]:
    """What made a Parquet file of predict's: adapter, base, dataset with their revisions, settings. Else nothing."""
    if not str(predictions).endswith(".parquet"):
        return {}
    metadata = pq.read_schema(predictions).metadata or {}
    return json.loads(metadata.get(_RUN_KEY, b"{}"))


def count_not_finite(table: pa.Table) -> int:
    """Rows that went out empty since the model's logits were not finite."""
    pairs = zip(table["answer"].to_pylist(), table["confidence"].to_pylist(), strict=True)
    return sum(is_not_finite(text, confidence) for text, confidence in pairs if text is not None)


def summarize(table: pa.Table) -> str:
    """`809 rows, 800 answered; empty: 5 withheld or not valid, 4 without a picture`, and what could not be read."""
    answered = pc.sum(pc.not_equal(table["prediction"], "")).as_py() or 0
    without_answer = table["answer"].null_count
    withheld = len(table) - answered - without_answer
    reasons = Counter(reason.partition(":")[0] for reason in table["reason"].drop_null().to_pylist())
    without_picture = reasons.pop(NO_IMAGE, 0)
    text = (
        f"{len(table)} rows, {answered} answered; "
        f"empty: {withheld} withheld or not valid, {without_picture} without a picture"
    )
    if reasons:
        counts = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        text += f", {reasons.total()} whose image cannot be read ({counts})"
    return text
