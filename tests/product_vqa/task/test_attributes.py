import pickle
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from product_vqa.errors import InputError
from product_vqa.task.attributes import Schema, default_question, format_size, spellings
from product_vqa.task.kinds import LabelError
from product_vqa.task.schema import CHALLENGE, is_challenge
from product_vqa.task.schema_file import format_schema, parse_schema
from tests.product_vqa.task.schema_strategies import schemas

TEXT = """
version: 1
units:
  weight: {gram: {size: 1, spellings: [g]}, kilogram: {size: 1000}}
  storage: {gigabyte: {size: 1}}
attributes:
  net_weight: {kind: quantity, units: weight}
  memory: {kind: quantity, units: storage, decimals: 0}
  pieces: {kind: integer}
  colour: {kind: choice, values: {navy: [dark blue], red: }, not_shown: true}
  material: {kind: multi_choice, values: {cotton: [Baumwolle], wool: }}
  vegan: {kind: yes_no}
  model: {kind: pattern, pattern: '[A-Z]{2}[0-9]'}
  brand: {kind: text}
"""


def _schema(old: str = "", new: str = "") -> Schema:
    assert old in TEXT
    return parse_schema(TEXT.replace(old, new) if old else TEXT, name="my.yaml")


def test_a_schema_knows_its_names_units_and_spellings() -> None:
    schema = _schema()
    assert schema.names[:3] == ("net_weight", "memory", "pieces")
    assert schema.units == ("gigabyte", "gram", "kilogram")
    assert schema.unit_by_spelling == spellings(schema.dimensions) == {
        "gram": "gram", "g": "gram", "kilogram": "kilogram", "gigabyte": "gigabyte",
    }  # fmt: skip
    assert schema["net_weight"].question == default_question("net_weight") == "What is the net weight?"


@pytest.mark.parametrize("name", ["size", "x" * 1000, "\x1b", 7])
def test_an_unknown_attribute_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(InputError, match=r"unknown entity_name .*net_weight, memory") as refused:
        _schema()[name]
    assert str(refused.value).isprintable() and len(str(refused.value)) < 300


def test_an_unknown_attribute_among_many_gets_a_short_error() -> None:
    text = "version: 1\nattributes:\n" + "".join(f"  {'a' * 50} {number}: {{kind: text}}\n" for number in range(200))
    with pytest.raises(InputError, match=r", \.\.\.$") as refused:
        parse_schema(text, name="my.yaml")["b"]
    assert len(str(refused.value)) < 1500


def test_an_empty_label_means_not_shown_only_where_the_schema_says_so() -> None:
    schema = _schema()
    assert schema["colour"].normalize("  ") == "" and schema["colour"].is_valid("")
    assert not schema["colour"].is_valid("  ") and not schema["colour"].is_valid("dark blue")
    assert schema["colour"].is_same("", "") and not schema["colour"].is_same("", "red")
    for name in schema.names:
        if name != "colour":
            assert not schema[name].is_valid("")
            with pytest.raises(LabelError):
                schema[name].normalize(" ")


def test_the_order_counts_and_the_spelling_of_a_size_does_not() -> None:
    assert _schema() == _schema("size: 1000", "size: 01000.00")
    assert _schema().sha256 == _schema("size: 1000", "size: 01000.00").sha256
    reordered = _schema("{cotton: [Baumwolle], wool: }", "{wool: , cotton: [Baumwolle]}")
    assert reordered != _schema() and len({reordered, _schema(), _schema()}) == 2
    assert _schema() != "a schema"


@pytest.mark.parametrize(("size", "text"), [("1000", "1000"), ("1E+3", "1000"), ("0.00100", "0.001"), ("10.0", "10")])
def test_a_size_has_one_text(size: str, text: str) -> None:
    assert format_size(Decimal(size)) == text


def test_the_challenges_hash_is_what_it_was() -> None:
    """It may be recorded with adapters: change SCHEMA_VERSION if this changes."""
    assert CHALLENGE.sha256 == "64c079ecbd739fe7017872ee708e4f0e7ac655ac5bb8fd49ac035e843d0ca747"


def test_a_schema_travels_to_worker_processes() -> None:
    schema = _schema()
    assert schema["model"].normalize("AB1") == "AB1"  # makes what is cached
    assert pickle.loads(pickle.dumps(schema)) == schema


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("spellings: [g]", "spellings: [g, grams]"),
        ("size: 1000", "size: 999"),
        ("navy: [dark blue], red: ", "red: , navy: [marine]"),
        ("{cotton: [Baumwolle], wool: }", "[cotton, wool]"),
        ("kind: yes_no", "kind: yes_no, yes: [ja]"),
        ("units: weight}", "units: [kilogram, gram], space_required: true}"),
    ],
)
def test_schemas_with_the_same_answers_do_not_differ(old: str, new: str) -> None:
    assert not _schema().differences(_schema(old, new))


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ("kind: integer", "kind: text", "kind of pieces: integer and text"),
        (
            "kind: integer",
            "kind: integer, question: How many?",
            "question of pieces: What is the pieces? and How many?",
        ),
        ("kind: integer", "kind: integer, digits: 3", "digits of pieces: 6 and 3"),
        ("kind: integer", "kind: integer, signed: true", "signed of pieces: False and True"),
        ("kind: integer", "kind: integer, not_shown: true", "not_shown of pieces: False and True"),
        ("decimals: 0", "decimals: 4", "decimals of memory: 0 and 4"),
        ("units: weight}", "units: [gram]}", "units of net_weight: only kilogram and no other"),
        ("navy: [dark blue], red: ", "navy: , pink: ", "values of colour: only red and only pink"),
        ("cotton: [Baumwolle], wool: ", "wool: , cotton: ", "values of material: another order"),
        ("[A-Z]{2}", "[A-Z]{3}", "pattern of model: [A-Z]{2}[0-9] and [A-Z]{3}[0-9]"),
        ("kind: text", "kind: text, max_length: 3", "max_length of brand: 40 and 3"),
        ("  vegan: {kind: yes_no}\n", "", "vegan is only in one of them"),
    ],
)
def test_schemas_with_other_answers_differ(old: str, new: str, difference: str) -> None:
    differences = _schema().differences(_schema(old, new))
    assert difference in differences and all(text.isprintable() and len(text) < 400 for text in differences)


def test_only_the_attributes_that_are_asked_for_are_compared() -> None:
    other = _schema("kind: integer", "kind: text")
    assert not _schema().differences(other, names=["colour", "brand"])
    assert _schema().differences(other, names=["pieces", "size"]) == [
        "kind of pieces: integer and text",
        "size is only in one of them",
    ]
    assert _schema().differences(other, names=["size"]) == ["size is only in one of them"]


@settings(max_examples=50)
@given(schema=schemas(), other=schemas(), data=st.data())
def test_a_schema_differs_from_another_one_only_in_what_counts(
    schema: Schema, other: Schema, data: st.DataObject
) -> None:
    assert not schema.differences(schema)
    assert (schema == other) == (schema.describe() == other.describe() and schema.names == other.names)
    for difference in schema.differences(other):
        assert difference.isprintable() and len(difference) < 400


def test_exactly_the_named_attributes_may_be_empty_and_the_challenge_stays_the_challenge() -> None:
    silent = CHALLENGE.with_not_shown(["width", "voltage"])
    assert silent.not_shown == ("width", "voltage") and silent != CHALLENGE and CHALLENGE.not_shown == ()
    assert silent["width"].normalize(" ") == "" and not silent["depth"].is_valid("")
    assert is_challenge(silent) and is_challenge(CHALLENGE) and silent.with_not_shown(()) == CHALLENGE
    assert parse_schema(format_schema(silent), name="s") == silent
    wide = parse_schema(
        "version: 1\nattributes: {new: {kind: yes_no, not_shown: true, missing_is_not_shown: true}}", name="s"
    )
    assert not is_challenge(wide) and wide.with_not_shown(["new"]) == wide
    assert not wide.with_not_shown(())["new"].missing_is_not_shown
