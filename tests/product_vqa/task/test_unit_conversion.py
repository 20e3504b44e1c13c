from decimal import Decimal

import pytest

from product_vqa.task.quantity import Quantity, parse_quantity
from product_vqa.task.schema import UNITS, UNITS_BY_ENTITY
from product_vqa.task.unit_conversion import relative_difference, to_base_unit


def test_every_unit_has_a_size_and_those_of_an_entity_one_dimension() -> None:
    bases = {unit: to_base_unit(Quantity(Decimal(1), unit)).unit for unit in UNITS}
    for units in UNITS_BY_ENTITY.values():
        assert len({bases[unit] for unit in units}) == 1


@pytest.mark.parametrize(
    ("text", "number", "unit"),
    [
        ("2 foot", "0.6096", "metre"),
        ("2 kilogram", "2000", "gram"),
        ("2 millivolt", "0.002", "volt"),
        ("2 kilowatt", "2000", "watt"),
        ("2 cup", "0.473176473", "litre"),
        ("1234567890123456789012345678.5 kilogram", "1234567890123456789012345678500", "gram"),
    ],
)
def test_each_dimension_has_a_base_unit(text: str, number: str, unit: str) -> None:
    assert to_base_unit(parse_quantity(text)) == Quantity(Decimal(number), unit)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("1 kilogram", "1000 gram"),
        ("1 ton", "1000 kilogram"),
        ("16 ounce", "1 pound"),
        ("1000 microgram", "1 milligram"),
        ("12 inch", "1 foot"),
        ("3 foot", "1 yard"),
        ("2.54 centimetre", "1 inch"),
        ("25.4 millimetre", "1 inch"),
        ("4 quart", "1 gallon"),
        ("2 pint", "1 quart"),
        ("2 cup", "1 pint"),
        ("8 fluid ounce", "1 cup"),
        ("231 cubic inch", "1 gallon"),
        ("1728 cubic inch", "1 cubic foot"),
        ("4.54609 litre", "1 imperial gallon"),
        ("10 centilitre", "1 decilitre"),
        ("1000 microlitre", "1 millilitre"),
        ("1 kilowatt", "1000 watt"),
        ("1 kilovolt", "1000000 millivolt"),
    ],
)
def test_equal_amounts(text: str, other: str) -> None:
    assert relative_difference(parse_quantity(text), parse_quantity(other)) == 0.0


def test_differences() -> None:
    assert relative_difference(parse_quantity("101 gram"), parse_quantity("0.1 kilogram")) == pytest.approx(0.01)
    assert relative_difference(parse_quantity("1 gram"), parse_quantity("1 volt")) == float("inf")
    assert relative_difference(parse_quantity("0 gram"), parse_quantity("0 ton")) == 0.0
    assert relative_difference(parse_quantity("1 gram"), parse_quantity("0 gram")) == float("inf")
