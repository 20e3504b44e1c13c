"""Compute the challenge's F1, with the standard library only.

Source: the scoring section of the Amazon ML Challenge 2024. OUT is the prediction, GT the ground truth:

    True positive   OUT and GT are not empty, and OUT == GT
    False positive  OUT is not empty, and GT is empty or differs
    False negative  OUT is empty, GT is not
    True negative   both are empty
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from decimal import Decimal

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s+([a-z]+(?: [a-z]+)*)")


@dataclass(frozen=True)
class Counts:
    """The outcomes of predictions, and the scores made from them."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @property
    def precision(self) -> float:
        return _ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        return _ratio(2 * self.precision * self.recall, self.precision + self.recall)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def equal_as_strings(prediction: str, reference: str) -> bool:
    """Compare as the challenge does: `10 gram` differs from `10.0 gram`."""
    return prediction == reference


def equal_as_quantities(prediction: str, reference: str) -> bool:
    """Compare number and unit: `10 gram` equals `10.0 gram`, `1 meter` equals `1.0 metre`; units are not converted."""
    return normalize_quantity(prediction) == normalize_quantity(reference)


def normalize_quantity(text: str) -> tuple[Decimal, str] | str:
    """Parse `number unit` as (number, unit); any other text, such as a range, is returned as it is."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        return text
    # The two spellings that the official checker accepts.
    return Decimal(match[1]), re.sub(r"ter\b", "tre", match[2]).replace("feet", "foot")


def count(
    predictions: Iterable[str], references: Iterable[str], *, equal: Callable[[str, str], bool] = equal_as_strings
) -> Counts:
    """Count the outcomes of predictions. Outer spaces are ignored. Raises ValueError for lists of unequal length."""
    tp = fp = fn = tn = 0
    for prediction, reference in zip(predictions, references, strict=True):
        prediction, reference = prediction.strip(), reference.strip()
        if not prediction:
            if reference:
                fn += 1
            else:
                tn += 1
        elif reference and equal(prediction, reference):
            tp += 1
        else:
            fp += 1
    return Counts(tp, fp, fn, tn)


def score(predictions: list[str], references: list[str]) -> dict[str, float]:
    """Compute f1, precision, recall and the four counts by exact string, and f1_quantity by number and unit."""
    exact = count(predictions, references)
    quantity = count(predictions, references, equal=equal_as_quantities)
    return {
        "f1": exact.f1,
        "precision": exact.precision,
        "recall": exact.recall,
        **asdict(exact),
        "f1_quantity": quantity.f1,
    }
