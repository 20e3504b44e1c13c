"""The challenge's quantities: `number unit`, as in labels, answers and submissions."""

from dataclasses import dataclass
from decimal import Decimal

from product_vqa.task.kinds import LabelError, QuantityKind
from product_vqa.task.numbers import format_number
from product_vqa.task.schema import CHALLENGE


@dataclass(frozen=True)
class Quantity:
    """A non-negative number and one of the 31 allowed units, in its canonical spelling."""

    number: Decimal
    unit: str

    def __str__(self) -> str:
        return format_quantity(self)


# What to do with a range: drop it, or read its first or last number.
RANGE_POLICIES = ("leave_out", "first", "last")


# Any of the challenge's: each knows the units of all attributes.
_KIND = next(one.kind for one in CHALLENGE.attributes.values() if isinstance(one.kind, QuantityKind))


def parse_quantity(text: str, *, ranges: str = "leave_out") -> Quantity:
    """Parse `500 gram`, `1.5 cubic feet`. Outer spaces and all spellings of the challenge's units are accepted.

    With `ranges` "first" or "last", that end of `[100.0, 240.0] volt` or `10 kilogram to 15 kilogram` too. Raises
    ValueError for anything else: a sign, an exponent, an abbreviation, a second unit.
    """
    try:
        return Quantity(*_KIND.parse(text.strip(), ranges=ranges))
    except LabelError as error:
        raise ValueError(f"{text!r} is not `number unit` with an allowed unit, like '34.0 gram'") from error


def format_quantity(quantity: Quantity) -> str:
    """Format a quantity in its canonical form: `500.0 gram`."""
    return f"{format_number(quantity.number)} {quantity.unit}"
