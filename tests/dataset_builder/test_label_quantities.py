from collections import Counter

import pytest

from dataset_builder.label_quantities import (
    describe_numbers,
    digit_fields,
    find_quantities,
    used_units,
)


def test_numbers_and_units_are_counted_by_labels() -> None:
    found = find_quantities({"500 g": 6, "1.5kg": 2, "[1, 2] kg": 1, "1 g to 2 g": 1, "2 GRAMS": 1, "?": 1, "5": 1})
    assert (found.num_labels, found.dimension) == (13, "weight")
    assert found.units == {"gram": 8, "kilogram": 3}
    assert used_units(found, "weight") == {"gram": ("g", "GRAMS"), "kilogram": ("kg",)}
    assert found.numbers == Counter({"500": 6, "1.5": 2, "1": 2, "2": 1})


def test_most_labels_have_the_unit_of_a_quantity() -> None:
    assert find_quantities({"5 g": 7, "5 ml": 3}).dimension == "weight"
    assert find_quantities({"5 g": 6, "5 ml": 4}).dimension is None
    assert find_quantities({"x": 1}).dimension is None
    assert find_quantities({}).dimension is None


def test_a_unit_of_a_mistake_is_not_used() -> None:
    found = find_quantities({"5 gram": 29_997, "5 carat": 3})
    assert used_units(found, "weight") == {"gram": (), "carat": ()}
    assert used_units(find_quantities({"5 gram": 29_998, "5 carat": 3}), "weight") == {"gram": ()}


def test_words_that_repeat_are_units() -> None:
    found = find_quantities({"2 scoops": 5, "1 scoop": 4, "1 Scoop": 2, "3 sticks": 4, "1 dash": 1})
    assert found.dimension is None
    assert found.unknown_units == {"scoops": ("scoop", "Scoop"), "sticks": ()}


@pytest.mark.parametrize(
    "labels",
    [
        {"2 scoops": 8, "x": 2},  # too few
        {"3XL": 10, "4XL": 10},  # a size
        {"32 B": 10},  # one letter
        {f"5 word{chr(97 + number)}": 2 for number in range(21)},  # too many
        {"2 scoops": 1},
        {},
    ],
)
def test_other_words_are_none(labels: dict[str, int]) -> None:
    assert find_quantities(labels).unknown_units == {}


@pytest.mark.parametrize(
    ("numbers", "fields"),
    [
        ({"16": 1, "32.0": 1}, {"decimals": 0}),
        ({"0.5": 1, "16": 9}, {}),
        ({"1234567": 10}, {"decimals": 0, "integer_digits": 7}),
        ({"1.5": 199, "1234567": 1}, {}),
        ({"1.5": 198, "1234567": 1}, {"integer_digits": 7}),
        ({"1.5": 1, "12345678901234567890": 1}, {"integer_digits": 15}),
        ({"-1.5": 1, "2": 1}, {"signed": True}),
        ({"-0": 1, "2.5": 1}, {}),
    ],
)
def test_fields_say_how_large_numbers_are(numbers: dict[str, int], fields: dict[str, int | bool]) -> None:
    assert digit_fields(numbers) == fields


def test_numbers_are_described() -> None:
    assert describe_numbers({}) == ""
    assert describe_numbers({"2": 1, "16.0": 1}) == "numbers from 2 to 16.0: up to 2 digits before the point"
    assert describe_numbers({"0.25": 300, "1600": 1}) == (
        "numbers from 0.25 to 1600: up to 1 digits before the point and 2 after it, most of them"
    )
