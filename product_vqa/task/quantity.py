"""Quantities: `number unit`, as labels write them, as models answer them, as a submission carries them."""

import re
from dataclasses import dataclass
from decimal import Decimal

from product_vqa.task.schema import canonical_unit


@dataclass(frozen=True)
class Quantity:
    """A non-negative number and one of the 31 allowed units, in its canonical spelling."""

    number: Decimal
    unit: str

    def __str__(self) -> str:
        return format_quantity(self)


# [0-9] and not \d: a label or an answer in other digits than these is not what the challenge prints.
NUMBER_PATTERN = r"[0-9]+(?:\.[0-9]+)?"
UNIT_PATTERN = r"[A-Za-z]+(?: [A-Za-z]+)*"
_PLAIN = re.compile(rf"({NUMBER_PATTERN})\s+({UNIT_PATTERN})")


def parse_quantity(text: str) -> Quantity:
    """`500 gram`, `1.5 cubic feet` -> Quantity. Outer blanks and the spellings of `canonical_unit` are forgiven.

    Raises ValueError for anything else: a sign, an exponent, a range, an abbreviation, a second unit.
    """
    match = _PLAIN.fullmatch(text.strip())
    unit = canonical_unit(match[2]) if match else None
    if match is None or unit is None:
        raise ValueError(f"{text!r} is not `number unit` with an allowed unit, like '34.0 gram'")
    return Quantity(Decimal(match[1]), unit)


def format_number(number: Decimal) -> str:
    """As Python prints a float, but never with an exponent and never rounded: 500.0, 1.5, 0.00034.

    89 % of the training labels that hold a whole number write it with `.0`, and none ends in another zero; so this is
    the one form that can equal most labels as a string.
    """
    whole, _, fraction = f"{number:f}".partition(".")
    return f"{whole.lstrip('0') or '0'}.{fraction.rstrip('0') or '0'}"


def format_quantity(quantity: Quantity) -> str:
    """The canonical form: `500.0 gram`."""
    return f"{format_number(quantity.number)} {quantity.unit}"
