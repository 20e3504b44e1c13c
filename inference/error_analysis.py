"""The kinds of mistakes: which errors to look at first to raise the score."""

from decimal import Decimal

from product_vqa.task.quantity import Quantity, parse_quantity
from product_vqa.task.unit_conversion import relative_difference

TOLERANCE = 0.02  # of `f1_within_2_percent`: conversions printed on packages are rounded by less

# In the order in which they are tried; a mistake is of the first kind that fits.
KINDS = {
    "missing": "no prediction was made",
    "converted": "the right amount, but not in the unit of the label",
    "another_entity": "the label of another attribute of the same image, such as the width for the depth",
    "right_number": "the right number with the wrong unit",
    "power_of_ten": "wrong by a power of ten, such as a missed decimal point or zero",
    "right_unit": "the wrong number with the right unit",
    "other": "both number and unit are wrong",
    "not_comparable": "the label is a range, or has a unit that no prediction can have",
}


def quantity_or_none(text: str) -> Quantity | None:
    """The quantity in `text`, or None if it is not one."""
    try:
        return parse_quantity(text)
    except ValueError:
        return None


def is_same_amount(prediction: str, reference: str) -> bool:
    """Equal after unit conversion: `1.0 kilogram` and `1000 gram`. What is not a quantity is compared as a string."""
    return _differ_at_most(prediction, reference, 1e-9)


def is_within_tolerance(prediction: str, reference: str) -> bool:
    """At most 2 % apart after unit conversion: `16.9 fluid ounce` and `500 millilitre`."""
    return _differ_at_most(prediction, reference, TOLERANCE)


def _differ_at_most(prediction: str, reference: str, share: float) -> bool:
    predicted, expected = quantity_or_none(prediction), quantity_or_none(reference)
    if predicted is None or expected is None:
        return prediction == reference
    return relative_difference(predicted, expected) <= share


def kind_of_mistake(prediction: str, reference: str, *, others: dict[str, str] | None = None) -> str | None:
    """One of `KINDS`, or None if number and unit are right.

    `others` are the labels of the same image for other attributes, by attribute.
    """
    if not prediction:
        return "missing" if reference else None
    predicted, expected = quantity_or_none(prediction), quantity_or_none(reference)
    if expected is None:
        return None if prediction == reference else "not_comparable"
    if predicted is None:
        return "other"
    if predicted == expected:
        return None
    if is_same_amount(prediction, reference):
        return "converted"
    if any(predicted == quantity_or_none(other) for other in (others or {}).values()):
        return "another_entity"
    if predicted.number == expected.number:
        return "right_number"
    if predicted.unit != expected.unit:
        return "other"
    return "power_of_ten" if _is_power_of_ten(predicted.number, expected.number) else "right_unit"


def _is_power_of_ten(number: Decimal, other: Decimal) -> bool:
    """Whether the digits are the same and the decimal point is not: `0.5` and `50`."""
    digits = _significant(number)
    return digits != "" and digits == _significant(other)


def _significant(number: Decimal) -> str:
    return f"{number:f}".replace(".", "").strip("0")
