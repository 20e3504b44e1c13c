"""Compute the challenge's F1, with the standard library only.

Source: the scoring section of the Amazon ML Challenge 2024. OUT is the prediction, GT the ground truth:

    True positive   OUT and GT are not empty, and OUT == GT
    False positive  OUT is not empty, and GT is empty or differs
    False negative  OUT is empty, GT is not
    True negative   both are empty
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

_NUMBER = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)\s*(\S.*)", re.DOTALL)
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


@dataclass(frozen=True)
class Meaning:
    """What answers mean: quantities in any of their units, and values in any of their spellings."""

    sizes: Mapping[str, tuple[str, Fraction]]  # spelling of a unit -> its dimension, and its size there
    values: Mapping[str, str]  # spelling of a value -> the value, both as `key_of` returns them

    @classmethod
    def of(cls, units: Mapping[str, Mapping[str, Any]], synonyms: Mapping[str, str]) -> "Meaning":
        """`units` are as in a schema.yaml: dimension -> unit -> its size, or `{size: 1000, spellings: [kg]}`.

        Raises ValueError for a unit without a positive size, and for a spelling of two units or values.
        """
        sizes: dict[str, tuple[str, Fraction]] = {}
        for dimension, units_of_it in units.items():
            for name, unit in units_of_it.items():
                fields = unit if isinstance(unit, Mapping) else {"size": unit}
                size = _parse_size(fields.get("size"), unit=name)
                for spelling in (name, *(fields.get("spellings") or ())):
                    if sizes.setdefault(spelling, (dimension, size)) != (dimension, size):
                        raise ValueError(f"units: {spelling!r} spells two units")
        values: dict[str, str] = {}
        for spelling, value in synonyms.items():
            if values.setdefault(key_of(spelling), key_of(value)) != key_of(value):
                raise ValueError(f"synonyms: {spelling!r} spells two values; case and spaces do not count")
        return cls(sizes, values)

    def __call__(self, text: str) -> object:
        """What texts of the same meaning have in common."""
        match = _NUMBER.fullmatch(text)
        if match and match[2] in self.sizes:
            dimension, size = self.sizes[match[2]]
            return dimension, Fraction(match[1]) * size
        key = key_of(text)
        return self.values.get(key, key)


def _parse_size(size: object, *, unit: str) -> Fraction:
    try:
        found = Fraction(str(size))
    except (ValueError, ZeroDivisionError):
        found = Fraction(0)
    if found <= 0:
        raise ValueError(f"units: the size of {unit!r} is {size!r}, not a positive number")
    return found


def key_of(text: str) -> str:
    """The text without what does not count: case, the number of spaces, the composition of characters."""
    return unicodedata.normalize("NFKC", " ".join(text.split())).casefold()


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


def score(
    predictions: list[str],
    references: list[str],
    *,
    units: Mapping[str, Mapping[str, Any]] | None = None,
    synonyms: Mapping[str, str] | None = None,
) -> dict[str, float]:
    """Compute f1, precision, recall and the four counts by exact string, and f1_quantity by number and unit.

    With `units` or `synonyms`, of which `Meaning.of` makes what answers mean, f1_meaning too.
    """
    exact = count(predictions, references)
    quantity = count(predictions, references, equal=equal_as_quantities)
    scores = {
        "f1": exact.f1,
        "precision": exact.precision,
        "recall": exact.recall,
        **asdict(exact),
        "f1_quantity": quantity.f1,
    }
    if units is None and synonyms is None:
        return scores
    meaning = Meaning.of(units or {}, synonyms or {})
    equal = count(predictions, references, equal=lambda one, other: meaning(one) == meaning(other))
    return scores | {"f1_meaning": equal.f1}
