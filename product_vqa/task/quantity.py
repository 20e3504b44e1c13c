"""Parse and format quantities: `number unit`, as in labels, answers and submissions; and ranges of them."""

import re
from dataclasses import dataclass
from decimal import Decimal

from product_vqa.task.numbers import NUMBER_PATTERN, UNIT_PATTERN, format_number
from product_vqa.task.schema import canonical_unit


@dataclass(frozen=True)
class Quantity:
    """A non-negative number and one of the 31 allowed units, in its canonical spelling."""

    number: Decimal
    unit: str

    def __str__(self) -> str:
        return format_quantity(self)


_PLAIN = re.compile(rf"({NUMBER_PATTERN})\s+({UNIT_PATTERN})")
RANGE_BRACKETS = re.compile(rf"\[\s*({NUMBER_PATTERN})\s*,\s*({NUMBER_PATTERN})\s*\]\s*({UNIT_PATTERN})")
RANGE_TO = re.compile(rf"({NUMBER_PATTERN})\s*({UNIT_PATTERN})\s+to\s+({NUMBER_PATTERN})\s*({UNIT_PATTERN})")
# What to do with a range: drop it, or read its first or last number.
RANGE_POLICIES = ("leave_out", "first", "last")


def parse_quantity(text: str) -> Quantity:
    """Parse `500 gram`, `1.5 cubic feet`. Outer spaces and the spellings of `canonical_unit` are accepted.

    Raises ValueError for anything else: a sign, an exponent, a range, an abbreviation, a second unit.
    """
    match = _PLAIN.fullmatch(text.strip())
    unit = canonical_unit(match[2]) if match else None
    if match is None or unit is None:
        raise ValueError(f"{text!r} is not `number unit` with an allowed unit, like '34.0 gram'")
    return Quantity(Decimal(match[1]), unit)


def parse_range(text: str) -> tuple[Quantity, Quantity]:
    """Both ends of `[100.0, 240.0] volt` or `10 kilogram to 15 kilogram`, as written (not ordered).

    Raises ValueError if the text is not a range, or if a unit is not allowed.
    """
    if match := RANGE_BRACKETS.fullmatch(text.strip()):
        first, last, unit = match.groups()
        return parse_quantity(f"{first} {unit}"), parse_quantity(f"{last} {unit}")
    if match := RANGE_TO.fullmatch(text.strip()):
        first, first_unit, last, last_unit = match.groups()
        return parse_quantity(f"{first} {first_unit}"), parse_quantity(f"{last} {last_unit}")
    raise ValueError(f"{text!r} is not a range like '[100.0, 240.0] volt' or '10 kilogram to 15 kilogram'")


def format_quantity(quantity: Quantity) -> str:
    """Format a quantity in its canonical form: `500.0 gram`."""
    return f"{format_number(quantity.number)} {quantity.unit}"
