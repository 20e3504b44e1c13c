"""Values are texts, and errors name lines; broken_schemas.py has what is refused."""

import pytest

from product_vqa.errors import InputError
from product_vqa.task.yaml_nodes import Node, compose, quoted


def _fields(text: str) -> dict[str, Node]:
    return compose(text, name="my.yaml").fields(expected="fields")


def test_values_are_the_texts_that_are_written() -> None:
    texts = ["no", "1.10", "0x1F", "null", "~", "2024-01-01", "1_000", "'a'"]
    fields = _fields("".join(f"f{number}: {text}\n" for number, text in enumerate(texts)))
    assert [node.text() for node in fields.values()] == [*texts[:-1], "a"]
    assert [item.text() for item in _fields("a: [yes, 007, 'b c']")["a"].items(expected="texts")] == [
        "yes",
        "007",
        "b c",
    ]


def test_a_node_knows_its_way_and_line() -> None:
    node = _fields("# x\na:\n  b:\n    c: [1,\n        2]\n")["a"].fields(expected="x")["b"].fields(expected="x")["c"]
    assert (node.path, node.line) == ("a.b.c", 4)
    assert [item.line for item in node.items(expected="x")] == [4, 5]
    assert str(node.fail("a problem", "a remedy")) == "my.yaml, line 4: a.b.c: a problem; a remedy"


def test_whole_numbers_within_limits_are_read() -> None:
    assert [node.integer(least=0, most=15) for node in _fields("a: 0\nb: 15\nc: 007").values()] == [0, 15, 7]
    for text in ("16", "-1", "1.0", "1e1", "0x1", "", "٣", "1" * 30):
        with pytest.raises(InputError, match=r"my\.yaml, line 1: a: .*, expected 0 to 15; write such a whole number"):
            _fields(f"a: {text}")["a"].integer(least=0, most=15)


def test_true_and_false_are_read() -> None:
    assert [node.is_true() for node in _fields("a: true\nb: false").values()] == [True, False]
    for text in ("True", "yes", "1", ""):
        with pytest.raises(InputError, match="expected true or false"):
            _fields(f"a: {text}")["a"].is_true()


def test_fields_are_checked() -> None:
    root = compose("a: 1\nb: 2\n", name="my.yaml")
    fields = root.fields(expected="x")
    root.check_fields(fields, allowed=("a", "b"), required=("a",))
    with pytest.raises(InputError, match="line 2: unknown field 'b'; the fields here are a, c"):
        root.check_fields(fields, allowed=("a", "c"))
    with pytest.raises(InputError, match="line 1: `c` is missing; add `c:`"):
        root.check_fields(fields, allowed=("a", "b"), required=("c",))


def test_what_looks_like_yamls_tricks_may_be_quoted() -> None:
    assert list(_fields("'<<': 1\n\"*a\": '&b'\n'!!str': '---'\n")) == ["<<", "*a", "!!str"]


def test_a_quoted_text_is_short_and_one_line() -> None:
    assert quoted("a\nb") == "'a\\nb'"
    assert len(quoted("x" * 1000)) == 82
