from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from product_vqa.task.numbers import format_number
from product_vqa.task.quantity import Quantity, format_quantity, parse_quantity
from product_vqa.task.schema import UNITS

units = st.sampled_from(sorted(UNITS))
numbers = st.decimals(min_value=0, max_value=10**9, places=6, allow_nan=False, allow_infinity=False)


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
    assert format_quantity(parse_quantity(text)) == str(parse_quantity(text)) == canonical


@pytest.mark.parametrize(
    "text", ["", "gram", "5", "5gram", "5 grams", "5 Gram", "-5 gram", "5e3 gram", "1,5 gram", "5 gram 6 gram", "5 g"]
)
def test_what_is_not_number_unit_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(ValueError, match="is not `number unit`") as refused:
        parse_quantity(text)
    assert repr(text) in str(refused.value)


def test_a_range_is_read_by_its_first_or_last_end_as_written() -> None:
    for text, first, last in [
        ("[100.0, 240.0] volt", "100.0 volt", "240.0 volt"),
        (" 4 kilogram to 1kilogram", "4.0 kilogram", "1.0 kilogram"),
        ("5 meter", "5.0 metre", "5.0 metre"),
    ]:
        assert (str(parse_quantity(text, ranges="first")), str(parse_quantity(text, ranges="last"))) == (first, last)
    for text in ("[1.0, 2.0] horsepower", "1 gram to 2 horsepower", "[1.0, 2.0, 3.0] gram", "[1.0, 2.0] gram gram"):
        for ranges in ("first", "last"):
            with pytest.raises(ValueError, match="allowed unit"):
                parse_quantity(text, ranges=ranges)
    with pytest.raises(ValueError, match="is not `number unit`"):
        parse_quantity("[100.0, 240.0] volt")


@given(number=numbers, unit=units)
def test_every_quantity_survives_writing_and_reading(number: Decimal, unit: str) -> None:
    quantity = Quantity(number, unit)
    assert parse_quantity(format_quantity(quantity)) == quantity


@given(st.floats(min_value=1e-4, max_value=1e15, allow_nan=False))
def test_the_canonical_number_is_what_python_prints(value: float) -> None:
    assert format_number(Decimal(repr(value))) == repr(value)
