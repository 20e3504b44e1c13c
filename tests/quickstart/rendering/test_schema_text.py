import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from product_vqa.errors import InputError
from product_vqa.task.attributes import Schema
from product_vqa.task.kinds import key_of
from product_vqa.task.schema import CHALLENGE
from product_vqa.task.schema_file import parse_schema
from quickstart.rendering.drawing import SIZE, draw, fits_line
from quickstart.rendering.levels import HARD, LEVELS, STANDARD, Level
from quickstart.rendering.schema_text import MAX_LINES, SchemaLabel, SchemaText
from tests.example_schemas import SCHEMAS

TEXTS = [SchemaText(schema) for schema in (*SCHEMAS.values(), CHALLENGE)]

any_seed = st.integers(0, 2**32)
any_level = st.sampled_from(list(LEVELS.values()))


def make_text(attributes: str) -> SchemaText:
    return SchemaText(parse_schema(f"version: 1\nattributes:\n{attributes}", name="schema.yaml"))


def printed(label: SchemaLabel) -> str:
    return "\n".join(line.text for line in label.label.lines)


@settings(max_examples=100, deadline=None)
@given(seed=any_seed, level=any_level, text=st.sampled_from(TEXTS), held_out=st.booleans())
def test_every_fact_is_printed_and_its_label_normalizes(
    seed: int, level: Level, text: SchemaText, held_out: bool
) -> None:
    rng = random.Random(seed)
    names = rng.sample(text.schema.names, 2)
    label = text.make_label(rng, level=level, entity_names=names[:1], absent=names[1:], held_out=held_out)
    assert names[0] in label.values
    assert names[1] not in label.values
    lines = [line for line in label.label.lines if not line.is_brand]
    assert len(lines) <= MAX_LINES
    assert all(fits_line(line.text) for line in label.label.lines)
    words = " ".join(line.text for line in lines)
    for name, value in label.values.items():
        assert value.text in words
        assert text.schema[name].normalize(value.label) == value.entity_value


@settings(max_examples=30, deadline=None)
@given(seed=any_seed, level=any_level, text=st.sampled_from(TEXTS))
def test_every_label_is_drawn_inside_the_image_in_reading_order(seed: int, level: Level, text: SchemaText) -> None:
    rng = random.Random(seed)
    label = text.make_label(rng, level=level, entity_names=text.schema.names[:3])
    _, characters = draw(label.label, rng, level=level)
    assert len(characters) == sum(len(line.text.replace(" ", "")) for line in label.label.lines)
    assert all(2 <= character.x <= SIZE - 2 and 6 <= character.y <= SIZE - 6 for character in characters)
    tops = [min(one.y for one in characters if one.line == line) for line in range(len(label.label.lines))]
    assert tops == sorted(tops)


def test_a_value_has_a_key_unless_no_other_attribute_has_its_units_or_values() -> None:
    text = make_text(
        "  colour: {kind: choice, values: [red, blue]}\n"
        "  lid: {kind: choice, values: [red, green]}\n"
        "  fit: {kind: choice, values: [slim, loose]}\n"
        '  size: {kind: choice, values: ["36", "38"]}\n'
        "  new: {kind: yes_no}\n"
    )
    without_key = set()
    for seed in range(400):
        label = text.make_label(random.Random(seed), level=STANDARD)
        for name, value in label.values.items():
            if any(line.text == value.text for line in label.label.lines):
                without_key.add(name)
            else:
                assert key_of(f"{name} {value.text}") in key_of(printed(label).replace(":", ""))
    assert without_key == {"fit"}


def test_what_is_not_asked_about_answers_no_question() -> None:
    """Lines without facts have no unit, value or name of the schema in them, and no brand is a value of it."""
    text = make_text(
        "  lot: {kind: integer}\n"
        "  rpm: {kind: integer}\n"
        "  thing: {kind: choice, values: [bebe, Coco, pcs, $, made in]}\n"
    )
    others = set()
    for seed in range(300):
        label = text.make_label(random.Random(seed), level=HARD, absent=text.schema.names)
        assert not label.values
        others |= {word.strip(":").lower() for word in printed(label).split()}
    assert {"batch", "ref", "no.", "db"} <= others
    assert not others & {"lot", "rpm", "thing", "bebe", "coco", "pcs", "made"}


def test_long_names_and_values_continue_on_the_next_line() -> None:
    text = make_text("  maximum_weight_recommendation_of_shelf: {kind: integer, digits: 2}\n")
    label = text.make_label(random.Random(1), level=STANDARD, entity_names=text.schema.names)
    lines = label.label.lines
    first = next(number for number, line in enumerate(lines) if line.is_continued) - 1
    assert [line.is_continued for line in lines[first : first + 4]] == [False, True, True, True]
    whole = " ".join(line.text for line in lines[first : first + 4])
    value = label.values["maximum_weight_recommendation_of_shelf"].text
    assert whole.lower() == f"maximum weight recommendation of shelf: {value}"


def test_a_brand_is_not_printed_where_a_text_may_be_missing() -> None:
    for not_shown in (True, False):
        text = make_text(f"  brand: {{kind: text, not_shown: {str(not_shown).lower()}}}\n")
        labels = [text.make_label(random.Random(seed), level=STANDARD) for seed in range(20)]
        assert any(line.is_brand for label in labels for line in label.label.lines) == (not not_shown)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("größe", r"^attribute größe: the fonts of rendered labels lack characters of its name; write it in ASCII"),
        ("abcdefghijklmnopqrstuvw", r"^attribute abc\w+: its name does not fit into 3 lines of 20 characters"),
        ("word_" * 12 + "end", r"^attribute word_\w+: its name does not fit into 3 lines of 20 characters"),
    ],
)
def test_a_name_that_cannot_be_printed_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_text(f"  {name}: {{kind: integer}}\n")


def test_the_same_seed_prints_the_same_label() -> None:
    def print_one(seed: int, schema: Schema) -> str:
        return printed(SchemaText(schema).make_label(random.Random(seed), level=HARD))

    for schema in SCHEMAS.values():
        assert print_one(3, schema) == print_one(3, schema)
        assert print_one(3, schema) != print_one(4, schema)
