import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builder.labels import RANGE_POLICIES, judge_label
from product_vqa.task.schema import ENTITIES, UNITS_BY_ENTITY

JUDGED = [
    ("item_weight", "500 gram", "500.0 gram", ""),
    ("item_weight", "500.0 gram", "500.0 gram", ""),
    ("item_weight", " 0.50 kilogram ", "0.5 kilogram", ""),
    ("width", "3 feet", "3.0 foot", ""),
    ("item_volume", "2 cubic feet", "2.0 cubic foot", ""),
    ("voltage", "[100.0, 240.0] volt", "", "range_brackets"),
    ("item_weight", "10 kilogram to 15 kilogram", "", "range_to"),
    ("item_weight", "2.2e+20 gram", "", "exponent"),
    ("wattage", "5 horsepower", "", "unit_unknown"),
    ("item_weight", "5.0 e+17 pound", "", "broken"),
    ("item_weight", "", "", "broken"),
    ("item_volume", "10.0 ounce", "", "unit_unsuitable"),
    ("item_weight", "12 fluid ounce", "", "unit_unsuitable"),
    ("item_weight", "12 volt", "", "unit_unsuitable"),
]


@pytest.mark.parametrize(("entity_name", "entity_value", "label", "reason"), JUDGED)
def test_a_label_is_made_canonical_or_given_a_reason(entity_name: str, entity_value: str, label: str, reason: str):
    assert judge_label(entity_name, entity_value) == (label, reason)


RANGES = [
    ("voltage", "[100.0, 240.0] volt", "100.0 volt", "240.0 volt", ""),
    ("item_weight", "10 kilogram to 15 kilogram", "10.0 kilogram", "15.0 kilogram", ""),
    ("item_weight", "0 kilogram to 2kilogram", "0.0 kilogram", "2.0 kilogram", ""),
    ("item_weight", "500 gram to 1.5 kilogram", "500.0 gram", "1.5 kilogram", ""),
    ("item_weight", "[1.0, 2.0] volt", "", "", "unit_unsuitable"),
    ("wattage", "[1.0, 2.0] horsepower", "", "", "unit_unknown"),
    ("item_weight", "2.2e+20 gram", "", "", "exponent"),
    ("item_weight", "500 gram", "500.0 gram", "500.0 gram", ""),
]


@pytest.mark.parametrize(("entity_name", "entity_value", "first", "last", "reason"), RANGES)
def test_a_range_is_read_as_the_end_that_was_asked_for(entity_name, entity_value, first, last, reason):
    assert judge_label(entity_name, entity_value, ranges="first") == (first, reason)
    assert judge_label(entity_name, entity_value, ranges="last") == (last, reason)


@given(
    entity_name=st.sampled_from(ENTITIES),
    number=st.decimals(0, 10**9, allow_nan=False, places=4),
    data=st.data(),
)
def test_every_plain_label_keeps_its_number_and_unit(entity_name: str, number: Decimal, data: st.DataObject):
    unit = data.draw(st.sampled_from(UNITS_BY_ENTITY[entity_name]))
    label, reason = judge_label(entity_name, f"{number:f} {unit}")
    assert reason == ""
    written, _, written_unit = label.partition(" ")
    assert (Decimal(written), written_unit) == (number, unit)
    assert re.fullmatch(r"(0|[1-9][0-9]*)\.([0-9]*[1-9]|0)", written)
    assert judge_label(entity_name, label) == (label, "")


NEARLY_LABELS = st.lists(
    st.sampled_from(
        ["[", "]", ",", ".", " ", "to", "e", "+", "1", "0", "24", "٣", "gram", "volt", "cubic", "feet", "\n"]
    ),
    max_size=12,
).map("".join)


@given(
    entity_name=st.sampled_from(ENTITIES),
    entity_value=st.one_of(st.text(max_size=30), NEARLY_LABELS),
    ranges=st.sampled_from(RANGE_POLICIES),
)
def test_any_text_has_either_a_label_or_a_reason(entity_name: str, entity_value: str, ranges: str):
    label, reason = judge_label(entity_name, entity_value, ranges=ranges)
    assert bool(label) != bool(reason)
