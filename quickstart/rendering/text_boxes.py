"""Where a drawn label has its values: the boxes that an attribution is compared with (`benchmarks.attribution`).

image, characters = draw(label, rng, level=STANDARD)
find_value_box(label, characters, "item_weight")
"""

from collections.abc import Iterable, Sequence

from quickstart.rendering.drawing import Character
from quickstart.rendering.label_text import Fact, Label

Box = tuple[float, float, float, float]  # left, top, right, bottom, in px of the image


def find_value_box(label: Label, characters: Sequence[Character], entity_name: str) -> Box:
    """The box of the number and the unit of an entity that the label shows, without the key.

    A second value in brackets is not part of it. In `W 30 x H 20 in`, the box of the width is that of `30`, because
    the unit belongs to both numbers.
    """
    for number, line in enumerate(label.lines):
        for fact in line.facts:
            if fact.entity_name == entity_name:
                end = fact.position + len(_printed_value(line.text, fact))
                return _enclose(
                    one for one in characters if one.line == number and fact.position <= one.position < end
                )
    raise ValueError(f"`entity_name` {entity_name}: the label does not show it")


def find_line_boxes(characters: Sequence[Character]) -> list[Box]:
    """The box of each line, from top to bottom."""
    lines = sorted({character.line for character in characters})
    return [_enclose(one for one in characters if one.line == line) for line in lines]


def _printed_value(text: str, fact: Fact) -> str:
    for gap in (" ", ""):
        value = f"{fact.number}{gap}{fact.unit}"
        if text.startswith(value, fact.position):
            return value
    return fact.number


def _enclose(characters: Iterable[Character]) -> Box:
    """The box around characters, from the capitals' height to the baseline."""
    found = list(characters)
    return (
        min(one.x - one.width / 2 for one in found),
        min(one.y - one.height / 2 for one in found),
        max(one.x + one.width / 2 for one in found),
        max(one.y + one.height / 2 for one in found),
    )
