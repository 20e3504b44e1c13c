"""Limits of JSON and YAML that strangers wrote: each document ends in its content or in one line, and at once."""

import contextlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from product_vqa import documents
from product_vqa.documents import (
    DocumentError,
    parse_front_matter,
    parse_json,
    parse_yaml,
    read_bytes,
    read_json,
    read_yaml,
)

BILLION = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]\n" for a, b in zip("abcdefghijklmno", "bcdefghijklmnop", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{b}: &{b} {{<<: [*{a}, *{a}, *{a}, *{a}]}}\n" for a, b in zip("abcdefghijklmno", "bcdefghijklmnop", strict=True)
)

HOSTILE_YAML = {
    BILLION: "more than 200000 values, with aliases expanded",
    MERGES: "more than 200000 values",
    "a: &a [*a]": r"alias \*a is recursive",
    "a: *none": r"alias \*none is recursive or names no anchor",
    "[" * 5000: "nesting|deeper",
    "[" * 200 + "]" * 200: "nested deeper than 100 levels",
    "- " * 5000: "nesting|deeper",
    "a: 1" + ":1" * 100_000: "a number of 200001 characters",
    "a: " + "9" * 100_000: "a number of 100000 characters",
    "a: 0x" + "f" * 5000: "a number of 5002 characters",
    "!!int " + "9" * 100_000: "a number of 100000 characters",
    "a: !!python/object/apply:os.system [id]": "could not determine a constructor",
    "a: 2026-13-45": "month must be in",
    "? [a]\n: b": "unhashable",
    "!!float": "not YAML: string index out of range",
    "!!timestamp x": "not YAML",
    "? 2026-11-26\n: b": "a key that JSON does not have: date",
    "? 2026-11-26 12:00:00\n: b": "a key that JSON does not have: datetime",
    "a: {!!binary aGk=: b}": "a key that JSON does not have: bytes",
    "a: .nan": "nan is not a JSON value",
    "a: -.inf": "-inf is not a JSON value",
    "a: b: c": "not YAML: mapping values are not allowed",
    "a: 1\n---\nb: 2": "expected a single document",
    '"\\ud800"': "surrogate|not YAML",
    "a: \x07": "not YAML|special characters",
    "{" + ",".join(f"{number * (2**61 - 1)}: 1" for number in range(60_000)) + "}": "digits as a key, more than 18",
    "a: {<<: {9999999999999999999: 1}}": "a number of 19 digits as a key",
    "%YAML 9.9\n---\na": "not YAML",
    "&": "not YAML",
}
HOSTILE_JSON = {
    "[" * 100_000: "nested deeper than 100 levels",
    '{"a":' * 200 + "1" + "}" * 200: "nested deeper than 100 levels",
    "9" * 100_000: "a number of 100000 digits",
    "[NaN]": "NaN is not a JSON value",
    "[-Infinity]": "-Infinity is not a JSON value",
    "[1e999]": "inf is not a JSON value",
    '"\\ud800"': "lone surrogate",
    '{"\\udfff": 1}': "lone surrogate",
    "": "not JSON: Expecting value",
    "{'a': 1}": "not JSON",
    "[1] [2]": "not JSON: Extra data",
}


@pytest.mark.parametrize("text", HOSTILE_YAML, ids=[text[:30] for text in HOSTILE_YAML])
def test_hostile_yaml_is_one_line(text: str) -> None:
    with pytest.raises(DocumentError, match=HOSTILE_YAML[text]) as raised:
        parse_yaml(text)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("text", HOSTILE_JSON, ids=[text[:30] for text in HOSTILE_JSON])
def test_hostile_json_is_one_line(text: str) -> None:
    with pytest.raises(DocumentError, match=HOSTILE_JSON[text]) as raised:
        parse_json(text)
    assert "\n" not in str(raised.value)


def test_anchors_within_the_limits_are_expanded() -> None:
    assert parse_yaml("a: &a [1, 2]\nb: *a\nc: {<<: &d {x: 1}, y: 2}\ne: *d") == {
        "a": [1, 2],
        "b": [1, 2],
        "c": {"x": 1, "y": 2},
        "e": {"x": 1},
    }


def test_long_text_that_is_not_a_number_is_kept() -> None:
    long = "1st " + "word " * 1000
    assert parse_yaml(yaml.safe_dump({"a": long, "b": "9" * 2000}))["a"] == long
    assert parse_json(json.dumps({"a": "9" * 5000})) == {"a": "9" * 5000}


# PyYAML writes the other line breaks of Unicode as they are, and reads them as spaces.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x85\u2028\u2029"))
SCALARS = st.none() | st.booleans() | st.integers(-(10**18), 10**18) | TEXT
VALUES = st.recursive(
    SCALARS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_what_json_and_yaml_write_is_read_back(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value
    assert parse_yaml(yaml.safe_dump(value, allow_unicode=True)) == value


@given(st.text() | st.text("[]{}&*:-<! \n0123456789ab'\"|>?%@`#,.", max_size=60) | st.binary())
def test_any_text_is_a_document_or_a_document_error(text: str | bytes) -> None:
    for parse in (parse_json, parse_yaml, parse_front_matter):
        with contextlib.suppress(DocumentError):
            json.dumps(parse(text), default=str, skipkeys=True).encode()


def test_the_limits_themselves_are_allowed(tmp_path: Path) -> None:
    assert (documents.MAX_BYTES, documents.MAX_DEPTH, documents.MAX_NODES, documents.MAX_DIGITS) == (
        8 * 2**20, 100, 200_000, 1000,
    )  # fmt: skip
    file = tmp_path / "file"
    for parse, read in ((parse_json, read_json), (parse_yaml, read_yaml)):
        assert parse("[]", max_bytes=2) == []
        with pytest.raises(DocumentError, match=r"^3 bytes, more than 2$"):
            parse("[ ]", max_bytes=2)
        file.write_text("[]")
        assert read(file, max_bytes=2) == []
        file.write_text("[ ]")
        with pytest.raises(OSError, match=f"^\\[Errno 0] 3 bytes, more than 2: '{file}'$"):
            read(file, max_bytes=2)
        deep = "[" * 99 + "1" + "]" * 99  # 99 lists and a number
        assert parse(deep) and parse("[" * 100 + "]" * 100)
        with pytest.raises(DocumentError, match=r"^nested deeper than 100 levels$"):
            parse(f"[{deep}]")
    assert parse_json("9" * 1000) == parse_yaml("9" * 1000) == int("9" * 1000)
    with pytest.raises(DocumentError, match=r"^a number of 1001 digits, more than 1000$"):
        parse_json("9" * 1001)
    with pytest.raises(DocumentError, match=r"^a number of 1001 characters, more than 1000$"):
        parse_yaml("9" * 1001)
    with pytest.raises(DocumentError, match=r"^17 bytes, more than 16$"):
        parse_front_matter("---\nabcdef: 1\n---", max_bytes=16)
    assert parse_front_matter("---\nabcdef: 1\n---", max_bytes=17) == {"abcdef": 1}


@pytest.mark.slow
def test_a_larger_limit_holds_for_reading_and_parsing(tmp_path: Path) -> None:
    text = f'"{"x" * (9 * 2**20)}"'
    file = tmp_path / "file"
    file.write_text(text)
    for read in (read_json, read_yaml):
        with pytest.raises(OSError, match="more than 8388608"):
            read(file)
        assert len(read(file, max_bytes=10 * 2**20)) == 9 * 2**20
    card = f"---\na: {text}\n---\n"
    with pytest.raises(DocumentError, match="more than 8388608"):
        parse_front_matter(card)
    assert len(parse_front_matter(card, max_bytes=10 * 2**20)["a"]) == 9 * 2**20


def test_values_are_counted_with_aliases_expanded() -> None:
    """Each line has its key, the list and ten values, or its key and what the alias expands to; two for the whole."""
    ten = "a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9, &b 10]\n"  # 1 + 12, and `*a` is 11
    hundred = f"{ten}c: &c [{', '.join(['*a'] * 10)}]\n"  # and `*c` is 111
    thousand = f"{hundred}d: &d [{', '.join(['*c'] * 10)}]\n"  # and `*d` is 1111
    rest = "e: [{}]\n"
    # 1 + 12 + 112 + 1112 = 1237; `e` and its list are 2, 178 times *d 197,758, 9 times *c 999, and 4 values are left.
    full = thousand + rest.format(", ".join(["*d"] * 178 + ["*c"] * 9 + ["*b"] * 4))
    assert len(parse_yaml(full)["e"]) == 191
    with pytest.raises(DocumentError, match=r"^more than 200000 values, with aliases expanded$"):
        parse_yaml(full + "f: 1\n")


def test_a_long_name_in_an_error_is_shortened() -> None:
    with pytest.raises(DocumentError, match=rf"^alias \*{'n' * 50} is recursive or names no anchor$"):
        parse_yaml(f"a: *{'n' * 60}")
    with pytest.raises(DocumentError) as raised:
        parse_yaml("a: !" + "n" * 500 + " b")
    assert str(raised.value).startswith("not YAML: ") and len(str(raised.value)) == len("not YAML: ") + 300


def test_a_number_of_18_digits_is_a_key() -> None:
    assert parse_yaml(f"{10**18 - 1}: a") == {10**18 - 1: "a"}


def test_long_text_next_to_the_limit_of_numbers() -> None:
    """Quoted digits and words stay text, however long; what looks like a number is refused before it is converted."""
    for text in ("9" * 1001, "+" * 1001, "." * 1001, "-" * 1001):
        assert parse_yaml(f'"{text}"') == text
        with pytest.raises(DocumentError, match="a number of 1001 characters"):
            parse_yaml(f"!!str {text}" if text[0] == "9" else text)
    assert parse_yaml("x" * 1001) == "x" * 1001 and parse_yaml("X" * 1001) == "X" * 1001
    assert parse_yaml("0 " * 700) == ("0 " * 700).strip()


def test_every_value_and_key_is_checked_wherever_it_is() -> None:
    for text in (
        '["a", "\\ud800"]',
        '[["\\ud800"], []]',
        '{"a": [], "\\ud800": 1}',
        '{"a": {"b": "\\ud800"}, "c": []}',
    ):
        with pytest.raises(DocumentError, match=r"^holds a lone surrogate, which is not Unicode text$"):
            parse_json(text)
    for text in ("[[1e999], []]", "[-1e999, 1]", '{"a": [0.5, 1e999]}'):
        with pytest.raises(DocumentError, match=r"^-?inf is not a JSON value$"):
            parse_json(text)
    assert parse_yaml("!!set {a, b}") == {"a", "b"}
    with pytest.raises(DocumentError, match=r"^nan is not a JSON value$"):
        parse_yaml("!!set {.nan}")


def test_front_matter() -> None:
    assert parse_front_matter("---\nlicense: mit\n---\n# Title\n") == {"license": "mit"}
    assert parse_front_matter(b"\xef\xbb\xbf---\r\nlicense: mit\r\n---\r\n") == {"license": "mit"}
    assert parse_front_matter("# Title\n---\na: 1\n---\n") == {}
    assert parse_front_matter("---\n---\n") == {}
    assert parse_front_matter("\n---  \na: 1\nb: |\n  ---\n---\t\n---\nc: 1\n---") == {"a": 1, "b": "---"}
    with pytest.raises(DocumentError, match=r"^not a mapping, but list$"):
        parse_front_matter("---\n- a\n---\n")


def test_files_are_read_within_their_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file.json"
    file.write_text('{"a": 1}')
    assert read_json(file) == read_yaml(str(file)) == {"a": 1}
    assert read_bytes(file, max_bytes=8) == b'{"a": 1}'
    with pytest.raises(OSError, match="8 bytes, more than 7"):
        read_bytes(file, max_bytes=7)
    with pytest.raises(DocumentError, match="not UTF-8"):
        parse_json(b"\xff\xfe")
    monkeypatch.setattr(documents, "MAX_BYTES", 3)
    with pytest.raises(DocumentError, match="8 bytes, more than 3"):
        parse_json('{"a": 1}', max_bytes=documents.MAX_BYTES)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for file in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        outcome: list[BaseException] = []

        def read(file: Path = file, outcome: list[BaseException] = outcome) -> None:
            try:
                read_bytes(file, max_bytes=100)
            except OSError as error:
                outcome.append(error)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive(), f"{file} blocks"
        assert outcome, file
        if file != tmp_path:
            assert str(outcome[0]) == f"[Errno 0] not a regular file: '{file}'"


def test_keys_that_are_given_twice_are_found() -> None:
    assert documents.repeated_keys("a: 1\nb: {c: 1, c: 2}\na: 2\n") == ["a"]
    assert documents.repeated_keys(b"- a\n- a\n") == documents.repeated_keys("") == []
