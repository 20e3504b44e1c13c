"""Compare quantities in different units: `1 kilogram` equals `1000.0 gram`."""

from product_vqa.task.numbers import EXACT
from product_vqa.task.quantity import Quantity
from product_vqa.task.schema import CHALLENGE

_BASE_BY_UNIT = {
    name: (next(base for base, one in units.items() if one.size == 1), unit.size)
    for units in CHALLENGE.dimensions.values()
    for name, unit in units.items()
}


def to_base_unit(quantity: Quantity) -> Quantity:
    """Convert to metre, gram, volt, watt or litre, exactly."""
    base, size = _BASE_BY_UNIT[quantity.unit]
    return Quantity(EXACT.multiply(quantity.number, size), base)


def relative_difference(quantity: Quantity, other: Quantity) -> float:
    """Return the difference of two quantities, relative to the second; infinity for different dimensions.

    On a pack with `16.9 fl oz (500 mL)`, the two differ by 0.0004.
    """
    first, second = to_base_unit(quantity), to_base_unit(other)
    if first.unit != second.unit:
        return float("inf")
    if first.number == second.number:
        return 0.0
    return float(abs(first.number - second.number) / second.number) if second.number else float("inf")
