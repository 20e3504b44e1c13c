import dataclasses
import itertools
import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstart.rendering.drawing import FONT_FOLDER, SIZE, Character, draw, encode, fits_line
from quickstart.rendering.label_text import Label, Line, make_label
from quickstart.rendering.levels import HARD, LEVELS, STANDARD, Level

# Dark ink on an even background, rotated: every pixel that differs from the background is text.
CLEAN_HARD = dataclasses.replace(HARD, is_coloured=False, max_noise=0.0, max_shade=0.0)

any_seed = st.integers(0, 2**32)
any_level = st.sampled_from(list(LEVELS.values()))


@pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS)
def test_the_same_seed_draws_the_same_pixels(level: Level) -> None:
    def draw_one(seed: int) -> tuple[bytes, tuple[Character, ...], bytes]:
        rng = random.Random(seed)
        label = make_label(rng, level=level)
        image, characters = draw(label, rng, level=level)
        return image.tobytes(), characters, encode(image, rng, level=level)

    assert draw_one(3) == draw_one(3)
    assert draw_one(3)[0] != draw_one(4)[0]


@settings(max_examples=60, deadline=None)
@given(seed=any_seed, level=any_level)
def test_every_character_is_reported_once_and_inside_the_image(seed: int, level: Level) -> None:
    rng = random.Random(seed)
    label = make_label(rng, level=level)
    image, characters = draw(label, rng, level=level)
    assert image.size == (SIZE, SIZE)
    assert image.mode == "RGB"
    printed = [
        (char, line, position)
        for line in range(len(label.lines))
        for position, char in enumerate(label.lines[line].text)
        if char != " "
    ]
    assert [(character.char, character.line, character.position) for character in characters] == printed
    for character in characters:
        assert character.x - character.width / 2 >= 2
        assert character.x + character.width / 2 <= SIZE - 2
        assert 8 <= character.y <= SIZE - 8
    for before, after in itertools.pairwise(characters):  # reading order
        if before.line == after.line:
            assert before.x < after.x
    tops = [min(character.y for character in characters if character.line == line) for line in range(len(label.lines))]
    assert tops == sorted(tops)


def test_nothing_is_cut_off_and_each_character_has_ink_at_its_position() -> None:
    checked = 0
    for seed in range(100):
        rng = random.Random(seed)
        image, characters = draw(make_label(rng, level=CLEAN_HARD), rng, level=CLEAN_HARD)
        grey = np.asarray(image.convert("L")).astype(int)
        rim = np.concatenate([grey[:2].ravel(), grey[-2:].ravel(), grey[:, :2].ravel(), grey[:, -2:].ravel()])
        assert rim.min() == rim.max()
        for character in characters:
            x, y, half = round(character.x), round(character.y), max(2, round(character.width / 2) - 1)
            assert grey[y - 8 : y + 11, x - half : x + half + 1].min() < rim[0] - 80, (seed, character)
            checked += 1
    assert checked > 3000


@pytest.mark.parametrize("degrees", [0.0, 4.0, 15.0])
def test_rotation_moves_the_positions_with_the_ink(degrees: float) -> None:
    level = dataclasses.replace(CLEAN_HARD, max_degrees=degrees, fonts=("LiberationSans-Bold.ttf",))
    for seed in range(20):
        image, (character,) = draw(Label((Line("H"),)), random.Random(seed), level=level)
        ink = 255 - np.asarray(image.convert("L")).astype(float)
        ink -= ink[0, 0]
        ink[ink < 20] = 0
        y, x = np.average(np.indices(ink.shape).reshape(2, -1), axis=1, weights=ink.ravel()) + 0.5
        assert abs(x - character.x) < 1.2
        assert abs(y - character.y) < 1.2


@pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS)
def test_the_widest_text_that_fits_is_printed_inside_the_image(level: Level) -> None:
    text = "W" * 16
    assert fits_line(text) and not fits_line("W" * 17) and not fits_line("i" * 21)
    for seed in range(30):
        _, characters = draw(Label((Line(text),) * 8), random.Random(seed), level=level)
        assert min(character.x - character.width / 2 for character in characters) >= 2
        assert max(character.x + character.width / 2 for character in characters) <= SIZE - 2


def test_a_continued_line_is_directly_below_the_line_that_it_belongs_to() -> None:
    label = Label((Line("First"), Line("Key:"), Line("value", is_continued=True), Line("Last")))
    for seed in range(30):
        _, characters = draw(label, random.Random(seed), level=dataclasses.replace(STANDARD, font_sizes=(20, 20)))
        tops = [next(character.y for character in characters if character.line == line) for line in range(4)]
        assert tops[2] - tops[1] <= 30
        assert tops[2] - tops[1] <= min(tops[1] - tops[0], tops[3] - tops[2]) + 6  # fonts differ in height


def test_fonts_ship_with_their_licences() -> None:
    fonts = {file.name for file in FONT_FOLDER.iterdir() if file.suffix in (".ttf", ".otf")}
    assert fonts == set(HARD.fonts)
    readme = (FONT_FOLDER / "README.md").read_text()
    licences = {file.name for file in FONT_FOLDER.glob("LICENSE-*.txt")}
    assert all(font in readme for font in fonts)
    assert licences == set(re.findall(r"LICENSE-[\w.-]+\.txt", readme))
    assert sum(file.stat().st_size for file in FONT_FOLDER.iterdir()) <= 2.5e6
