import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from product_vqa.errors import InputError
from product_vqa.task.attributes import Schema
from product_vqa.task.kinds import PatternKind
from product_vqa.task.patterns import Pattern
from product_vqa.task.schema_file import parse_schema
from quickstart.rendering.drawing import fits_line
from quickstart.rendering.printed_numbers import is_held_out, may_show, numbers_in
from quickstart.rendering.printed_values import PrintedValue, ValuePrinter
from tests.example_schemas import SCHEMAS


def make_schema(attribute: str, units: str = "") -> Schema:
    return parse_schema(f"version: 1\n{units}\nattributes:\n  thing: {attribute}\n", name="schema.yaml")


TEMPERATURE = "units: {temperature: {degree Celsius: {size: 1, spellings: [°C, C]}}}"
SIGNED = make_schema("{kind: quantity, units: temperature, decimals: 0, signed: true}", TEMPERATURE)
ATTRIBUTES = [(schema, name) for schema in (*SCHEMAS.values(), SIGNED) for name in schema.names]


def make_printer(schema: Schema, name: str = "thing") -> ValuePrinter:
    return ValuePrinter(schema[name], schema=schema, fits=fits_line)


def draw_many(printer: ValuePrinter, *, count: int = 300, **options: bool) -> list[PrintedValue]:
    return [printer.draw(random.Random(seed), **options) for seed in range(count)]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), which=st.sampled_from(ATTRIBUTES), is_dual=st.booleans(), held_out=st.booleans())
def test_labels_normalize_to_canonical_answers(
    seed: int, which: tuple[Schema, str], is_dual: bool, held_out: bool
) -> None:
    schema, name = which
    value = make_printer(schema, name).draw(random.Random(seed), is_dual=is_dual, held_out=held_out)
    assert schema[name].normalize(value.label) == value.entity_value
    assert schema[name].is_valid(value.entity_value)
    assert fits_line(value.text)


UNITS = "units: {data: {gigabyte: {size: 1, spellings: [GB, gigs]}, terabyte: {size: 1000, spellings: [TB]}}}"


def test_a_quantity_is_printed_with_the_spellings_of_its_unit() -> None:
    values = draw_many(make_printer(make_schema("{kind: quantity, units: data, decimals: 0}", UNITS)))
    units = Counter(value.text.strip("0123456789 ") for value in values)
    assert set(units) == {"GB", "gigs", "gigabyte", "TB", "terabyte"}
    assert units["GB"] > units["gigs"] + units["gigabyte"]
    for value in values:
        number, unit = value.entity_value.split(" ")
        assert unit in ("gigabyte", "terabyte")
        assert numbers_in(value.text) == [number]
    assert {value.label == value.entity_value for value in values} == {True, False}


def test_a_second_unit_is_the_same_amount_and_not_the_answer() -> None:
    printer = make_printer(make_schema("{kind: quantity, units: data}", UNITS))
    texts = {value.text: value for value in draw_many(printer, is_dual=True) if "(" in value.text}
    assert len(texts) > 20
    for text, value in texts.items():
        first, second = map(float, numbers_in(text))
        assert (
            value.entity_value
            == f"{first:.10g} ".replace(" ", "" if first % 1 else ".0") + f" {value.entity_value.split()[1]}"
        )
        assert second == pytest.approx(first * 1000 if "terabyte" in value.entity_value else first / 1000, abs=0.051)


def test_numbers_have_the_digits_decimals_and_signs_of_the_schema() -> None:
    def numbers(attribute: str) -> set[str]:
        return {value.text for value in draw_many(make_printer(make_schema(attribute)))}

    assert numbers("{kind: integer, digits: 1}") == set("0123456789")
    assert max(map(int, numbers("{kind: integer, digits: 2}"))) in range(50, 100)
    assert max(map(int, numbers("{kind: integer}"))) in range(5000, 10000)
    assert min(map(int, numbers("{kind: integer, signed: true}"))) < -9
    lengths = "units: {length: {metre: {size: 1}}}"
    for decimals, longest in ((0, 0), (1, 1), (2, 2), (4, 2)):
        schema = make_schema(f"{{kind: quantity, units: length, decimals: {decimals}}}", lengths)
        fractions = [
            value.text.split()[0].removesuffix("metre").partition(".")[2] for value in draw_many(make_printer(schema))
        ]
        assert max(map(len, fractions)) == longest


def test_choices_are_printed_by_value_or_synonym_in_any_case() -> None:
    schema = make_schema("{kind: choice, values: {navy blue: [navy], red: []}}")
    texts = {value.text for value in draw_many(make_printer(schema))}
    assert texts == {"navy blue", "Navy blue", "NAVY BLUE", "navy", "Navy", "NAVY", "red", "Red", "RED"}
    several = make_schema("{kind: multi_choice, values: [cotton, wool]}")
    texts = {value.text: value.entity_value for value in draw_many(make_printer(several))}
    assert texts == {
        "cotton": "cotton",
        "wool": "wool",
        **dict.fromkeys(("cotton, wool", "wool, cotton", "cotton/wool", "wool/cotton"), "cotton, wool"),
    }


def test_a_tenth_of_the_values_is_on_test_images_only() -> None:
    for attribute in ("{kind: integer}", '{kind: pattern, pattern: "[A-Z]{2}-[0-9]{4}"}', "{kind: text}"):
        printer = make_printer(make_schema(attribute))
        shown, hidden = (
            {value.text for value in draw_many(printer, held_out=held_out) if len(value.text) > 1}
            for held_out in (False, True)
        )
        assert len(shown) > 100 and len(hidden) > 100
        assert not shown & hidden
        assert all(map(is_held_out, hidden))
        assert all(may_show(number, held_out=False) for text in shown for number in numbers_in(text))


def test_values_that_are_too_few_are_on_all_images() -> None:
    printer = make_printer(make_schema('{kind: pattern, pattern: "A|B"}'))
    for held_out in (False, True):
        assert {value.text for value in draw_many(printer, count=40, held_out=held_out)} == {"A", "B"}


@pytest.mark.parametrize("text", ["[A-Z]{2}-[0-9]{3,4}[A-Z]?(/[0-9])?", "(red|blue|[0-9]{2}){1,3}", "a[b-d]{0,1}|e"])
def test_a_text_that_is_drawn_from_a_pattern_matches_it(text: str) -> None:
    pattern = Pattern(text)
    drawn = {pattern.draw(random.Random(seed)) for seed in range(60)}
    assert all(map(pattern.matches, drawn))
    assert len(drawn) > 30 or drawn == {"a", "ab", "ac", "ad", "e"}


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("{kind: choice, values: [červená, red]}", r"^attribute thing: the fonts .* lack characters of 'červená'"),
        ('{kind: pattern, pattern: "[A-ZÄÖ]{3}"}', r"^attribute thing: the fonts .* do not have 'ÄÖ'; use printable"),
        (f"{{kind: choice, values: [{'long ' * 5}one, two]}}", r"^attribute thing: 'long .* is too long"),
        ('{kind: pattern, pattern: "[A-Z]{30}"}', r"^attribute thing: none of 300 random values fits on a rendered"),
    ],
)
def test_what_cannot_be_printed_is_refused_with_the_attribute(attribute: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_printer(make_schema(attribute)).draw(random.Random(0))


def test_a_spelling_in_ascii_is_printed_instead_of_another() -> None:
    units = "units: {temperature: {°C: {size: 1, spellings: [C]}}}"
    values = draw_many(make_printer(make_schema("{kind: quantity, units: temperature}", units)))
    assert {value.text.strip("0123456789. ") for value in values} == {"C"}
    assert {value.entity_value.split()[1] for value in values} == {"°C"}


def test_every_kind_is_printed() -> None:
    kinds = {type(schema[name].kind) for schema, name in ATTRIBUTES}
    assert PatternKind in kinds and len(kinds) == 6
