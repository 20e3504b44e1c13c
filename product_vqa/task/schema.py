"""The eight attributes that are asked for, and the units in which each is answered.

Source: `constants.py` of the Amazon ML Challenge 2024 ("Feature Extraction from Images"), whose format checker
accepts these 31 units and no others.
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
    """The allowed unit that `text` spells, or None.

    Forgives what the official checker forgives and nothing else: `ter` for `tre` (meter, centiliter) and `feet` for
    `foot` (cubic feet). Plurals, abbreviations and capitals are not units.
    """
    for spelling in (text, text.replace("ter", "tre"), text.replace("feet", "foot")):
        if spelling in UNITS:
            return spelling
    return None


def is_suitable(unit: str, entity_name: str) -> bool:
    """Whether `unit` (canonical) is one in which `entity_name` is answered."""
    return unit in UNITS_BY_ENTITY[entity_name]
