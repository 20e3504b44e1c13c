"""Compare quantities in different units: `1 kilogram` equals `1000.0 gram`."""

from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal

from product_vqa.task.quantity import Quantity

# The size of each unit, in the first unit of its dimension. Yard and pound are the international ones (exact), volumes
# are US customary (a cup is 8 fluid ounces), and a ton is metric, as on most packs.
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
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)  # the default one rounds to 28 digits
_BASE_BY_UNIT = {unit: (base, Decimal(size)) for base, sizes in _SIZES.items() for unit, size in sizes.items()}


def to_base_unit(quantity: Quantity) -> Quantity:
    """Convert to metre, gram, volt, watt or litre, exactly."""
    base, size = _BASE_BY_UNIT[quantity.unit]
    return Quantity(_EXACT.multiply(quantity.number, size), base)


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
