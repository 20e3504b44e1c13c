"""Quantities in different units, compared: `1 kilogram` and `1000.0 gram` are as heavy."""

from decimal import Decimal

from product_vqa.task.quantity import Quantity

# What a unit is in the first one of its dimension. International yard and pound (exact); US customary volumes, the
# metric cup's neighbour of 8 US fluid ounces among them; the ton as the metric one, which most packs mean.
# Source: NIST Special Publication 811, appendix B.
_SIZES: dict[str, dict[str, str]] = {
    "metre": {
        "metre": "1",
        "centimetre": "0.01",
        "millimetre": "0.001",
        "inch": "0.0254",
        "foot": "0.3048",
        "yard": "0.9144",
    },
    "gram": {
        "gram": "1",
        "kilogram": "1000",
        "milligram": "0.001",
        "microgram": "0.000001",
        "ounce": "28.349523125",
        "pound": "453.59237",
        "ton": "1000000",
    },
    "volt": {"volt": "1", "kilovolt": "1000", "millivolt": "0.001"},
    "watt": {"watt": "1", "kilowatt": "1000"},
    "litre": {
        "litre": "1",
        "decilitre": "0.1",
        "centilitre": "0.01",
        "millilitre": "0.001",
        "microlitre": "0.000001",
        "cubic inch": "0.016387064",
        "cubic foot": "28.316846592",
        "fluid ounce": "0.0295735295625",
        "cup": "0.2365882365",
        "pint": "0.473176473",
        "quart": "0.946352946",
        "gallon": "3.785411784",
        "imperial gallon": "4.54609",
    },
}
_BASE_BY_UNIT = {unit: (base, Decimal(size)) for base, sizes in _SIZES.items() for unit, size in sizes.items()}


def to_base_unit(quantity: Quantity) -> Quantity:
    """In metre, gram, volt, watt or litre, exactly."""
    base, size = _BASE_BY_UNIT[quantity.unit]
    return Quantity(quantity.number * size, base)


def relative_difference(quantity: Quantity, other: Quantity) -> float:
    """How far two quantities lie apart, as a share of the second: 0.0 where equal, infinity for other dimensions.

    The ends of the same pack's `16.9 fl oz (500 mL)` differ by 0.0004.
    """
    mine, theirs = to_base_unit(quantity), to_base_unit(other)
    if mine.unit != theirs.unit:
        return float("inf")
    if mine.number == theirs.number:
        return 0.0
    return float(abs(mine.number - theirs.number) / theirs.number) if theirs.number else float("inf")
