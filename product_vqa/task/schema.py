"""The attributes ("entities") that the model reads, and the units allowed for each.

Source: `constants.py` of the Amazon ML Challenge 2024 ("Feature Extraction from Images"), whose format checker
accepts exactly these 31 units.
"""

_LENGTH = ("centimetre", "foot", "inch", "metre", "millimetre", "yard")
_WEIGHT = ("gram", "kilogram", "microgram", "milligram", "ounce", "pound", "ton")

UNITS_BY_ENTITY: dict[str, tuple[str, ...]] = {
    "width": _LENGTH,
    "depth": _LENGTH,
    "height": _LENGTH,
    "item_weight": _WEIGHT,
    "maximum_weight_recommendation": _WEIGHT,
    "voltage": ("kilovolt", "millivolt", "volt"),
    "wattage": ("kilowatt", "watt"),
    "item_volume": (
        "centilitre",
        "cubic foot",
        "cubic inch",
        "cup",
        "decilitre",
        "fluid ounce",
        "gallon",
        "imperial gallon",
        "litre",
        "microlitre",
        "millilitre",
        "pint",
        "quart",
    ),
}
ENTITIES: tuple[str, ...] = tuple(UNITS_BY_ENTITY)
UNITS: frozenset[str] = frozenset(unit for units in UNITS_BY_ENTITY.values() for unit in units)


def canonical_unit(text: str) -> str | None:
    """Return the allowed unit that `text` spells, or None.

    Like the official checker, it accepts `ter` for `tre` (meter, centiliter) and `feet` for `foot` (cubic feet), but
    no other plurals, no abbreviations and no capitals.
    """
    for spelling in (text, text.replace("ter", "tre"), text.replace("feet", "foot")):
        if spelling in UNITS:
            return spelling
    return None


def is_suitable(unit: str, entity_name: str) -> bool:
    """Return whether `unit` (canonical) is allowed for `entity_name`."""
    return unit in UNITS_BY_ENTITY[entity_name]
