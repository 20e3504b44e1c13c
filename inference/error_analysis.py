"""What kind of mistake an answer is: what to look at first when a score is to rise."""

from decimal import Decimal

from product_vqa.task.quantity import Quantity, parse_quantity
from product_vqa.task.unit_conversion import relative_difference

TOLERANCE = 0.02  # of `f1_within_2_percent`: a pack's own conversions are rounded by less

# In the order in which they are tried; the first that fits names the mistake.
KINDS = {
    "missing": "no answer was given",
    "converted": "right, but in another unit than the label's",
    "another_entity": "printed on the same product for another attribute: the width for its depth",
    "right_number": "the right number in a wrong unit",
    "power_of_ten": "wrong by a power of ten: a dropped point or zero",
    "right_unit": "a wrong number in the right unit",
    "other": "number and unit are wrong",
    "not_comparable": "the label is a range, or in a unit that no answer can have",
}


def quantity_or_none(text: str) -> Quantity | None:
    """The quantity that `text` is, or None."""
    try:
        return parse_quantity(text)
    except ValueError:
        return None


def is_same_amount(prediction: str, reference: str) -> bool:
    """Equal after conversion of units: `1.0 kilogram` and `1000 gram`. Strings where the label is no quantity."""
    return _differ_at_most(prediction, reference, 1e-9)


def is_within_tolerance(prediction: str, reference: str) -> bool:
    """At most 2 % apart after conversion of units: `16.9 fluid ounce` and `500 millilitre`."""
    return _differ_at_most(prediction, reference, TOLERANCE)


def _differ_at_most(prediction: str, reference: str, share: float) -> bool:
    said, meant = quantity_or_none(prediction), quantity_or_none(reference)
    if said is None or meant is None:
        return prediction == reference
    return relative_difference(said, meant) <= share


def kind_of_mistake(prediction: str, reference: str, *, others: dict[str, str] | None = None) -> str | None:
    """One of `KINDS`, or None if number and unit are right.

    `others` are the labels of the same picture for other entities, by entity.
    """
    if not prediction:
        return "missing" if reference else None
    said, meant = quantity_or_none(prediction), quantity_or_none(reference)
    if meant is None:
        return None if prediction == reference else "not_comparable"
    if said is None:
        return "other"
    if said == meant:
        return None
    if is_same_amount(prediction, reference):
        return "converted"
    if any(said == quantity_or_none(other) for other in (others or {}).values()):
        return "another_entity"
    if said.number == meant.number:
        return "right_number"
    if said.unit != meant.unit:
        return "other"
    return "power_of_ten" if _is_power_of_ten(said.number, meant.number) else "right_unit"


def _is_power_of_ten(number: Decimal, other: Decimal) -> bool:
    """`0.5` and `50`: the same digits, the point elsewhere."""
    digits, others = (_significant(value) for value in (number, other))
    return bool(digits) and digits == others


def _significant(number: Decimal) -> str:
    return f"{number:f}".replace(".", "").strip("0")
