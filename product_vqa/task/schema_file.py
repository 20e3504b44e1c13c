"""Read schema.yaml, the attributes of a catalogue: every error names the line and the remedy.

docs/own_attributes.md describes the format, and `schema.json` next to this file describes it to editors.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from product_vqa.documents import read_bytes
from product_vqa.errors import InputError, first_line
from product_vqa.quoting import one_line
from product_vqa.task.attributes import (
    SCHEMA_VERSION,
    Attribute,
    Schema,
    Unit,
    default_question,
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
from product_vqa.task.patterns import Pattern, PatternError
from product_vqa.task.yaml_nodes import MAX_BYTES, Node, compose

SCHEMA_FILE = "schema.yaml"  # in a dataset or adapter repo
MAX_ATTRIBUTES = 200
MAX_UNITS = 500  # of a dimension
MAX_VALUES = 1000  # of a choice
MAX_MULTI_VALUES = 64
MAX_NAME_CHARS = 64
MAX_QUESTION_CHARS = 200
MAX_DIGITS = 15
_RESERVED = ("index", "image", "image_link", "group_id", "entity_name", "entity_value", "entity_value_raw", "split")
_TAG = re.compile(r"<[^<>\s]{1,20}>")  # `<image>`, `<eos>`: a tokenizer may read it as a token of its own
_SCRIPTS = ("LATIN", "CYRILLIC", "GREEK")  # whose letters look alike
_COMMON_FIELDS = ("kind", "question", "not_shown", "missing_is_not_shown")


def read_schema(file: str | Path) -> Schema:
    """Read a schema. Raises InputError with the file, the line, what is wrong and the remedy."""
    try:
        content = read_bytes(file, max_bytes=MAX_BYTES)
    except OSError as error:
        raise InputError(f"{file}: cannot be read as a schema ({error.strerror or first_line(error)})") from error
    return parse_schema(content, name=str(file))


def parse_schema(content: str | bytes, *, name: str) -> Schema:
    """Parse the text of a schema; `name` is that of its file, for errors."""
    root = compose(content, name=name)
    fields = root.fields(expected="`version`, `units` and `attributes`")
    root.check_fields(fields, allowed=("version", "units", "attributes"), required=("version", "attributes"))
    version = fields["version"]
    if version.text() != str(SCHEMA_VERSION):
        raise version.fail(
            f"{one_line(version.text(), max_length=50)!r} is not a version that is known",
            f"write {SCHEMA_VERSION}, or update product-vqa if a newer one wrote this file",
        )
    dimensions = _read_dimensions(fields["units"]) if "units" in fields else {}
    return Schema(_read_attributes(fields["attributes"], dimensions), dimensions)


def format_schema(schema: Schema) -> str:
    """The text of a schema, which `parse_schema` reads as the same schema."""
    return yaml.dump(_quoted(schema.describe()), allow_unicode=True, sort_keys=False, width=100, Dumper=_Dumper)


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _quoted(value: Any) -> Any:
    """A copy without tuples and the like, which YAML would tag."""
    if isinstance(value, Mapping):
        return {str(key): _quoted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_quoted(item) for item in value]
    return value


def _check_text(node: Node, text: str, *, what: str, max_chars: int) -> str:
    """Check a text that is asked, answered or printed."""
    if not text or text != " ".join(text.split()):
        raise node.fail(f"{what} {text[:80]!r} is empty or has spaces to spare", "write it with single spaces")
    if len(text) > max_chars:
        raise node.fail(f"{what} has {len(text)} characters, more than {max_chars}", "shorten it")
    if not text.isprintable():
        raise node.fail(f"{what} {text[:80]!a} has a character that cannot be printed", "remove it")
    if text != unicodedata.normalize("NFC", text):
        raise node.fail(f"{what} {text!r} has combining characters", "write it in composed form (NFC)")
    if _TAG.search(text):
        raise node.fail(f"{what} {text!r} looks like a token of the model", "write it without < and >")
    scripts = {script for char in text if char.isalpha() for script in _SCRIPTS
               if unicodedata.name(char, "").startswith(script)}  # fmt: skip
    words = text.replace("_", " ").split()
    if len(scripts) > 1 and any(len(_scripts_of(word)) > 1 for word in words):
        raise node.fail(
            f"{what} {text!r} mixes {' and '.join(sorted(one.title() for one in scripts))} letters in a word",
            "type it again in one script",
        )
    return text


def _scripts_of(word: str) -> set[str]:
    names = [unicodedata.name(char, "") for char in word if char.isalpha() and char not in "µμΩΩ"]
    return {script for script in _SCRIPTS if any(name.startswith(script) for name in names)}


def _read_dimensions(node: Node) -> dict[str, dict[str, Unit]]:
    dimensions = {}
    meanings: dict[str, str] = {}  # spelling -> unit
    for dimension, units_node in node.fields(expected="dimensions, such as `weight:`").items():
        _check_text(units_node, dimension, what="the dimension", max_chars=MAX_NAME_CHARS)
        units = {}
        described = units_node.fields(expected="units, such as `gram: {size: 1, spellings: [g]}`")
        if not 1 <= len(described) <= MAX_UNITS:
            raise units_node.fail(f"{len(described)} units", f"write 1 to {MAX_UNITS}")
        for name, unit_node in described.items():
            unit = _read_unit(unit_node, name)
            for text in (name, *unit.spellings):
                if text in meanings:
                    raise unit_node.fail(
                        f"{text!r} means {meanings[text]} already", "remove it from one of the two units"
                    )
                meanings[text] = name
            units[name] = unit
        dimensions[dimension] = units
    return dimensions


def _read_unit(node: Node, name: str) -> Unit:
    _check_text(node, name, what="the unit", max_chars=MAX_NAME_CHARS)
    fields = node.fields(expected="`size`, and perhaps `spellings`")
    node.check_fields(fields, allowed=("size", "spellings"), required=("size",))
    size = fields["size"].text()
    if not re.fullmatch(r"[0-9]{1,20}(\.[0-9]{1,20})?", size) or Decimal(size) == 0:
        raise fields["size"].fail(
            f"size {one_line(size, max_length=50)!r}", "write how many of the unit of size 1 it is: 1000, or 0.001"
        )
    texts = []
    for item in fields["spellings"].items(expected="a list of texts") if "spellings" in fields else []:
        text = _check_text(item, item.text(), what="the spelling", max_chars=MAX_NAME_CHARS)
        if text == name or text in texts:
            raise item.fail(f"{text!r} occurs twice", "remove one of them")
        texts.append(text)
    for text in (name, *texts):
        if text[0] in "0123456789.,-+":
            raise node.fail(f"{text!r} begins like a number", "begin a unit with another character")
    return Unit(Decimal(size), tuple(texts))


def _read_attributes(node: Node, dimensions: Mapping[str, Mapping[str, Unit]]) -> dict[str, Attribute]:
    fields = node.fields(expected="attributes, such as `colour:`")
    if not 1 <= len(fields) <= MAX_ATTRIBUTES:
        raise node.fail(f"{len(fields)} attributes", f"write 1 to {MAX_ATTRIBUTES}")
    attributes: dict[str, Attribute] = {}
    keys: dict[str, str] = {}
    questions: dict[str, str] = {}
    for name, attribute_node in fields.items():
        _check_name(attribute_node, name)
        if (key := key_of(name.replace("_", " "))) in keys:
            raise attribute_node.fail(f"{name!r} and {keys[key]!r} are the same but for case or spaces", "rename one")
        attribute = _read_attribute(attribute_node, name, dimensions)
        if attribute.question in questions:
            raise attribute_node.fail(
                f"it has the question of {questions[attribute.question]}", "give each attribute a question of its own"
            )
        keys[key], questions[attribute.question], attributes[name] = name, name, attribute
    return attributes


def _check_name(node: Node, name: str) -> None:
    _check_text(node, name, what="the name", max_chars=MAX_NAME_CHARS)
    if name.lower() in (*_RESERVED, *SPLITS):
        raise node.fail(f"{name!r} is a name of the dataset itself", "rename the attribute")
    if found := re.search(r"[^\w .()%/°-]", name):
        raise node.fail(f"the name has {found[0]!r}", "use letters, digits, spaces and _ . - ( ) % /")
    if not any(char.isalpha() for char in name):
        raise node.fail(f"the name {name!r} has no letter", "name the attribute by a word")
    if name.startswith("-"):
        raise node.fail(f"the name {name!r} begins with -", "begin it with a letter")


def _read_attribute(node: Node, name: str, dimensions: Mapping[str, Mapping[str, Unit]]) -> Attribute:
    fields = node.fields(expected="its fields, such as `kind: choice`")
    if "kind" not in fields:
        raise node.fail("`kind` is missing", f"add `kind:` with one of {', '.join(_READERS)}")
    kind_name = fields["kind"].text()
    if kind_name not in _READERS:
        raise fields["kind"].fail(
            f"unknown kind {one_line(repr(kind_name), max_length=50)}", f"use one of {', '.join(_READERS)}"
        )
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
    text = _check_text(node, node.text(), what="the question", max_chars=MAX_QUESTION_CHARS)
    question = text.replace("{name}", name.replace("_", " "))
    if found := re.search(r"[{}]", question):
        raise node.fail(f"{found[0]!r} in the question", "only {name} is filled in; remove other braces")
    return question


_Fields = Mapping[str, Node]
_Dimensions = Mapping[str, Mapping[str, Unit]]


def _read_quantity(node: Node, fields: _Fields, dimensions: _Dimensions) -> Kind:
    units_node = fields["units"]
    if isinstance(units_node.node, yaml.ScalarNode):
        dimension = units_node.text()
        if dimension not in dimensions:
            raise units_node.fail(
                f"{one_line(dimension, max_length=50)!r} is no dimension of `units`",
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
            raise item.fail(f"{one_line(unit, max_length=50)!r} is no unit of `units`", "add it there")
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
    values = _read_values(fields["values"], most=MAX_MULTI_VALUES)
    for text in (text for value, synonyms in values.items() for text in (value, *synonyms)):
        if re.search(r"[,;/|&+]|\band\b", text):
            raise fields["values"].fail(
                f"{text!r} has a separator of several values ({SEPARATOR.strip()} ; / | & + and)", "rename it"
            )
    return MultiChoiceKind(values)


def _read_yes_no(node: Node, fields: _Fields, dimensions: _Dimensions) -> Kind:
    values = {value: _read_synonyms(fields[value]) if value in fields else () for value in ("yes", "no")}
    _check_meanings(node, values)
    return ChoiceKind(values, name="yes_no")


def _read_pattern(node: Node, fields: _Fields, dimensions: _Dimensions) -> Kind:
    try:
        return PatternKind(Pattern(fields["pattern"].text()))
    except PatternError as error:
        raise InputError(f"{node.file}, line {fields['pattern'].line}: {fields['pattern'].path}: {error}") from error


def _read_text(node: Node, fields: _Fields, dimensions: _Dimensions) -> Kind:
    if "max_length" not in fields:
        return TextKind()
    return TextKind(fields["max_length"].integer(least=1, most=MAX_TEXT_LENGTH))


def _read_values(node: Node, *, most: int) -> dict[str, tuple[str, ...]]:
    values: dict[str, tuple[str, ...]] = {}
    for text, item, synonyms in _each_value(node):
        value = _check_text(item, text, what="the value", max_chars=MAX_NAME_CHARS)
        if value in values:
            raise item.fail(f"the value {value!r} occurs twice", "remove one of them")
        values[value] = synonyms
    if not 2 <= len(values) <= most:
        raise node.fail(f"{len(values)} values", f"write 2 to {most}")
    _check_meanings(node, values)
    return values


def _each_value(node: Node) -> Iterator[tuple[str, Node, tuple[str, ...]]]:
    if isinstance(node.node, yaml.SequenceNode):
        for item in node.items(expected="values"):
            yield item.text(), item, ()
    else:
        for name, item in node.fields(expected="a list of values, or each with a list of its synonyms").items():
            is_empty = isinstance(item.node, yaml.ScalarNode) and item.node.value in ("", "null", "~")
            yield name, item, () if is_empty else _read_synonyms(item)


def _read_synonyms(node: Node) -> tuple[str, ...]:
    return tuple(
        _check_text(item, item.text(), what="the synonym", max_chars=MAX_NAME_CHARS)
        for item in node.items(expected="a list of synonyms")
    )


def _check_meanings(node: Node, values: Mapping[str, tuple[str, ...]]) -> None:
    meanings: dict[str, str] = {}
    for value, synonyms in values.items():
        for text in (value, *synonyms):
            if (other := meanings.setdefault(key_of(text), value)) != value:
                raise node.fail(
                    f"{text!r} means {other!r} and {value!r}; case and spaces do not count",
                    "remove it from one of the two",
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
