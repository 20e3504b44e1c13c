"""schema.json, for editors: it accepts what the reader accepts, and has the fields and limits of the reader."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from jsonschema import Draft202012Validator

from product_vqa.errors import InputError
from product_vqa.task import schema_file
from product_vqa.task.attributes import Schema
from product_vqa.task.kinds import MAX_TEXT_LENGTH
from product_vqa.task.patterns import MAX_PATTERN_CHARS
from product_vqa.task.schema_file import format_schema, parse_schema
from tests.commands import ROOT
from tests.product_vqa.task.broken_schemas import BROKEN
from tests.product_vqa.task.schema_strategies import schemas

CONTENT = json.loads((ROOT / "product_vqa/task/schema.json").read_text())
VALIDATOR = Draft202012Validator(CONTENT)
# What a JSON Schema sees: wrong fields, types and numbers. It does not compare texts, nor read patterns.
SEEN = [
    "no version", "version 2", "attributes missing", "attributes without any", "an empty mapping of attributes",
    "201 attributes", "an unknown field at the top", "a long name", "no kind", "an unknown kind", "a list of kinds",
    "a text as an attribute", "a field of another kind", "digits: 0", "max_length: 0", "max_length: 201",
    "an empty question", "no values", "one value", "1001 values", "65 of several values", "a list in values",
    "a number of synonyms", "101 synonyms", "no units", "a list without units", "an empty dimension", "no size",
    "size 0", "size -1", "size 1e3", "size 1,5", "an unknown field of a unit", "decimals: -1", "decimals: 16",
    "an empty pattern", "a long pattern",
]  # fmt: skip


def _errors(text: str) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(yaml.safe_load(text))]


def test_it_is_a_json_schema() -> None:
    Draft202012Validator.check_schema(CONTENT)
    assert CONTENT["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_it_accepts_the_challenges_schema() -> None:
    assert _errors((ROOT / "product_vqa/task/challenge.yaml").read_text()) == []


@given(schema=schemas())
def test_it_accepts_every_schema(schema: Schema) -> None:
    assert _errors(format_schema(schema)) == []


@pytest.mark.parametrize("case", SEEN)
def test_it_refuses_wrong_fields_types_and_numbers(case: str) -> None:
    content = BROKEN[case][0]
    assert isinstance(content, str)
    assert _errors(content) != []


def _fields(name: str) -> set[str]:
    return set(CONTENT["$defs"][name]["properties"])


def test_it_has_the_fields_of_the_reader_and_no_others() -> None:
    """The reader names the fields that it knows when it refuses another one."""

    def known(text: str) -> set[str]:
        with pytest.raises(InputError) as refused:
            parse_schema(text, name="my.yaml")
        return set(str(refused.value).partition("the fields here are ")[2].split(", "))

    assert known("x: 1") == set(CONTENT["properties"])
    assert known("version: 1\nunits: {w: {g: {x: 1}}}\nattributes: {}") == _fields("unit")
    attribute = CONTENT["properties"]["attributes"]["additionalProperties"]
    kinds = attribute["properties"]["kind"]["enum"]
    assert [rule["then"]["$ref"] for rule in attribute["allOf"]] == [f"#/$defs/{kind}" for kind in kinds]
    with pytest.raises(InputError) as refused:
        parse_schema("version: 1\nattributes: {a: {kind: x}}", name="my.yaml")
    assert str(refused.value).partition("use one of ")[2].split(", ") == kinds
    for kind in kinds:
        assert known(f"version: 1\nattributes: {{a: {{kind: {kind}, x: 1}}}}") == _fields(kind), kind


def test_it_has_the_limits_of_the_reader() -> None:
    definitions = CONTENT["$defs"]

    def limits(kind: str, field: str) -> tuple[Any, ...]:
        found = definitions[kind]["properties"][field]
        return found["minimum"], found["maximum"], found["default"]

    assert CONTENT["properties"]["attributes"]["maxProperties"] == schema_file.MAX_ATTRIBUTES
    assert CONTENT["properties"]["units"]["additionalProperties"]["maxProperties"] == schema_file.MAX_UNITS
    assert definitions["values"]["anyOf"][0]["maxItems"] == schema_file.MAX_VALUES
    assert definitions["multi_choice"]["properties"]["values"]["maxItems"] == schema_file.MAX_MULTI_VALUES
    assert definitions["texts"]["maxItems"] == schema_file.MAX_SYNONYMS
    assert definitions["question"]["maxLength"] == schema_file.MAX_QUESTION_CHARS
    assert definitions["pattern"]["properties"]["pattern"]["maxLength"] == MAX_PATTERN_CHARS
    assert limits("text", "max_length") == (1, MAX_TEXT_LENGTH, 40)
    assert limits("integer", "digits") == limits("quantity", "integer_digits") == (1, schema_file.MAX_DIGITS, 6)
    assert limits("quantity", "decimals") == (0, schema_file.MAX_DIGITS, 4)
