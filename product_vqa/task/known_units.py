"""Units of all kinds of catalogues, and how they are spelled on packs and in labels."""

from collections import defaultdict
from collections.abc import Collection
from functools import cache
from pathlib import Path

from product_vqa.task.attributes import Schema
from product_vqa.task.kinds import QuantityKind
from product_vqa.task.schema_file import read_schema

KNOWN_UNITS = Path(__file__).with_name("known_units.yaml")


@cache
def known_units() -> Schema:
    return read_schema(KNOWN_UNITS)


def find_unit(text: str) -> str | None:
    """The known unit of a spelling: as it is in the file, or else but for case, points or a plural, if one fits.

    `mW` and `MW` are two units; `GRAMS` and `lbs.` are each one.
    """
    units = find_units(text)
    return next(iter(units)) if len(units) == 1 else None


def find_units(text: str) -> Collection[str]:
    """The known units that a spelling may mean: `mw` is a milliwatt or a megawatt."""
    unit = known_units().unit_by_spelling.get(text)
    return _units_by_loose_spelling().get(loose_unit(text), ()) if unit is None else (unit,)


def is_length(kind: QuantityKind) -> bool:
    """Whether a unit of the kind's dimension is known as a length, by its name, or else by one of its spellings."""
    meanings: dict[str, str] = {}
    for text, unit in kind.unit_by_spelling.items():  # the name of a unit is before its spellings
        if unit in kind.sizes and (known := find_unit(text)) is not None:
            meanings.setdefault(unit, known)
    return any(unit in known_units().dimensions["length"] for unit in meanings.values())


def loose_unit(text: str) -> str:
    """What the spellings of a unit have in common: case, spaces, points and a plural do not count."""
    text = " ".join(text.casefold().replace(".", " ").split())
    return text.removesuffix("s") if len(text) > 2 else text


@cache
def _units_by_loose_spelling() -> dict[str, set[str]]:
    units: defaultdict[str, set[str]] = defaultdict(set)
    for spelling, unit in known_units().unit_by_spelling.items():
        units[loose_unit(spelling)].add(unit)
    return dict(units)
