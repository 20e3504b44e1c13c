import random

import pytest

from quickstart.rendering.printed_numbers import all_numbers, draw_number, is_held_out, may_show, numbers_in


def test_held_out_class_is_as_large_as_documented() -> None:
    numbers_by_size = {
        "9": [str(n) for n in range(1, 10)],
        "99": [str(n) for n in range(10, 100)],
        "999": [str(n) for n in range(100, 1000)],
        "9999": [str(n) for n in range(1000, 10000)],
        "9.9": [f"{n // 10}.{n % 10}" for n in range(1, 1000) if n % 10],
        "9.99": [f"{n // 100}.{n % 100:02}" for n in range(1, 1000) if n % 10],
    }
    held_out = {size: (sum(map(is_held_out, numbers)), len(numbers)) for size, numbers in numbers_by_size.items()}
    assert held_out == {
        "9": (0, 9),
        "99": (15, 90),
        "999": (94, 900),
        "9999": (910, 9000),
        "9.9": (73, 900),
        "9.99": (93, 900),
    }
    for size, numbers in numbers_by_size.items():
        printed = {*all_numbers(size, True), *all_numbers(size, False)}
        assert printed == set(numbers)


def test_single_digits_may_be_on_all_images_and_other_numbers_on_test_images_or_on_the_others() -> None:
    numbers = [str(n) for n in range(1, 1000)]
    assert {n for n in numbers if may_show(n, held_out=True) and may_show(n, held_out=False)} == set("123456789")
    assert all(may_show(n, held_out=True) or may_show(n, held_out=False) for n in numbers)


def test_a_number_is_drawn_from_one_of_the_sizes() -> None:
    rng = random.Random(0)
    drawn = [draw_number(rng, ("99", "9.99"), held_out=True) for _ in range(200)]
    assert {len(number) for number in drawn} == {2, 4}
    assert all(is_held_out(number) for number in drawn)
    with pytest.raises(ValueError, match="no such size of numbers: '12'"):
        draw_number(rng, ("12",), held_out=True)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("AX-340", ["340"]), ("16.9 FL OZ (500 mL)", ["16.9", "500"]), ("W 30 x H 20 in", ["30", "20"]), ("Brand", [])],
)
def test_all_numbers_in_a_text_are_found(text: str, numbers: list[str]) -> None:
    assert numbers_in(text) == numbers
