"""The predictions of a split: how answers become rows of them."""

from collections.abc import Sequence

import pyarrow as pa

from inference.dataloader import RowBatch
from inference.submission import PREDICTIONS
from product_vqa.modeling.answer import Answer
from product_vqa.modeling.generation import is_not_finite


def to_table(batch: RowBatch, answers: Sequence[Answer], *, min_confidence: float = 0.0) -> pa.Table:
    """One row of `PREDICTIONS` for each row of the batch, in order. `answers` are those to the rows with an image.

    The prediction is empty where no image could be read, and where the confidence, or the probability that the image
    shows the attribute, is below `min_confidence`.
    """
    remaining = iter(answers)
    records = []
    for row, failure in zip(batch.rows, batch.failures, strict=True):
        record = {"index": row["index"], "image_link": row["image_link"], "entity_name": row["entity_name"]}
        if failure is None:
            answer = next(remaining)
            record |= {
                "prediction": answer.prediction if _certainty(answer) >= min_confidence else "",
                "answer": answer.text,
                "confidence": answer.confidence,
                "shown": answer.shown,
                "number_confidence": answer.number_confidence,
                "unit_confidence": answer.unit_confidence,
                "allowed_probability": answer.allowed_probability,
                "alternatives": [
                    {"prediction": other.prediction, "confidence": other.confidence} for other in answer.alternatives
                ],
                "box": None if answer.box is None else list(answer.box),
            }
        else:
            record |= {"prediction": "", "reason": failure}
        records.append(record)
    return pa.Table.from_pylist(records, schema=PREDICTIONS)


def _certainty(answer: Answer) -> float:
    """As `threshold.certainty` of the table."""
    return answer.confidence if answer.shown is None else min(answer.confidence, answer.shown)


def count_not_finite(table: pa.Table) -> int:
    """The number of rows without a prediction because the model's logits were not finite."""
    pairs = zip(table["answer"].to_pylist(), table["confidence"].to_pylist(), strict=True)
    return sum(is_not_finite(text, confidence) for text, confidence in pairs if text is not None)
