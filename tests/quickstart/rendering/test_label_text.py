import random
import re
from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from product_vqa.task.schema import ENTITIES, UNITS_BY_ENTITY
from quickstart.rendering.label_text import MAX_LINE_CHARACTERS, SPELLINGS_BY_UNIT, Label, Line, make_label
from quickstart.rendering.levels import HARD, LEVELS, PLAIN, STANDARD, Level
from quickstart.rendering.printed_numbers import is_held_out, numbers_in

LENGTHS = {"width", "height", "depth"}

any_seed = st.integers(0, 2**32)
any_level = st.sampled_from(list(LEVELS.values()))


def make_labels(level: Level, *, count: int, held_out: bool = False) -> list[Label]:
    return [make_label(random.Random(seed), level=level, held_out=held_out) for seed in range(count)]


@settings(max_examples=300, deadline=None)
@given(seed=any_seed, level=any_level, held_out=st.booleans())
def test_facts_are_printed_where_they_say(seed: int, level: Level, held_out: bool) -> None:
    label = make_label(random.Random(seed), level=level, held_out=held_out)
    facts = [(line, fact) for line in label.lines for fact in line.facts]
    assert facts
    for line, fact in facts:
        assert line.text[fact.position :].startswith(fact.number)
        assert not re.match(r"[0-9.]", line.text[fact.position + len(fact.number) :])  # not a part of a longer number
        assert fact.position == 0 or not re.match(r"[0-9.]", line.text[fact.position - 1])
        assert fact.unit in line.text[fact.position + len(fact.number) :]
        assert fact.key in line.text
        assert fact.quantity.number == Decimal(fact.number)
        assert fact.quantity.unit in UNITS_BY_ENTITY[fact.entity_name]
        assert any(spelling.startswith(fact.unit) for spelling in SPELLINGS_BY_UNIT[fact.quantity.unit])
    for line in label.lines:
        assert line.text.isascii()
        assert line.text.isprintable()
        assert len(line.text) <= MAX_LINE_CHARACTERS
        assert line.text.startswith(line.key)


@settings(max_examples=300, deadline=None)
@given(seed=any_seed, level=any_level, held_out=st.booleans())
def test_each_question_has_one_answer(seed: int, level: Level, held_out: bool) -> None:
    label = make_label(random.Random(seed), level=level, held_out=held_out)
    facts = [fact for line in label.lines for fact in line.facts]
    assert len({fact.entity_name for fact in facts}) == len(facts) == len(label.facts)
    assert {fact.entity_name for fact in facts if not fact.key} <= {"voltage", "wattage", "item_volume"}
    spellings = "|".join(re.escape(spelling) for group in SPELLINGS_BY_UNIT.values() for spelling in group)
    value = re.compile(rf"[0-9] ?({spellings})(?![A-Za-z])")
    for line in label.lines:
        if not line.facts:
            assert not value.search(line.text), line.text
        elif len(line.facts) > 1:  # W 30 x H 20 in: lengths, one unit
            assert {fact.entity_name for fact in line.facts} <= LENGTHS
            assert len({fact.quantity.unit for fact in line.facts}) == 1
            assert numbers_in(line.text) == [fact.number for fact in line.facts]
        elif len(numbers_in(line.text)) > 1:  # 16.9 FL OZ (500 mL): the first is the answer
            assert numbers_in(line.text)[0] == line.facts[0].number
            assert line.text.count("(") == 1


def test_the_second_unit_is_the_same_amount() -> None:
    pattern = re.compile(r"([0-9.]+) ?(?:in|IN|inch) \(([0-9.]+) (?:cm|CM)\)")
    texts = [line.text for label in make_labels(HARD, count=3000) for line in label.lines]
    found = [match.groups() for match in map(pattern.search, texts) if match]
    assert len(found) >= 20
    for inches, centimetres in found:
        assert float(centimetres) == pytest.approx(float(inches) * 2.54, abs=0.051)


@settings(max_examples=200, deadline=None)
@given(seed=any_seed, level=any_level)
def test_every_number_on_a_test_image_is_held_out_and_none_on_a_training_image(seed: int, level: Level) -> None:
    for held_out in (False, True):
        label = make_label(random.Random(seed), level=level, held_out=held_out)
        numbers = [number for line in label.lines for number in numbers_in(line.text)]
        assert numbers
        assert {is_held_out(number) for number in numbers if len(number) > 1} <= {held_out}


@pytest.mark.slow
@pytest.mark.parametrize("held_out", [False, True])
def test_every_unit_of_every_entity_and_every_spelling_appears(held_out: bool) -> None:
    facts = [fact for label in make_labels(STANDARD, count=5000, held_out=held_out) for fact in label.facts.values()]
    asked = {(name, unit) for name, units in UNITS_BY_ENTITY.items() for unit in units}
    assert {(fact.entity_name, fact.quantity.unit) for fact in facts} == asked
    printed = {(fact.quantity.unit, fact.unit) for fact in facts}
    assert {(unit, spelling) for unit, group in SPELLINGS_BY_UNIT.items() for spelling in group} <= printed


def test_the_requested_entities_are_on_the_label() -> None:
    for level in LEVELS.values():
        for seed in range(200):
            rng = random.Random(seed)
            names = rng.sample(ENTITIES, 3)
            assert set(names) <= set(make_label(rng, level=level, entity_names=names).facts)


@pytest.mark.slow
def test_levels_differ_as_documented() -> None:
    for level in LEVELS.values():
        for label in make_labels(level, count=300):
            assert len([line for line in label.lines if not line.is_brand]) in level.line_counts
    plain, standard, hard = (make_labels(level, count=1000) for level in (PLAIN, STANDARD, HARD))

    def share(labels: list[Label], condition: Callable[[Line], bool]) -> float:
        return sum(any(condition(line) for line in label.lines) for label in labels) / len(labels)

    def has_dimensions(line: Line) -> bool:
        return len(line.facts) > 1

    def has_two_units(line: Line) -> bool:
        return len(line.facts) == 1 and "(" in line.text

    assert share(plain, has_dimensions) == share(standard, has_dimensions) == 0
    assert share(plain, has_two_units) == share(standard, has_two_units) == 0
    assert share(hard, has_dimensions) > 0.3
    assert share(hard, has_two_units) > 0.2
    assert len(PLAIN.fonts) == 2
    assert len(STANDARD.fonts) == 5
    assert len(HARD.fonts) == 7
