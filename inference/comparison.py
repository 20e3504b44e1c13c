"""What equals a reference, measure by measure: for the challenge, and for any other schema."""

from collections.abc import Callable
from fractions import Fraction

import pandas as pd

from inference.error_analysis import (
    TOLERANCE,
    is_same_amount,
    is_within_tolerance,
    kind_of_mistake,
    kind_of_mistake_about,
)
from product_vqa.entity_f1.scoring import equal_as_quantities, equal_as_strings
from product_vqa.task.attributes import Schema
from product_vqa.task.kinds import LabelError, QuantityKind
from product_vqa.task.schema import is_challenge

_OF_CHALLENGE: dict[str, Callable[[str, str], bool]] = {
    "f1": equal_as_strings,
    "f1_quantity": equal_as_quantities,
    "f1_converted": is_same_amount,
    "f1_within_2_percent": is_within_tolerance,
}


class Comparison:
    """Compares predictions with references about a schema's attributes, and remembers what it has compared.

    `measures` are the names of the F1 scores, each with its own equality, from the strictest on. For a schema that is
    not the challenge's:

    - `f1`: equal strings, where references are in canonical form
    - `f1_quantity`: equal canonical forms: `500 g` and `500.0 gram`, but not `0.5 kilogram`; a value and its synonyms
    - `f1_meaning`, and `f1_converted`, which is the same: the schema's own equality, with units converted and, of
      patterns and texts, in any case
    - `f1_within_2_percent`: quantities at most 2 % apart too
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.is_challenge = is_challenge(schema)
        more = ("f1", "f1_quantity", "f1_meaning", "f1_converted", "f1_within_2_percent")
        self.measures = tuple(_OF_CHALLENGE) if self.is_challenge else more
        self._canonical: dict[tuple[str, str], str | None] = {}
        self._equal: dict[tuple[str, str, str, str], bool] = {}

    def canonical(self, entity_name: str, text: str) -> str | None:
        """The canonical form of an answer or a label; None if it has none."""
        key = (entity_name, text)
        if key not in self._canonical:
            try:
                self._canonical[key] = self.schema[entity_name].normalize(text)
            except LabelError:
                self._canonical[key] = None
        return self._canonical[key]

    def is_equal(self, measure: str, entity_name: str, prediction: str, reference: str) -> bool:
        """Whether a prediction and a reference, neither of them empty, are equal in a measure."""
        if prediction == reference or measure == "f1":
            return prediction == reference
        key = (measure, entity_name if not self.is_challenge else "", prediction, reference)
        if key not in self._equal:
            if self.is_challenge:
                self._equal[key] = _OF_CHALLENGE[measure](prediction, reference)
            else:
                self._equal[key] = self._is_equal(measure, entity_name, prediction, reference)
        return self._equal[key]

    def _is_equal(self, measure: str, entity_name: str, prediction: str, reference: str) -> bool:
        one, other = self.canonical(entity_name, prediction), self.canonical(entity_name, reference)
        if not one or not other or one == other or measure == "f1_quantity":
            return bool(one) and one == other
        attribute = self.schema[entity_name]
        if measure == "f1_within_2_percent" and isinstance(attribute.kind, QuantityKind):
            amount, expected = _amount(attribute.kind, one), _amount(attribute.kind, other)
            return abs(amount - expected) <= Fraction(str(TOLERANCE)) * abs(expected)
        return attribute.is_same(one, other)

    def write_as_references(self, table: pd.DataFrame, measure: str) -> list[str]:
        """The predictions of a table, each written as its reference where the two are equal in a measure."""
        rows = zip(table["entity_name"], table["prediction"].str.strip(), table["reference"].str.strip(), strict=True)
        return [
            reference
            if prediction and reference and self.is_equal(measure, name, prediction, reference)
            else prediction
            for name, prediction, reference in rows
        ]

    def find_mistake(
        self, entity_name: str, prediction: str, reference: str, *, others: dict[str, str] | None = None
    ) -> str | None:
        """The kind of a mistake, or None if there is none. `others` are the image's other labels, by attribute."""
        if self.is_challenge:
            is_not_shown = not reference and self.schema[entity_name].not_shown
            return kind_of_mistake(prediction, reference, others=others, is_not_shown=is_not_shown)
        if prediction == reference:
            return None
        return kind_of_mistake_about(
            self.schema[entity_name],
            self.canonical(entity_name, prediction) if prediction else "",
            self.canonical(entity_name, reference) if reference else "",
            others={self.canonical(entity_name, label) for label in (others or {}).values() if label},
        )


def _amount(kind: QuantityKind, answer: str) -> Fraction:
    number, unit = kind.split(answer)
    return Fraction(number) * Fraction(kind.sizes[unit])
