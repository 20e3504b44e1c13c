"""Target: schema.yaml, as a dataset or an adapter of strangers brings it."""

import random

from product_vqa.errors import InputError
from product_vqa.task.kinds import LabelError, PatternKind
from product_vqa.task.patterns import Pattern, PatternError
from product_vqa.task.schema_file import format_schema, parse_schema
from tests.fuzz.documents import WORDS, generate_yaml
from tests.fuzz.target import Target, assert_message, assert_one_line, text_of

_LABELS = ("", "5 g", "1.50kg", "red", "RED, blue and red", "AB-12", "yes", "٥ g", "[1, 2] kg", "a" * 200)


def fuzz_schema(data: bytes) -> None:
    """A schema is refused in one line with its number, or is written as it was read and normalizes labels once."""
    try:
        schema = parse_schema(data, name="schema.yaml")
    except InputError as error:
        assert_one_line(error)
        assert_message(error, names="schema.yaml, line ")
        return
    text = format_schema(schema)
    again = parse_schema(text, name="schema.yaml")
    assert again == schema and format_schema(again) == text
    assert not schema.differences(again)
    for attribute in list(schema.attributes.values())[:5]:
        drawn = attribute.kind.pattern.draw(random.Random(0)) if isinstance(attribute.kind, PatternKind) else ""
        for label in (*_LABELS, drawn):
            try:
                answer = attribute.normalize(label)
            except LabelError:
                continue
            assert attribute.normalize(answer) == answer and attribute.is_valid(answer)


def fuzz_pattern(data: bytes) -> None:
    """A pattern is refused in one line, or matches what is drawn from it."""
    try:
        pattern = Pattern(text_of(data))
    except PatternError as error:
        assert_one_line(error)
        return
    for seed in range(3):
        text = pattern.draw(random.Random(seed))
        assert pattern.matches(text) and text == text.strip() and 1 <= len(text) <= pattern.max_chars


_KINDS = (
    "kind: text", "kind: text, max_length: 9", "kind: integer, digits: 3", "kind: integer, signed: true",
    "kind: yes_no, yes: [ja, y]", "kind: choice, values: [red, blue]", "kind: choice, values: {red: [rot], blue: }",
    "kind: multi_choice, values: [red, blue, navy blue]", "kind: pattern, pattern: '[A-Z]{2}-[0-9]{1,3}'",
    "kind: quantity, units: weight", "kind: quantity, units: [g], decimals: 0", "kind: x", "kind: [text]", "",
    "kind: quantity, units: [g, m], signed: true, integer_digits: 15", "kind: pattern, pattern: '(a|b){0,9}a'",
)  # fmt: skip
_MORE = ("", "", "", ", not_shown: true", ", missing_is_not_shown: true", ", question: 'How {name}?'", ", x: 1")
_NAMES = (
    "a",
    "b",
    "colour",
    "net_weight",
    "net weight",
    "image",
    "रंग",
    "'<eos>'",
    "no",
    "é",
    "e\u0301",
    "\u200b",
    "'a/b'",
)
_UNITS = (
    "  weight: {g: {size: 1, spellings: [gram]}, kg: {size: 1000}}\n", "  length: {m: {size: 1}}\n",
    "  weight: {g: {size: 0}}\n", "  x: {µ: {size: 1}, μ: {size: 2}}\n", "  x: {}\n", "  y: {g: {size: 1e9}}\n",
)  # fmt: skip


def _generate(rng: random.Random) -> bytes:
    if rng.random() < 0.1:
        return generate_yaml(rng)
    units = "".join(rng.choice(_UNITS) for _ in range(rng.randrange(3)))
    attributes = "".join(
        f"  {rng.choice(_NAMES)}: {{{rng.choice(_KINDS)}{rng.choice(_MORE)}}}\n" for _ in range(rng.randrange(1, 5))
    )
    return f"version: 1\n{f'units:{chr(10)}{units}' if units else ''}attributes:\n{attributes}".encode()


def _seeds() -> list[bytes]:
    units = f"version: 1\nunits:\n{_UNITS[0]}{_UNITS[1]}attributes:\n"
    return [f"{units}  a: {{{kind}}}\n".encode() for kind in _KINDS] + [b"", b"version: 1\n"]


_ATOMS = (
    "a",
    "B",
    "[a-z]",
    "[A-Z0-9-]",
    "(a|b)",
    "(?:x|yz)",
    "\\.",
    "\\d",
    ".",
    "é",
    " ",
    "[^a]",
    "[z-a]",
    "(",
    ")",
    "|",
)
_COUNTS = ("", "", "", "?", "{2}", "{0,3}", "{1,40}", "{3,}", "*", "+", "{64}", "{2}{2}")


def _generate_pattern(rng: random.Random) -> bytes:
    text = ""
    for _ in range(rng.randrange(1, 9)):
        text += rng.choice(_ATOMS) + rng.choice(_COUNTS)
        if rng.random() < 0.3:
            text = f"({text}){rng.choice(_COUNTS)}"
    return text.encode()


def _pattern_seeds() -> list[bytes]:
    return [
        b"[A-Z]{2}-[0-9]{1,3}",
        b"(a|b){0,9}a(a|b){9}",
        b"(EU|UK) [0-9]{2}(\\.5)?",
        b"",
        b"[a-",
        b"(((a?){4}){4}b){3}",
    ]


TARGETS = [
    Target("schema", fuzz_schema, _seeds, words=(*WORDS, b"kind: ", b"size: ", b"values: "), generate=_generate,
           max_bytes=4000),
    Target("pattern", fuzz_pattern, _pattern_seeds, generate=_generate_pattern, max_bytes=600,
           words=tuple(text.encode() for text in (*_ATOMS, *_COUNTS))),
]  # fmt: skip
