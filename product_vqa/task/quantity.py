"""Parse and format quantities: `number unit`, as in labels, answers and submissions."""

import re
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from product_vqa.task.schema import canonical_unit


@dataclass(frozen=True)
class Quantity:
    """A non-negative number and one of the 31 allowed units, in its canonical spelling."""

    number: Decimal
    unit: str

    def __str__(self) -> str:
        return format_quantity(self)


class LabelForm(StrEnum):
    """The forms of `entity_value` in the challenge's train.csv."""

    PLAIN = "plain"  # 500.0 gram
    RANGE_BRACKETS = "range_brackets"  # [100.0, 240.0] volt
    RANGE_TO = "range_to"  # 10 kilogram to 15 kilogram
    EXPONENT = "exponent"  # 2.2223333344444455e+20 gram
    UNIT_UNKNOWN = "unit_unknown"  # 5 horsepower
    BROKEN = "broken"  # 5.016481104150004 e+17 pound


# [0-9] and not \d, which also matches the digits of other scripts.
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_UNIT = r"[A-Za-z]+(?: [A-Za-z]+)*"
_PLAIN = re.compile(rf"({_NUMBER})\s+({_UNIT})")
_EXPONENT = re.compile(rf"({_NUMBER}[eE][+-]?[0-9]+)\s*({_UNIT})")
_RANGE_BRACKETS = re.compile(rf"\[\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\]\s*({_UNIT})")
_RANGE_TO = re.compile(rf"({_NUMBER})\s*({_UNIT})\s+to\s+({_NUMBER})\s*({_UNIT})")


def parse_quantity(text: str) -> Quantity:
    """Parse `500 gram`, `1.5 cubic feet`. Outer spaces and the spellings of `canonical_unit` are accepted.

    Raises ValueError for anything else: a sign, an exponent, a range, an abbreviation, a second unit.
    """
    match = _PLAIN.fullmatch(text.strip())
    unit = canonical_unit(match[2]) if match else None
    if match is None or unit is None:
        raise ValueError(f"{text!r} is not `number unit` with an allowed unit, like '34.0 gram'")
    return Quantity(Decimal(match[1]), unit)


def format_number(number: Decimal) -> str:
    """Format a number like a Python float, but without exponent or rounding: 500.0, 1.5, 0.00034.

    89 % of the training labels with an integer write it with `.0`, and no label has another trailing zero. So this
    form equals most labels as a string.
    """
    integer, _, fraction = f"{number:f}".partition(".")
    return f"{integer.lstrip('0') or '0'}.{fraction.rstrip('0') or '0'}"


def format_quantity(quantity: Quantity) -> str:
    """Format a quantity in its canonical form: `500.0 gram`."""
    return f"{format_number(quantity.number)} {quantity.unit}"


def label_form(text: str) -> LabelForm:
    """Return the form of a label. A range in unknown units is a range too."""
    text = text.strip()
    if match := _PLAIN.fullmatch(text):
        return LabelForm.PLAIN if canonical_unit(match[2]) else LabelForm.UNIT_UNKNOWN
    if _RANGE_BRACKETS.fullmatch(text):
        return LabelForm.RANGE_BRACKETS
    if _RANGE_TO.fullmatch(text):
        return LabelForm.RANGE_TO
    if _EXPONENT.fullmatch(text):
        return LabelForm.EXPONENT
    return LabelForm.BROKEN


def parse_range(text: str) -> tuple[Quantity, Quantity]:
    """Parse both ends of a label of the form `range_brackets` or `range_to`, in the order in which they are written.

    Raises ValueError if it is not a range, or a unit is not allowed.
    """
    if match := _RANGE_BRACKETS.fullmatch(text.strip()):
        first, last, unit = match.groups()
        return parse_quantity(f"{first} {unit}"), parse_quantity(f"{last} {unit}")
    if match := _RANGE_TO.fullmatch(text.strip()):
        first, first_unit, last, last_unit = match.groups()
        return parse_quantity(f"{first} {first_unit}"), parse_quantity(f"{last} {last_unit}")
    raise ValueError(f"{text!r} is not a range like '[100.0, 240.0] volt' or '10 kilogram to 15 kilogram'")
