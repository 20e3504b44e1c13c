import random
from dataclasses import replace

from product_vqa.task.schema import ENTITIES
from quickstart.pretraining.patch_targets import HEADS, patch_targets
from quickstart.rendering.drawing import draw
from quickstart.rendering.label_text import make_label
from quickstart.rendering.levels import HARD, PLAIN, STANDARD


def test_patch_targets_say_what_each_patch_shows() -> None:
    rng = random.Random(1)
    label = make_label(rng, level=STANDARD, entity_names=["voltage"])
    _, characters = draw(label, rng, level=STANDARD)
    targets = dict(zip(HEADS, patch_targets(label, characters, grid=28), strict=True))
    fact = label.facts["voltage"]
    line = next(index for index, line in enumerate(label.lines) if fact in line.facts)
    digit = next(c for c in characters if c.line == line and c.position == fact.position)
    patch = int(digit.y / 8) * 28 + int(digit.x / 8)
    assert chr(targets["first"][patch] + 32) == fact.number[0]
    assert targets["line"][patch] == line + 1
    assert targets["position"][patch] == fact.position + 1
    assert targets["number_position"][patch] == 1
    assert targets["meaning"][patch] > 2
    assert (targets["first"] > 0).sum() > 0.7 * len(characters)


def test_each_number_of_a_line_of_dimensions_belongs_to_its_own_entity() -> None:
    rng = random.Random(0)
    label = make_label(rng, level=replace(HARD, dimensions_share=1.0), entity_names=["width", "height"])
    line = next(line for line in label.lines if len(line.facts) > 1)
    _, characters = draw(label, rng, level=replace(PLAIN, font_sizes=(16, 16)))
    targets = dict(zip(HEADS, patch_targets(label, characters, grid=112), strict=True))
    for fact in line.facts:
        key = line.text.rindex(fact.key, 0, fact.position)
        for position, place in ((key, 0), (fact.position, 1)):
            char = next(c for c in characters if label.lines[c.line] is line and c.position == position)
            patch = int(char.y / 2) * 112 + int(char.x / 2)
            assert targets["meaning"][patch] == 3 + ENTITIES.index(fact.entity_name)
            assert targets["number_position"][patch] == place
