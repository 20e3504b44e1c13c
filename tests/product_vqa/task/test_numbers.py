import re
from decimal import Decimal

import pytest

from product_vqa.task.numbers import NUMBER_PATTERN, UNIT_PATTERN, format_number


@pytest.mark.parametrize(
    ("number", "text"),
    [("500", "500.0"), ("1.50", "1.5"), ("0.00034", "0.00034"), ("0", "0.0"), ("-2", "-2.0"), ("1E+3", "1000.0"),
     ("12345678901234567890.5", "12345678901234567890.5"), ("1E-9", "0.000000001")],
)  # fmt: skip
def test_a_number_is_written_with_a_point_and_without_an_exponent(number: str, text: str) -> None:
    assert format_number(Decimal(number)) == text


def test_the_digits_of_other_scripts_are_not_numbers() -> None:
    texts = ("5", "5.0", "05.50", "5.", ".5", "-5", "5e3", "٥", "²", "1,5")
    assert [text for text in texts if re.fullmatch(NUMBER_PATTERN, text)] == ["5", "5.0", "05.50"]


def test_a_unit_is_some_words() -> None:
    texts = ("gram", "fluid ounce", "cubic  foot", " gram", "m2", "µg", "")
    assert [text for text in texts if re.fullmatch(UNIT_PATTERN, text)] == ["gram", "fluid ounce"]
