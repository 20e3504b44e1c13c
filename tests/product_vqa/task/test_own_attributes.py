"""docs/own_attributes.md: its examples are schemas, and what it says about labels and answers is so."""

import json
import re

import pytest
import yaml
from jsonschema import Draft202012Validator

from product_vqa.errors import InputError
from product_vqa.task.attributes import Schema
from product_vqa.task.kinds import QuantityKind
from product_vqa.task.schema_file import parse_schema, read_schema
from tests.commands import ROOT

TEXT = (ROOT / "docs/own_attributes.md").read_text()
EXAMPLES = sorted((ROOT / "docs/schemas").glob("*.yaml"))
# Labels as tables have them, of docs/schemas.
LABELS = {
    "nutrition": [
        ("energy", "250 kcal", "250 kilocalorie"), ("fat", "3.50g", "3.5 gram"), ("salt", "120 mg", "120.0 milligram"),
        ("sugars", "10 g", "10.0 gram"), ("net_weight", "0.5kg", "0.5 kilogram"), ("serving_size", "", ""),
        ("serving_size", "30 mL", "30.0 millilitre"),
        ("servings", "12", "12"), ("vegan", "Plant-based", "yes"),
    ],
    "clothes": [
        ("size", "medium", "M"), ("size", "os", "one size"), ("colour", "Dark  Blue", "navy blue"),
        ("material", "Spandex, organic cotton", "cotton, elastane"), ("waist", '32"', "32 inch"), ("waist", "", ""),
        ("brand", " Acme  & Sons ", "Acme & Sons"),
    ],
    "electronics": [
        ("memory", "16GB", "16 gigabyte"), ("storage", "2 TB", "2 terabyte"),
        ("battery", "5000 mAh", "5000.0 milliampere hour"), ("refresh_rate", "144 Hz", "144 hertz"),
        ("cores", "8", "8"), ("bluetooth", "TRUE", "yes"), ("model_number", "XPS-1340A/16", "XPS-1340A/16"),
    ],
}  # fmt: skip


def test_the_examples_are_read_and_name_their_json_schema() -> None:
    assert [file.stem for file in EXAMPLES] == sorted(LABELS)
    validator = Draft202012Validator(json.loads((ROOT / "product_vqa/task/schema.json").read_text()))
    for file in EXAMPLES:
        first, _ = file.read_text().split("\n", 1)
        target = first.removeprefix("# yaml-language-server: $schema=")
        assert (file.parent / target).resolve() == ROOT / "product_vqa/task/schema.json"
        assert list(validator.iter_errors(yaml.safe_load(file.read_text()))) == []
        assert f"(schemas/{file.name})" in TEXT


@pytest.mark.parametrize("name", LABELS)
def test_labels_of_the_examples_are_normalized(name: str) -> None:
    schema = read_schema(ROOT / "docs/schemas" / f"{name}.yaml")
    for attribute, label, answer in LABELS[name]:
        assert schema[attribute].normalize(label) == answer
    assert {attribute for attribute, _, _ in LABELS[name]} == set(schema.names)


def _document() -> Schema:
    (text,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    return parse_schema(text, name="own_attributes.md")


def test_the_documents_schema_is_one() -> None:
    schema = _document()
    assert schema["colour"].question == "Which colour is it?"
    assert schema["storage"].normalize("512GB") == "512 gigabyte" and schema["colour"].normalize("NAVY") == "navy blue"


def test_the_documents_fields_and_defaults_are_those_of_the_format() -> None:
    definitions = json.loads((ROOT / "product_vqa/task/schema.json").read_text())["$defs"]
    kinds = {row[0]: row[3] for row in re.findall(r"^\| `(\w+)` \| (`.*`) \| (`.*`) \| (.*) \|$", TEXT, re.MULTILINE)}
    common = set(re.findall(r"^\| `(\w+)` \| ", TEXT.partition("### Kinds")[0], re.MULTILINE))
    assert set(kinds) == {name for name, one in definitions.items() if "kind" in one.get("properties", {})}
    for kind, described in kinds.items():
        fields = definitions[kind]["properties"]
        named = dict(re.findall(r"`(\w+)`(?: \((\w+)\))?", described))
        assert set(fields) - common <= named.keys(), kind
        defaults = {field: json.dumps(fields[field]["default"]) for field in fields if "default" in fields[field]}
        assert {field: default for field, default in named.items() if default} == defaults, kind


def test_the_documents_labels_and_answers_are_so() -> None:
    text = """
version: 1
units: {weight: {gram: {size: 1}, kilogram: {size: 1000, spellings: [kg]}}}
attributes:
  quantity: {kind: quantity, units: weight}
  integer: {kind: integer}
  choice: {kind: choice, values: {navy blue: [navy], red: }}
  multi_choice: {kind: multi_choice, values: [cotton, wool]}
  yes_no: {kind: yes_no, yes: [y]}
  pattern: {kind: pattern, pattern: '[A-Z]{2}-[0-9]{4}'}
  text: {kind: text}
"""
    schema = parse_schema(text, name="my.yaml")
    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \| `(.*?)` \| ", TEXT, re.MULTILINE)
    assert [kind for kind, _, _ in rows] == list(schema.names)
    for kind, label, answer in rows:
        assert schema[kind].normalize(label) == answer
    assert isinstance(schema["quantity"].kind, QuantityKind)
    assert schema["quantity"].is_same("1.0 kilogram", "1000.0 gram")


def test_the_documents_error_is_what_is_printed() -> None:
    broken = "version: 1\nattributes:\n  colour:\n    kind: choice\n    values:\n"
    broken += "      navy blue:\n        - dark blue\n      blue:\n        - Dark Blue\n"
    with pytest.raises(InputError) as refused:
        parse_schema(broken, name="my.yaml")
    assert str(refused.value) in " ".join(TEXT.split())


def test_the_documents_python_does_what_its_comments_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (program,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict[str, object] = {}
    exec(program, names)
    lines = re.findall(r"^(schema\[.*?)  # (.*)$", program, re.MULTILINE)
    assert len(lines) == 2
    for line, shown in lines:
        assert repr(eval(line, names)) == shown
