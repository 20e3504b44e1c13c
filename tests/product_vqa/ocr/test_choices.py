import pytest

from product_vqa.ocr.choices import find_values
from product_vqa.ocr.geometry import Line

VALUES = {"blue": (), "navy blue": ("navy", "dark blue"), "red": ("burgundy",), "C": (), "C++": (), "off-white": ()}


def line(text: str) -> Line:
    return Line(text, 1.0, (0, 0, 1, 1), (0, 0, 100, 10), 10, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Colour: NAVY  blue", ["navy blue"]),
        ("dark blue, blue or RED", ["navy blue", "blue", "red"]),
        ("burgundy/navy", ["red", "navy blue"]),
        ("bluered redder", []),
        ("dark red", ["red"]),
        ("ＲＥＤ", ["red"]),  # full width
        ("off white", ["off-white"]),
        ("C++", ["C", "C++"]),  # signs do not count
        ("+ - _", []),
    ],
)
def test_values_are_found_by_their_words_and_the_longest_wins(text: str, expected: list[str]) -> None:
    assert find_values([line("other words"), line(text)], VALUES) == ({line(text): expected} if expected else {})


def test_a_choice_whose_values_have_no_words_is_never_found() -> None:
    assert find_values([line("** ***"), line("a")], {"**": (), "***": ()}) == {}
