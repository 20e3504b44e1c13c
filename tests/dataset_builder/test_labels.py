import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builder.labels import LabelForm, judge_label, label_form
from product_vqa.task.quantity import RANGE_POLICIES, Quantity, format_quantity, parse_quantity
from product_vqa.task.schema import ENTITIES, UNITS, UNITS_BY_ENTITY


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("500.0 gram", LabelForm.PLAIN),
        ("1400 milligram", LabelForm.PLAIN),
        ("2 fluid ounce", LabelForm.PLAIN),
        ("[100.0, 240.0] volt", LabelForm.RANGE_BRACKETS),
        ("10 kilogram to 15 kilogram", LabelForm.RANGE_TO),
        ("0 kilogram to 2kilogram", LabelForm.RANGE_TO),
        ("2.2223333344444455e+20 gram", LabelForm.EXPONENT),
        ("5 horsepower", LabelForm.UNIT_UNKNOWN),
        ("3 kilowatt hour", LabelForm.UNIT_UNKNOWN),
        ("5 Kilowatt Hour", LabelForm.UNIT_UNKNOWN),
        ("5.016481104150004 e+17 pound", LabelForm.BROKEN),
        ("", LabelForm.BROKEN),
        ("gram", LabelForm.BROKEN),
        ("-5 gram", LabelForm.BROKEN),
        ("1,000 gram", LabelForm.BROKEN),
        ("٣ gram", LabelForm.BROKEN),
    ],
)
def test_each_label_form_is_recognized(text: str, form: LabelForm) -> None:
    assert label_form(text) == form


@given(number=st.decimals(0, 10**9, allow_nan=False, places=6), unit=st.sampled_from(sorted(UNITS)))
def test_every_quantity_in_canonical_form_is_plain(number: Decimal, unit: str) -> None:
    assert label_form(format_quantity(Quantity(number, unit))) == LabelForm.PLAIN


@given(st.text())
def test_any_text_has_a_form_and_only_plain_ones_parse(text: str) -> None:
    if label_form(text) == LabelForm.PLAIN:
        assert parse_quantity(text).unit in UNITS
    else:
        with pytest.raises(ValueError, match="is not `number unit`"):
            parse_quantity(text)


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
def test_a_label_is_made_canonical_or_given_a_reason(
    entity_name: str, entity_value: str, label: str, reason: str
) -> None:
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
def test_a_range_is_read_as_the_end_that_was_asked_for(
    entity_name: str, entity_value: str, first: str, last: str, reason: str
) -> None:
    assert judge_label(entity_name, entity_value, ranges="first") == (first, reason)
    assert judge_label(entity_name, entity_value, ranges="last") == (last, reason)


@given(
    entity_name=st.sampled_from(ENTITIES),
    number=st.decimals(0, 10**9, allow_nan=False, places=4),
    data=st.data(),
)
def test_every_plain_label_keeps_its_number_and_unit(entity_name: str, number: Decimal, data: st.DataObject) -> None:
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
def test_any_text_has_either_a_label_or_a_reason(entity_name: str, entity_value: str, ranges: str) -> None:
    label, reason = judge_label(entity_name, entity_value, ranges=ranges)
    assert bool(label) != bool(reason)
