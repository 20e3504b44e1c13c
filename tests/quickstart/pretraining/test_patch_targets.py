import random

from quickstart.pretraining.patch_targets import HEADS, patch_targets
from quickstart.rendering.drawing import draw
from quickstart.rendering.label_text import make_label
from quickstart.rendering.levels import STANDARD


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
