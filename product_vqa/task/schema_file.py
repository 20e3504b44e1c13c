"""Read schema.yaml, the attributes of a catalogue: every error names the line and the remedy.

docs/own_attributes.md describes the format, and `schema.json` next to this file describes it to editors.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from product_vqa.documents import read_bytes
from product_vqa.errors import InputError, first_line
from product_vqa.task.attributes import (
    SCHEMA_VERSION,
    Attribute,
    Schema,
    Unit,
    default_question,
    format_size,
    spellings,
)
from product_vqa.task.columns import SPLITS
from product_vqa.task.kinds import (
    MAX_TEXT_LENGTH,
    SEPARATOR,
    ChoiceKind,
    IntegerKind,
    Kind,
    MultiChoiceKind,
    PatternKind,
    QuantityKind,
    TextKind,
    key_of,
)
from product_vqa.task.patterns import MAX_COST, Pattern, PatternError
from product_vqa.task.texts import is_mark, text_problem
from product_vqa.task.yaml_nodes import MAX_BYTES, Node, compose, quoted

SCHEMA_FILE = "schema.yaml"  # in a dataset or adapter repo
MAX_ATTRIBUTES = 200
MAX_UNITS = 500  # of all dimensions
MAX_SYNONYMS = 100  # of a value; spellings of a unit
MAX_VALUES = 1000  # of a choice
MAX_MULTI_VALUES = 64
MAX_NAME_CHARS = 64
MAX_QUESTION_CHARS = 200
MAX_DIGITS = 15
_RESERVED = ("index", "image", "image_link", "group_id", "entity_name", "entity_value", "entity_value_raw", "split")
_COMMON_FIELDS = ("kind", "question", "not_shown", "missing_is_not_shown")


def read_schema(file: str | Path) -> Schema:
    """Read a schema. Raises InputError with the file, the line, what is wrong and the remedy."""
    try:
        content = read_bytes(file, max_bytes=MAX_BYTES)
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise InputError(f"{file} cannot be read as a schema ({reason}); name a YAML file") from error
    return parse_schema(content, name=str(file))


def parse_schema(content: str | bytes, *, name: str) -> Schema:
    """Parse the text of a schema; `name` is that of its file, for errors."""
    root = compose(content, name=name)
    fields = root.fields(expected="`version`, `units` and `attributes`")
    root.check_fields(fields, allowed=("version", "units", "attributes"), required=("version", "attributes"))
    version = fields["version"]
    if version.text() != str(SCHEMA_VERSION):
        raise version.fail(
            f"{quoted(version.text())} is not a version that is known",
            f"write {SCHEMA_VERSION}, or update product-vqa if a newer one wrote this file",
        )
    dimensions = _read_dimensions(fields["units"]) if "units" in fields else {}
    return Schema(_read_attributes(fields["attributes"], dimensions), dimensions)


def format_schema(schema: Schema) -> str:
    """The text of a schema, which `parse_schema` reads as the same schema."""
    return yaml.dump(
        _with_sizes(schema.describe()),
        Dumper=_Dumper,
        default_flow_style=None,
        allow_unicode=True,
        sort_keys=False,
        width=100,
    )


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _Size(str):
    """A size, which is written without quotes."""


_Dumper.add_representer(
    _Size, lambda dumper, size: dumper.represent_scalar(f"tag:yaml.org,2002:{'float' if '.' in size else 'int'}", size)
)


def _with_sizes(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _Size(item) if key == "size" and isinstance(item, str) else _with_sizes(item)
                for key, item in value.items()}  # fmt: skip
    return value


def _check_text(node: Node, text: str, *, what: str, max_chars: int) -> str:
    """Check a text that is asked, answered or printed."""
    if problem := text_problem(text, max_chars=max_chars):
        shown = f" {quoted(text)}" if text else ""
        raise node.fail(f"{what}{shown} {problem[0]}", problem[1])
    return text


def _read_dimensions(node: Node) -> dict[str, dict[str, Unit]]:
    dimensions = {}
    meanings: dict[str, str] = {}  # spelling -> unit
    for dimension, units_node in node.fields(expected="dimensions, such as `weight:`").items():
        _check_text(units_node, dimension, what="the dimension", max_chars=MAX_NAME_CHARS)
        described = units_node.fields(expected="units, such as `gram: {size: 1, spellings: [g]}`")
        if not described:
            raise units_node.fail("0 units", "write at least one, or remove the dimension")
        dimensions[dimension] = {name: _read_unit(unit_node, name, meanings) for name, unit_node in described.items()}
        if sum(map(len, dimensions.values())) > MAX_UNITS:
            raise units_node.fail(f"more than {MAX_UNITS} units in the file", "remove those that no label has")
    return dimensions


def _read_unit(node: Node, name: str, meanings: dict[str, str]) -> Unit:
    """Read a unit, and add its spellings to `meanings`."""
    _check_spelling(node, name, name, meanings, what="the unit")
    fields = node.fields(expected="`size`, and perhaps `spellings`")
    node.check_fields(fields, allowed=("size", "spellings"), required=("size",))
    size = fields["size"].text()
    if not re.fullmatch(r"[0-9]{1,20}(\.[0-9]{1,20})?", size) or Decimal(size) == 0:
        raise fields["size"].fail(
            f"size {quoted(size)}", "write how many of the unit of size 1 it is: 1000, or 0.001, without an exponent"
        )
    texts: list[str] = []
    for item in fields["spellings"].items(expected="a list of texts") if "spellings" in fields else []:
        text = item.text()
        if text == name or text in texts:
            raise item.fail(f"{quoted(text)} occurs twice", "remove one of them")
        _check_spelling(item, text, name, meanings, what="the spelling")
        texts.append(text)
    if len(texts) > MAX_SYNONYMS:
        raise fields["spellings"].fail(f"{len(texts)} spellings", f"write at most {MAX_SYNONYMS}")
    return Unit(Decimal(format_size(Decimal(size))), tuple(texts))


def _check_spelling(node: Node, text: str, unit: str, meanings: dict[str, str], *, what: str) -> None:
    _check_text(node, text, what=what, max_chars=MAX_NAME_CHARS)
    if text[0] in "0123456789.,-+":
        raise node.fail(f"{what} {quoted(text)} begins like a number", "begin a unit with another character")
    key = unicodedata.normalize("NFKC", text)  # case counts (mW, MW), but not which of two signs means micro
    other = meanings.get(key)
    if other is not None and (other != unit or text == unit):
        raise node.fail(f"{quoted(text)} means {other} already", "remove it from one of the two units")
    meanings[key] = unit


def _read_attributes(node: Node, dimensions: Mapping[str, Mapping[str, Unit]]) -> dict[str, Attribute]:
    fields = node.fields(expected="attributes, such as `colour:`")
    if not 1 <= len(fields) <= MAX_ATTRIBUTES:
        raise node.fail(f"{len(fields)} attributes", f"write 1 to {MAX_ATTRIBUTES}")
    attributes: dict[str, Attribute] = {}
    keys: dict[str, str] = {}
    questions: dict[str, str] = {}
    cost = 0  # of all patterns
    for name, attribute_node in fields.items():
        _check_name(attribute_node, name)
        if (key := key_of(name.replace("_", " "))) in keys:
            raise attribute_node.fail(f"{name!r} and {keys[key]!r} are the same but for case or spaces", "rename one")
        attribute = _read_attribute(attribute_node, name, dimensions)
        if (asked := key_of(attribute.question)) in questions:
            raise fields[name].fail(
                f"it has the question of {questions[asked]}", "give each attribute a question of its own"
            )
        if isinstance(attribute.kind, PatternKind) and (cost := cost + attribute.kind.pattern.cost) > 5 * MAX_COST:
            raise attribute_node.fail("the patterns up to this one take too long", "simplify them")
        keys[key], questions[asked], attributes[name] = name, name, attribute
    return attributes


def _check_name(node: Node, name: str) -> None:
    _check_text(node, name, what="the name", max_chars=MAX_NAME_CHARS)
    if key_of(name).replace(" ", "_") in (*_RESERVED, *SPLITS):
        raise node.fail(f"{name!r} is a name of the dataset itself", "rename the attribute")
    for char in name:
        if not char.isalnum() and not is_mark(char) and char not in " _.()%/°-":
            raise node.fail(f"the name {name!r} has {char!r}", "use letters, digits, spaces and _ . - ( ) % / °")
    if not any(char.isalpha() for char in name):
        raise node.fail(f"the name {name!r} has no letter", "name the attribute by a word")
    if not name[0].isalnum():
        raise node.fail(f"the name {name!r} begins with {name[0]!r}", "begin it with a letter")


def _read_attribute(node: Node, name: str, dimensions: Mapping[str, Mapping[str, Unit]]) -> Attribute:
    fields = node.fields(expected="its fields, such as `kind: choice`")
    if "kind" not in fields:
        raise node.fail("`kind` is missing", f"add `kind:` with one of {', '.join(_READERS)}")
    kind_name = fields["kind"].text()
    if kind_name not in _READERS:
        raise fields["kind"].fail(f"unknown kind {quoted(kind_name)}", f"use one of {', '.join(_READERS)}")
    allowed, required, read = _READERS[kind_name]
    node.check_fields(fields, allowed=(*_COMMON_FIELDS, *required, *allowed), required=required)
    kind = read(node, fields, dimensions)
    not_shown = "not_shown" in fields and fields["not_shown"].is_true()
    missing = "missing_is_not_shown" in fields and fields["missing_is_not_shown"].is_true()
    if missing and not not_shown:
        raise fields["missing_is_not_shown"].fail("it needs `not_shown: true`", "add that, or remove this")
    return Attribute(name, _read_question(fields.get("question"), name), kind, not_shown, missing)


def _read_question(node: Node | None, name: str) -> str:
    if node is None:
        return default_question(name)
    text = node.text()
    if found := re.search(r"[{}]", text.replace("{name}", "")):
        raise node.fail(f"{found[0]!r} in the question", "only {name} is replaced; remove other braces")
    question = text[: MAX_QUESTION_CHARS + 1].replace("{name}", name.replace("_", " "))
    return _check_text(node, question, what="the question", max_chars=MAX_QUESTION_CHARS)


_Fields = Mapping[str, Node]
_Dimensions = Mapping[str, Mapping[str, Unit]]


def _read_quantity(node: Node, fields: _Fields, dimensions: _Dimensions) -> Kind:
    units_node = fields["units"]
    if isinstance(units_node.node, yaml.ScalarNode):
        dimension = units_node.text()
        if dimension not in dimensions:
            raise units_node.fail(
                f"{quoted(dimension)} is not a dimension of `units`",
                f"use one of {', '.join(dimensions)}" if dimensions else "add `units:` with its units to the file",
            )
        units = tuple(dimensions[dimension])
    else:
        dimension, units = _read_some_units(units_node, dimensions)
    return QuantityKind(
        dimension,
        units,
        sizes={name: unit.size for name, unit in dimensions[dimension].items()},
        unit_by_spelling=spellings(dimensions),
        decimals=_digits(fields, "decimals", default=4, least=0),
        integer_digits=_digits(fields, "integer_digits", default=6),
        signed=_flag(fields, "signed"),
        space_required=_flag(fields, "space_required"),
    )


def _read_some_units(node: Node, dimensions: _Dimensions) -> tuple[str, tuple[str, ...]]:
    units: list[str] = []
    found: dict[str, str] = {}  # dimension -> the first unit of it
    for item in node.items(expected="a dimension or a list of units"):
        unit = item.text()
        dimension = next((name for name, known in dimensions.items() if unit in known), None)
        if dimension is None:
            raise item.fail(f"{quoted(unit)} is not a unit of `units`", "add it there")
        if unit in units:
            raise item.fail(f"{unit!r} occurs twice", "remove one of them")
        units.append(unit)
        found.setdefault(dimension, unit)
    if len(found) != 1:
        shown = " and ".join(f"{unit} ({dimension})" for dimension, unit in found.items()) or "no unit"
        raise node.fail(f"{shown}", "name units of one dimension, which convert into each other")
    return next(iter(found)), tuple(units)


def _digits(fields: _Fields, name: str, *, default: int, least: int = 1) -> int:
    return fields[name].integer(least=least, most=MAX_DIGITS) if name in fields else default


def _flag(fields: _Fields, name: str) -> bool:
    return name in fields and fields[name].is_true()


def _read_integer(node: Node, fields: _Fields, dimensions: _Dimensions) -> Kind:
    return IntegerKind(_digits(fields, "digits", default=6), signed=_flag(fields, "signed"))


def _read_choice(node: Node, fields: _Fields, dimensions: _Dimensions) -> Kind:
    return ChoiceKind(_read_values(fields["values"], most=MAX_VALUES))


def _read_multi_choice(node: Node, fields: _Fields, dimensions: _Dimensions) -> Kind:
    return MultiChoiceKind(_read_values(fields["values"], most=MAX_MULTI_VALUES, is_multi=True))


def _read_yes_no(node: Node, fields: _Fields, dimensions: _Dimensions) -> Kind:
    meanings = {"yes": "yes", "no": "no"}
    yes, no = (_read_synonyms(fields[value], value, meanings) if value in fields else () for value in ("yes", "no"))
    return ChoiceKind({"yes": yes, "no": no}, name="yes_no")


def _read_pattern(node: Node, fields: _Fields, dimensions: _Dimensions) -> Kind:
    try:
        return PatternKind(Pattern(fields["pattern"].text()))
    except PatternError as error:
        raise InputError(f"{node.file}, line {fields['pattern'].line}: {fields['pattern'].path}: {error}") from error


def _read_text(node: Node, fields: _Fields, dimensions: _Dimensions) -> Kind:
    if "max_length" not in fields:
        return TextKind()
    return TextKind(fields["max_length"].integer(least=1, most=MAX_TEXT_LENGTH))


def _read_values(node: Node, *, most: int, is_multi: bool = False) -> dict[str, tuple[str, ...]]:
    """Read a list of values, or a mapping of values to their synonyms."""
    if isinstance(node.node, yaml.SequenceNode):
        nodes = [(item.text(), item) for item in node.items(expected="values")]
    else:
        nodes = list(node.fields(expected="a list of values, or each with a list of its synonyms").items())
    if not 2 <= len(nodes) <= most:
        raise node.fail(f"{len(nodes)} values", f"write 2 to {most}")
    meanings: dict[str, str] = {}  # key of a text -> value
    values: dict[str, tuple[str, ...]] = {}
    for value, item in nodes:
        _check_value(item, value, value, meanings, what="the value", is_multi=is_multi)
        if value in values:
            raise item.fail(f"the value {value!r} occurs twice", "remove one of them")
        values[value] = ()
    for value, item in nodes:
        is_alone = isinstance(item.node, yaml.ScalarNode) and (
            isinstance(node.node, yaml.SequenceNode) or item.node.value in ("", "null", "~")
        )
        if not is_alone:
            values[value] = _read_synonyms(item, value, meanings, is_multi=is_multi)
    return values


def _read_synonyms(node: Node, value: str, meanings: dict[str, str], *, is_multi: bool = False) -> tuple[str, ...]:
    texts = []
    for item in node.items(expected="a list of synonyms"):
        _check_value(item, item.text(), value, meanings, what="the synonym", is_multi=is_multi)
        texts.append(item.text())
    if len(texts) > MAX_SYNONYMS:
        raise node.fail(f"{len(texts)} synonyms", f"write at most {MAX_SYNONYMS}")
    return tuple(texts)


def _check_value(
    node: Node, text: str, value: str, meanings: dict[str, str], *, what: str, is_multi: bool = False
) -> None:
    """Check a value or a synonym of it, and add it to `meanings`."""
    _check_text(node, text, what=what, max_chars=MAX_NAME_CHARS)
    if (other := meanings.setdefault(key_of(text), value)) != value:
        raise node.fail(
            f"{text!r} means {other!r} and {value!r}; case and spaces do not count", "remove it from one of the two"
        )
    if text.lower() == "nan":
        raise node.fail(f"{what} {text!r} is how tables write a missing value", "rename it")
    if is_multi and re.search(r"[,;/|&+]|\band\b", text, re.IGNORECASE):
        raise node.fail(
            f"{what} {text!r} has a separator of several values ({SEPARATOR.strip()} ; / | & + and)", "rename it"
        )


# Kind -> fields that it may have, fields that it must have, and what reads it.
_READERS: dict[str, tuple[tuple[str, ...], tuple[str, ...], Callable[[Node, _Fields, _Dimensions], Kind]]] = {
    "quantity": (("decimals", "integer_digits", "signed", "space_required"), ("units",), _read_quantity),
    "integer": (("digits", "signed"), (), _read_integer),
    "choice": ((), ("values",), _read_choice),
    "multi_choice": ((), ("values",), _read_multi_choice),
    "yes_no": (("yes", "no"), (), _read_yes_no),
    "pattern": ((), ("pattern",), _read_pattern),
    "text": (("max_length",), (), _read_text),
}
