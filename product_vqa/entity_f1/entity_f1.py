"""`evaluate.load("product_vqa/entity_f1")`: the challenge's F1 as a metric module."""

from typing import Any

import datasets
import evaluate

from .scoring import score

_DESCRIPTION = """\
F1 of the Amazon ML Challenge 2024: a prediction is correct if it equals the reference as a string. An empty prediction
is a missing one. f1_quantity compares number and unit instead, so `10 gram` equals `10.0 gram`. For other attributes,
f1_meaning converts the units that it is given and knows synonyms, so `0.5 kg` equals `500 gram`.
"""
_INPUTS = """\
Args:
    predictions: list of str, `number unit` or "".
    references: list of str, `number unit` or "" where there is nothing to read.
    units: dict, dimension -> unit -> its size there, or {"size": 1000, "spellings": ["kg"]}; as in a schema.yaml.
    synonyms: dict, spelling of a value -> the value.
Returns:
    f1, precision, recall, true_positives, false_positives, false_negatives, true_negatives, f1_quantity; and
    f1_meaning if `units` or `synonyms` are given.
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

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        units: dict[str, dict[str, Any]] | None = None,
        synonyms: dict[str, str] | None = None,
    ) -> dict[str, float]:
        return score(predictions, references, units=units, synonyms=synonyms)
