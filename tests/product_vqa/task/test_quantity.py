from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from product_vqa.task.quantity import (
    LabelForm,
    Quantity,
    format_number,
    format_quantity,
    label_form,
    parse_quantity,
    parse_range,
)
from product_vqa.task.schema import UNITS

units = st.sampled_from(sorted(UNITS))
numbers = st.decimals(min_value=0, max_value=10**9, places=6, allow_nan=False, allow_infinity=False)


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


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("500 gram", "500.0 gram"),
        ("500.0 gram", "500.0 gram"),
        ("500.00 gram", "500.0 gram"),
        ("1.50 inch", "1.5 inch"),
        ("0.00034 ton", "0.00034 ton"),
        ("007 watt", "7.0 watt"),
        ("0 volt", "0.0 volt"),
        ("12345678901234567890.5 gram", "12345678901234567890.5 gram"),
        ("0.333333333333333333 cup", "0.333333333333333333 cup"),
        (" 5  metre ", "5.0 metre"),
        ("5 meter", "5.0 metre"),
        ("2 cubic feet", "2.0 cubic foot"),
    ],
)
def test_a_quantity_is_written_as_python_prints_a_float(text: str, canonical: str) -> None:
    assert format_quantity(parse_quantity(text)) == canonical


@pytest.mark.parametrize(
    "text", ["", "gram", "5", "5gram", "5 grams", "5 Gram", "-5 gram", "5e3 gram", "1,5 gram", "5 gram 6 gram", "5 g"]
)
def test_what_is_not_number_unit_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(ValueError, match="is not `number unit`") as refused:
        parse_quantity(text)
    assert repr(text) in str(refused.value)


def test_a_range_has_two_ends_as_written() -> None:
    assert parse_range("[100.0, 240.0] volt") == (Quantity(Decimal(100), "volt"), Quantity(Decimal(240), "volt"))
    assert parse_range("4 kilogram to 1kilogram") == (
        Quantity(Decimal(4), "kilogram"),
        Quantity(Decimal(1), "kilogram"),
    )
    with pytest.raises(ValueError, match="not a range"):
        parse_range("5 gram")
    with pytest.raises(ValueError, match="allowed unit"):
        parse_range("[1.0, 2.0] horsepower")


@given(number=numbers, unit=units)
def test_every_quantity_survives_writing_and_reading(number: Decimal, unit: str) -> None:
    quantity = Quantity(number, unit)
    assert parse_quantity(format_quantity(quantity)) == quantity
    assert label_form(format_quantity(quantity)) == LabelForm.PLAIN


@given(st.floats(min_value=1e-4, max_value=1e15, allow_nan=False))
def test_the_canonical_number_is_what_python_prints(value: float) -> None:
    assert format_number(Decimal(repr(value))) == repr(value)


@given(st.text())
def test_any_text_has_a_form_and_only_plain_ones_parse(text: str) -> None:
    if label_form(text) == LabelForm.PLAIN:
        assert parse_quantity(text).unit in UNITS
    else:
        with pytest.raises(ValueError, match="is not `number unit`"):
            parse_quantity(text)
