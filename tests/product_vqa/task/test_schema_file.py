import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings

from product_vqa.errors import InputError
from product_vqa.task.attributes import Schema
from product_vqa.task.kinds import ChoiceKind, IntegerKind, MultiChoiceKind, PatternKind, QuantityKind, TextKind
from product_vqa.task.schema import CHALLENGE
from product_vqa.task.schema_file import format_schema, parse_schema, read_schema
from tests.commands import ROOT
from tests.product_vqa.task.broken_schemas import BROKEN
from tests.product_vqa.task.schema_strategies import schemas

ALL_KINDS = """
version: 1
units:
  weight:
    gram: {size: 1, spellings: [g, grams]}
    kilogram: {size: 1000, spellings: [kg]}
  storage: {gigabyte: {size: 1, spellings: [GB]}, terabyte: {size: 1000}}
attributes:
  net_weight: {kind: quantity, units: weight, decimals: 2, integer_digits: 5, signed: true, space_required: true}
  memory: {kind: quantity, units: [gigabyte], decimals: 0}
  cells: {kind: integer, digits: 2, signed: true}
  colour:
    question: Which {name} is it?
    kind: choice
    values: {red: [rot, roja], blue: , 1.10: []}
    not_shown: true
    missing_is_not_shown: true
  size: {kind: choice, values: [S, M, no]}
  material: {kind: multi_choice, values: [cotton, wool]}
  vegan: {kind: yes_no, yes: [ja, y]}
  model: {kind: pattern, pattern: '[A-Z]{2}-[0-9]{3,4}'}
  brand: {kind: text, max_length: 30}
"""


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_schema_is_refused_with_file_line_and_remedy(case: str) -> None:
    content, line, words = BROKEN[case]
    with pytest.raises(InputError) as refused:
        parse_schema(content, name="my.yaml")
    message = str(refused.value)
    assert message.startswith(f"my.yaml, line {line}: ")
    assert not [word for word in words if word not in message], message
    assert message.isprintable() and len(message) < 700


def test_every_field_of_every_kind_is_read() -> None:
    schema = parse_schema(ALL_KINDS, name="my.yaml")
    assert schema.names == (
        "net_weight", "memory", "cells", "colour", "size", "material", "vegan", "model", "brand",
    )  # fmt: skip
    kinds = {name: attribute.kind for name, attribute in schema.attributes.items()}
    weight = kinds["net_weight"]
    assert isinstance(weight, QuantityKind)
    assert (weight.dimension, weight.units) == ("weight", ("gram", "kilogram"))
    assert (weight.decimals, weight.integer_digits, weight.signed, weight.space_required) == (2, 5, True, True)
    assert weight.sizes == {"gram": Decimal(1), "kilogram": Decimal(1000)}
    memory = kinds["memory"]
    assert isinstance(memory, QuantityKind)
    assert (memory.units, memory.decimals, memory.integer_digits) == (("gigabyte",), 0, 6)
    assert (memory.signed, memory.space_required) == (False, False)
    assert kinds["cells"] == IntegerKind(2, signed=True)
    assert kinds["colour"] == ChoiceKind({"red": ("rot", "roja"), "blue": (), "1.10": ()})
    assert kinds["size"] == ChoiceKind({"S": (), "M": (), "no": ()})
    assert kinds["material"] == MultiChoiceKind({"cotton": (), "wool": ()})
    assert kinds["vegan"] == ChoiceKind({"yes": ("ja", "y"), "no": ()}, name="yes_no")
    model = kinds["model"]
    assert isinstance(model, PatternKind) and model.pattern.text == "[A-Z]{2}-[0-9]{3,4}"
    assert kinds["brand"] == TextKind(30)
    colour, size = schema["colour"], schema["size"]
    assert (colour.question, colour.not_shown, colour.missing_is_not_shown) == ("Which colour is it?", True, True)
    assert (size.question, size.not_shown, size.missing_is_not_shown) == ("What is the size?", False, False)
    assert schema["net_weight"].question == "What is the net weight?"


def test_fields_that_are_missing_have_the_challenges_limits() -> None:
    text = "version: 1\nunits: {w: {g: {size: 1}}}\nattributes: {a: {kind: quantity, units: w}, b: {kind: text}}"
    schema = parse_schema(text, name="my.yaml")
    kind = schema["a"].kind
    assert isinstance(kind, QuantityKind) and (kind.decimals, kind.integer_digits) == (4, 6)
    assert schema["b"].kind == TextKind(40)
    assert parse_schema("version: 1\nattributes: {a: {kind: integer}}", name="x")["a"].kind == IntegerKind(6)


def test_other_scripts_are_welcome() -> None:
    rows = ("रंग: लाल, नीला", "色: 赤, 青", "لون: أحمر, أزرق", "цвет: красный, синий")
    named = (row.split(": ") for row in rows)
    text = "version: 1\nattributes:\n" + "".join(
        f"  {name}: {{kind: choice, values: [{values}]}}\n" for name, values in named
    )
    schema = parse_schema(text.encode(), name="my.yaml")
    assert schema.names == ("रंग", "色", "لون", "цвет")
    assert parse_schema(format_schema(schema), name="my.yaml") == schema
    units = "version: 1\nunits: {r: {kΩ: {size: 1}, Ω: {size: 0.001}}}\nattributes: {a: {kind: quantity, units: r}}"
    assert parse_schema(units, name="my.yaml")["a"].normalize("4.7\u2126") == "4.7 Ω"  # the sign of the ohm


@pytest.mark.parametrize(
    "content", [ALL_KINDS.replace("\n", "\r\n"), "\ufeff" + ALL_KINDS, ALL_KINDS.encode("utf-8-sig")]
)
def test_files_of_other_editors_are_read(content: str | bytes) -> None:
    assert parse_schema(content, name="my.yaml") == parse_schema(ALL_KINDS, name="my.yaml")


def _examples() -> Iterator[Schema]:
    yield CHALLENGE
    yield parse_schema(ALL_KINDS, name="my.yaml")


@pytest.mark.parametrize("schema", _examples(), ids=["challenge", "all kinds"])
def test_a_schema_is_written_as_it_was_read(schema: Schema) -> None:
    again = parse_schema(format_schema(schema), name="my.yaml")
    assert again == schema and again.sha256 == schema.sha256
    assert format_schema(again) == format_schema(schema)


@settings(max_examples=50)
@given(schema=schemas())
def test_every_schema_is_written_as_it_was_read(schema: Schema) -> None:
    again = parse_schema(format_schema(schema), name="my.yaml")
    assert again == schema and again.sha256 == schema.sha256 and hash(again) == hash(schema)
    assert again.attributes == schema.attributes and again.dimensions == schema.dimensions
    assert not schema.differences(again)


def test_a_written_schema_is_short() -> None:
    lines = format_schema(CHALLENGE).splitlines()
    assert "    kilogram: {size: 1000}" in lines
    assert "  item_weight: {kind: quantity, units: weight, space_required: true}" in lines


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * 1_000_001)
    for file in (tmp_path / "none.yaml", tmp_path, pipe, large):
        with pytest.raises(InputError, match="name a YAML file") as refused:
            read_schema(file)
        assert str(refused.value).startswith(f"{file} cannot be read as a schema (")


def test_the_shipped_schema_is_the_challenges() -> None:
    assert read_schema(ROOT / "product_vqa/task/challenge.yaml") == CHALLENGE
