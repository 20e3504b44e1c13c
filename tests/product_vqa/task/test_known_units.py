from decimal import Decimal

import pytest

from product_vqa.task.kinds import QuantityKind
from product_vqa.task.known_units import find_unit, is_length, known_units
from product_vqa.task.schema import CHALLENGE
from product_vqa.task.schema_file import parse_schema


def test_the_known_units_have_those_of_the_challenge() -> None:
    known = known_units().dimensions
    assert sum(map(len, CHALLENGE.dimensions.values())) == 31
    for dimension, units in CHALLENGE.dimensions.items():
        for name, unit in units.items():
            assert known[dimension][name].size == unit.size
            assert all(find_unit(text) == name for text in (name, *unit.spellings))


@pytest.mark.parametrize(
    ("unit", "size", "other"),  # one of the unit is so many of the other, from the sources that the file names
    [
        ("kilowatt hour", "3600", "kilojoule"),  # 1000 W x 3600 s
        ("kilocalorie", "4.184", "kilojoule"),
        ("gibibyte", "1.073741824", "gigabyte"),  # 2**30 / 10**9
        ("gigabit", "125", "megabyte"),
        ("mile per hour", "1.609344", "kilometre per hour"),
        ("kilometre per hour", "1000", "metre per hour"),
        ("metre per second", "3.6", "kilometre per hour"),
        ("foot per second", "60", "foot per minute"),
        ("cubic yard", "27", "cubic foot"),
        ("cubic foot", "1728", "cubic inch"),
        ("gallon", "231", "cubic inch"),
        ("gallon", "128", "fluid ounce"),
        ("imperial gallon", "160", "imperial fluid ounce"),
        ("cup", "16", "tablespoon"),
        ("tablespoon", "3", "teaspoon"),
        ("stone", "14", "pound"),
        ("long ton", "2240", "pound"),
        ("short ton", "2000", "pound"),
        ("pound", "7000", "grain"),
        ("troy ounce", "480", "grain"),
        ("acre", "4840", "square yard"),
        ("square foot", "144", "square inch"),
        ("year", "12", "month"),
        ("week", "7", "day"),
        ("tex", "9", "denier"),
        ("cubic foot per minute", "1699.01079552", "litre per hour"),
        ("horsepower", "745.69987158227022", "watt"),
        ("atmosphere", "101.325", "kilopascal"),
        ("percent", "10", "per mille"),
        ("percent", "10000", "part per million"),
        ("ampere hour", "1000", "milliampere hour"),
    ],
)
def test_sizes_are_those_of_the_definitions(unit: str, size: str, other: str) -> None:
    dimension = known_units().attributes[_dimension(unit)].name
    sizes = {name: one.size for name, one in known_units().dimensions[dimension].items()}
    assert sizes[unit] == Decimal(size) * sizes[other]


def _dimension(unit: str) -> str:
    return next(name for name, units in known_units().dimensions.items() if unit in units)


def test_psi_and_inch_pounds_follow_from_pound_and_inch() -> None:
    pound_force = Decimal("0.45359237") * Decimal("9.80665")
    known = known_units().dimensions
    assert known["force"]["pound-force"].size == pound_force
    assert known["torque"]["inch-pound"].size == pound_force * Decimal("0.0254")
    assert known["torque"]["foot-pound"].size == pound_force * Decimal("0.3048")
    assert known["power"]["horsepower"].size == 550 * pound_force * Decimal("0.3048")
    psi = known["pressure"]["pound per square inch"].size
    assert psi == pytest.approx(pound_force / Decimal("0.0254") ** 2, rel=Decimal("1e-20"))


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("GB", "gigabyte"), ("gb", "gigabyte"), ("Gb", "gigabyte"), ("mAh", "milliampere hour"),
        ("MAH", "milliampere hour"),
        ("Kilograms", "kilogram"), ("KGS", "kilogram"), ("lbs.", "pound"), ("fl. oz.", "fluid ounce"),
        ("fl.oz", "fluid ounce"), ("cu. ft.", "cubic foot"), ('"', "inch"),
        ("%", "percent"), ("°C", "degree celsius"), ("µg", "microgram"), ("mW", "milliwatt"), ("MW", "megawatt"),
        ("mw", None), ("mv", None), ("ms", "millisecond"), ("cms", "centimetre"), ("scoop", None), ("", None),
    ],
)  # fmt: skip
def test_units_are_found_by_their_spellings(text: str, unit: str | None) -> None:
    assert find_unit(text) == unit


def kind_of(dimension: str, units: str, asked: str = "") -> QuantityKind:
    """A quantity of a schema's own dimension, and of another one next to it, whose units do not count."""
    content = f"""
version: 1
units:
  {dimension}: {{{units}}}
  length: {{metre: {{size: 1}}}}
attributes:
  asked: {{kind: quantity, units: {asked or dimension}}}
"""
    kind = parse_schema(content, name="schema.yaml")["asked"].kind
    assert isinstance(kind, QuantityKind)
    return kind


@pytest.mark.parametrize(
    ("dimension", "units", "asked", "expected"),
    [
        ("size", "centimetre: {size: 1}", "", True),
        ("Länge", "Zentimeter: {size: 1, spellings: [cm]}, Zoll: {size: 2.54}", "", True),
        ("Länge", "Zentimeter: {size: 1, spellings: [cm]}, Elle: {size: 60}", "[Elle]", True),
        ("span", "pace: {size: 1}", "", False),
        ("mass", "gram: {size: 1}", "", False),
        (
            "time",
            "minute: {size: 1, spellings: ['\"']}",
            "",
            False,
        ),  # the name is known, and says more than a spelling
        ("area", "square metre: {size: 1, spellings: [m2]}", "", False),
    ],
)
def test_a_length_is_known_by_its_units_whatever_the_dimension_is_called(
    dimension: str, units: str, asked: str, expected: bool
) -> None:
    assert is_length(kind_of(dimension, units, asked)) is expected


def test_the_lengths_of_the_challenge() -> None:
    kinds = {name: one.kind for name, one in CHALLENGE.attributes.items()}
    lengths = {name for name, kind in kinds.items() if isinstance(kind, QuantityKind) and is_length(kind)}
    assert lengths == {"height", "width", "depth"}
