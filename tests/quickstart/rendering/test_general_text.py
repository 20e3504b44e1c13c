import random
import re
import string

from hypothesis import given
from hypothesis import strategies as st

from quickstart.rendering.drawing import draw, fits_line, is_drawable
from quickstart.rendering.general_text import draw_absent_key, make_general_label
from quickstart.rendering.levels import HARD, LEVELS, STANDARD, Level
from quickstart.rendering.printed_numbers import is_held_out, numbers_in


@given(seed=st.integers(0, 10**6), level=st.sampled_from(list(LEVELS.values())), held_out=st.booleans())
def test_every_value_is_printed_after_its_key(seed: int, level: Level, held_out: bool) -> None:
    label = make_general_label(random.Random(seed), level=level, held_out=held_out)
    assert label.values
    assert all(is_drawable(line.text) and fits_line(line.text) for line in label.lines if not line.is_brand)
    text = " ".join(line.text for line in label.lines)
    for key, value in label.values.items():
        texts = [text[match.end() :].lstrip(": ").replace(" ", "") for match in re.finditer(re.escape(key), text)]
        assert any(after.startswith(value.replace(" ", "").lstrip(":")) for after in texts)


def test_held_out_texts_are_on_test_images_only() -> None:
    rng = random.Random(0)
    for _ in range(200):
        label = make_general_label(rng, level=STANDARD)
        texts = [text for items in label.values.items() for text in items]
        assert not any(is_held_out(number) for text in texts for number in numbers_in(text))
        label = make_general_label(rng, level=STANDARD, held_out=True)
        assert all(map(is_held_out, label.values))


def test_values_have_all_printable_characters() -> None:
    rng = random.Random(1)
    values = [value for _ in range(3000) for value in make_general_label(rng, level=HARD).values.values()]
    assert set("".join(values)) == set(string.printable.strip()) | {" "}


def test_an_absent_key_is_none_of_the_labels_keys() -> None:
    rng = random.Random(2)
    for _ in range(100):
        label = make_general_label(rng, level=HARD)
        assert draw_absent_key(rng, label).lower() not in map(str.lower, label.values)


def test_an_image_depends_on_its_seed_only() -> None:
    images = []
    for _ in range(2):
        rng = random.Random(5)
        images.append(draw(make_general_label(rng, level=HARD), rng, level=HARD)[0].tobytes())
    assert images[0] == images[1]
