"""The kinds of mistakes: which errors to look at first to raise the score."""

from collections.abc import Collection
from decimal import Decimal

from product_vqa.task.attributes import Attribute
from product_vqa.task.kinds import SEPARATOR, IntegerKind, MultiChoiceKind, PatternKind, QuantityKind, TextKind
from product_vqa.task.quantity import Quantity, parse_quantity
from product_vqa.task.unit_conversion import relative_difference

TOLERANCE = 0.02  # of `f1_within_2_percent`: conversions printed on packages are rounded by less
NEAR_MISS = 2  # characters that are wrong, of more than twice as many

# In the order in which they are tried; a mistake is of the first kind that fits.
KINDS = {
    "missing": "no prediction was made",
    "answered_not_shown": "a value was predicted, but the label says that the image does not show it",
    "converted": "the right amount, but not in the unit of the label",
    "another_entity": "the label of another attribute of the same image, such as the width for the depth",
    "right_number": "the right number with the wrong unit",
    "power_of_ten": "wrong by a power of ten, such as a missed decimal point or zero",
    "right_unit": "the wrong number with the right unit",
    "other": "both number and unit are wrong",
    "not_comparable": "the label is a range, or has a unit that no prediction can have",
}

# Of any other schema, likewise.
ANSWER_KINDS = {
    "missing": KINDS["missing"],
    "shown_left_empty": "no prediction was made, or that the image does not show it, but the label has a value",
    "answered_not_shown": KINDS["answered_not_shown"],
    "invalid": "the prediction is not an answer that the schema allows",
    "converted": KINDS["converted"],
    "another_case": "the right text, but not in the label's capitals or spaces",
    "another_entity": KINDS["another_entity"],
    "right_number": KINDS["right_number"],
    "power_of_ten": KINDS["power_of_ten"],
    "right_unit": KINDS["right_unit"],
    "other": KINDS["other"],
    "missing_value": "of several values some are missing, and the others are right",
    "extra_value": "all values of the label, and others",
    "near_miss": f"a text with at most {NEAR_MISS} characters wrong, missing or to spare",
    "other_value": "another value, number or text",
    "not_comparable": "the label is not an answer that the schema allows",
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


def kind_of_mistake(
    prediction: str, reference: str, *, others: dict[str, str] | None = None, is_not_shown: bool = False
) -> str | None:
    """One of `KINDS`, or None if number and unit are right.

    `others` are the labels of the same image for other attributes, by attribute. `is_not_shown`: an empty reference
    says that the image shows no value, not that there is no label.
    """
    if not prediction:
        return "missing" if reference else None
    if is_not_shown:
        return "answered_not_shown"
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


def kind_of_mistake_about(
    attribute: Attribute, prediction: str | None, reference: str | None, *, others: Collection[str | None] = ()
) -> str | None:
    """One of `ANSWER_KINDS`, or None if the prediction is right.

    `prediction` and `reference` are in canonical form, "" if they are empty, and None if they have no such form.
    `others` are the labels of the same image for other attributes, in the canonical form of this one.
    """
    if prediction == "":
        return None if reference == "" else "shown_left_empty" if attribute.not_shown else "missing"
    if reference == "" and attribute.not_shown:
        return "answered_not_shown"
    if not reference:
        return "not_comparable"
    if prediction is None:
        return "invalid"
    if prediction == reference:
        return None
    kind = attribute.kind
    if attribute.is_same(prediction, reference):
        return "converted" if isinstance(kind, QuantityKind) else "another_case"
    if isinstance(kind, MultiChoiceKind):
        predicted, expected = set(prediction.split(SEPARATOR)), set(reference.split(SEPARATOR))
        return "missing_value" if predicted < expected else "extra_value" if predicted > expected else "other_value"
    if kind.name != "yes_no" and prediction in others:
        return "another_entity"
    if isinstance(kind, QuantityKind):
        return _kind_of_wrong_quantity(kind.split(prediction), kind.split(reference))
    if isinstance(kind, IntegerKind) and _is_power_of_ten(Decimal(prediction), Decimal(reference)):
        return "power_of_ten"
    if isinstance(kind, PatternKind | TextKind) and _is_near_miss(prediction, reference):
        return "near_miss"
    return "other_value"


def _kind_of_wrong_quantity(predicted: tuple[str, str], expected: tuple[str, str]) -> str:
    (number, unit), (right_number, right_unit) = predicted, expected
    if Decimal(number) == Decimal(right_number):
        return "right_number"
    if unit != right_unit:
        return "other"
    return "power_of_ten" if _is_power_of_ten(Decimal(number), Decimal(right_number)) else "right_unit"


def _is_near_miss(text: str, other: str) -> bool:
    """Whether a few characters of a text were replaced, removed or added, in any case."""
    if len(other) <= 2 * NEAR_MISS and len(text) <= 2 * NEAR_MISS:
        return False
    return _edit_distance(text.casefold(), other.casefold()) <= NEAR_MISS


def _edit_distance(text: str, other: str) -> int:
    """The number of characters to replace, remove or add (Levenshtein's distance)."""
    distances = list(range(len(other) + 1))
    for position, char in enumerate(text, start=1):
        diagonal, distances[0] = distances[0], position
        for column, other_char in enumerate(other, start=1):
            replaced = diagonal + (char != other_char)
            diagonal = distances[column]
            distances[column] = min(replaced, diagonal + 1, distances[column - 1] + 1)
    return distances[-1]


def _is_power_of_ten(number: Decimal, other: Decimal) -> bool:
    """Whether the digits are the same and the decimal point is not: `0.5` and `50`."""
    digits = _significant(number)
    return digits != "" and digits == _significant(other)


def _significant(number: Decimal) -> str:
    return f"{number:f}".replace(".", "").strip("0")
