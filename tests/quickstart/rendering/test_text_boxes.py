"""The boxes of values are around their ink."""

import dataclasses
import random
from decimal import Decimal

import numpy as np
import pytest

from product_vqa.task.quantity import Quantity
from quickstart.rendering.drawing import Character, draw
from quickstart.rendering.label_text import Fact, Label, Line, make_label
from quickstart.rendering.levels import HARD, LEVELS
from quickstart.rendering.text_boxes import Box, find_line_boxes, find_value_box

# Dark ink on an even background: every pixel that differs from the background is text.
CLEAN = dataclasses.replace(
    HARD, is_coloured=False, max_noise=0.0, max_shade=0.0, max_degrees=0.0, fonts=HARD.fonts[:1]
)


def make_fact(entity_name: str, number: str, unit: str, *, position: int) -> Fact:
    quantity = Quantity(Decimal(number), {"g": "gram", "in": "inch"}[unit])
    return Fact(entity_name, quantity, key="", number=number, unit=unit, position=position)


def print_line(text: str) -> tuple[Character, ...]:
    """Characters of 10 x 12 px in one line, whose baseline is at 106 px."""
    return tuple(
        Character(char, 10 * position + 5, 100, 0, position, 10, 12)
        for position, char in enumerate(text)
        if char != " "
    )


@pytest.mark.parametrize(
    ("text", "fact", "expected"),
    [
        ("Net 34 g", make_fact("item_weight", "34", "g", position=4), (40, 94, 80, 106)),
        ("Net 34g", make_fact("item_weight", "34", "g", position=4), (40, 94, 70, 106)),
        ("34 g (1.2 oz) 34 g", make_fact("item_weight", "34", "g", position=0), (0, 94, 40, 106)),
        ("W 30 x H 20 in", make_fact("width", "30", "in", position=2), (20, 94, 40, 106)),
        ("W 30 x H 20 in", make_fact("height", "20", "in", position=9), (90, 94, 140, 106)),
    ],
)
def test_the_box_of_a_value_is_that_of_its_number_and_the_unit_behind_it(text: str, fact: Fact, expected: Box) -> None:
    label = Label((Line(text, facts=(fact,)),))
    assert find_value_box(label, print_line(text), fact.entity_name) == expected
    assert find_line_boxes(print_line(text)) == [(0, 94, 10 * len(text), 106)]


def test_a_value_that_is_not_shown_has_no_box() -> None:
    with pytest.raises(ValueError, match="`entity_name` voltage: the label does not show it"):
        find_value_box(Label((Line("Lot 7"),)), print_line("Lot 7"), "voltage")


@pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS)
def test_every_value_has_a_box_within_its_line(level: object) -> None:
    checked = 0
    for seed in range(60):
        rng = random.Random(seed)
        label = make_label(rng, level=level)
        _, characters = draw(label, rng, level=level)
        lines = find_line_boxes(characters)
        assert len(lines) == len(label.lines)
        for number, line in enumerate(label.lines):
            for name in (fact.entity_name for fact in line.facts):
                left, top, right, bottom = find_value_box(label, characters, name)
                outer = lines[number]
                assert outer[0] <= left < right <= outer[2] and outer[1] <= top < bottom <= outer[3]
                checked += 1
    assert checked > 60


def test_the_ink_of_a_value_fills_its_box() -> None:
    """Capitals and digits reach from its top to its bottom, and nothing above or below it is theirs."""
    for seed in range(30):
        text = "Net 340 IN"
        fact = make_fact("width", "340", "in", position=4)
        label = Label((Line(text, facts=(dataclasses.replace(fact, unit="IN"),)),))
        image, characters = draw(label, random.Random(seed), level=CLEAN)
        box = find_value_box(label, characters, "width")
        grey = np.asarray(image.convert("L")).astype(int)
        left, top, right, bottom = (round(side) for side in box)
        rows = np.flatnonzero((grey[:, left:right] < grey[0, 0] - 80).any(axis=1))
        assert abs(rows.min() - top) <= 1 and abs(rows.max() + 1 - bottom) <= 1
        columns = np.flatnonzero((grey[top:bottom] < grey[0, 0] - 80).any(axis=0))
        assert columns.min() < left and 0 <= right - columns.max() <= 4  # `Net` is left of it, and nothing is right
