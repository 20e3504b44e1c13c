"""The attributes and their units, and that this part of the package needs no deep-learning library."""

import subprocess
import sys

import pytest

from product_vqa.task import schema
from product_vqa.task.schema import ENTITIES, UNITS, UNITS_BY_ENTITY, is_suitable
from tests.commands import ROOT

# `entity_unit_map` of the challenge's constants.py, in its own order.
LENGTHS = "centimetre foot inch metre millimetre yard"
WEIGHTS = "gram kilogram microgram milligram ounce pound ton"
VOLUMES = (
    "centilitre cubic_foot cubic_inch cup decilitre fluid_ounce gallon imperial_gallon litre microlitre millilitre "
    "pint quart"
)
CHALLENGE = {
    "width": LENGTHS,
    "depth": LENGTHS,
    "height": LENGTHS,
    "item_weight": WEIGHTS,
    "maximum_weight_recommendation": WEIGHTS,
    "voltage": "kilovolt millivolt volt",
    "wattage": "kilowatt watt",
    "item_volume": VOLUMES,
}


def test_the_entities_and_units_are_those_of_the_challenge() -> None:
    units = {entity: tuple(unit.replace("_", " ") for unit in text.split()) for entity, text in CHALLENGE.items()}
    assert units == UNITS_BY_ENTITY
    assert tuple(CHALLENGE) == ENTITIES and len(ENTITIES) == 8
    assert {unit for names in units.values() for unit in names} == UNITS and len(UNITS) == 31


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("gram", "gram"),
        ("meter", "metre"),
        ("millimeter", "millimetre"),
        ("centiliter", "centilitre"),
        ("cubic feet", "cubic foot"),
        ("feet", "foot"),
        ("grams", None),
        ("g", None),
        ("Gram", None),
        ("GRAM", None),
        ("fluid  ounce", None),
        ("", None),
    ],
)
def test_the_spellings_of_a_unit(text: str, unit: str | None) -> None:
    assert schema.CHALLENGE.unit_by_spelling.get(text) == unit


def test_every_unit_is_its_own_canonical_spelling() -> None:
    assert [schema.CHALLENGE.unit_by_spelling[unit] for unit in sorted(UNITS)] == sorted(UNITS)


def test_a_unit_suits_the_attributes_that_are_measured_in_it() -> None:
    assert [entity for entity in ENTITIES if is_suitable("gram", entity)] == [
        "item_weight",
        "maximum_weight_recommendation",
    ]
    assert [entity for entity in ENTITIES if is_suitable("inch", entity)] == ["width", "depth", "height"]
    assert [entity for entity in ENTITIES if is_suitable("fluid ounce", entity)] == ["item_volume"]
    assert not is_suitable("ounce", "item_volume")


@pytest.mark.slow
def test_the_task_needs_neither_torch_nor_transformers() -> None:
    program = (
        "import sys\n"
        "from product_vqa.task import features, prompt, quantity, schema, unit_conversion\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
