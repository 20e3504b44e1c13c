"""`evaluate.load("product_vqa/entity_f1")`: the challenge's F1 as a metric module."""

import datasets
import evaluate

from .scoring import score

_DESCRIPTION = """\
F1 of the Amazon ML Challenge 2024: a prediction is correct if it equals the reference as a string. An empty prediction
is a missing one. f1_quantity compares number and unit instead, so `10 gram` equals `10.0 gram`.
"""
_INPUTS = """\
Args:
    predictions: list of str, `number unit` or "".
    references: list of str, `number unit` or "" where there is nothing to read.
Returns:
    f1, precision, recall, true_positives, false_positives, false_negatives, true_negatives, f1_quantity.
Example:
    >>> metric = evaluate.load("product_vqa/entity_f1")
    >>> metric.compute(predictions=["10.0 gram", ""], references=["10 gram", "5.0 volt"])["f1_quantity"]
    0.6666666666666666
"""


class EntityF1(evaluate.Metric):
    """Adapts `scoring.score` to the evaluate library."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        return score(predictions, references)
