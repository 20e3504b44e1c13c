"""What strangers wrote is text where people see it, whatever it looks like."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from product_vqa.quoting import as_cell, code_span, file_name, from_cell, one_line, printable


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("-5 gram", "'-5 gram"),
        ("\t=1", "'\t=1"),
        ('"=1', "'\"=1"),
        ("\uff0b1", "'\uff0b1"),
        ("\u200b@x", "'\u200b@x"),
        ("1.0 gram", "1.0 gram"),
        ("https://shop.example/a=b", "https://shop.example/a=b"),
        ("", ""),
        ("'=1", "''=1"),
        (-5, -5),
        (-0.5, -0.5),
        (None, None),
    ],
)
def test_a_cell_that_could_run_as_a_formula_begins_with_an_apostrophe(value: object, cell: object) -> None:
    assert as_cell(value) == cell
    if isinstance(value, str):
        assert from_cell(str(cell)) == value


@given(st.text())
def test_no_cell_begins_as_a_formula_and_no_line_breaks(text: str) -> None:
    assert as_cell(text)[:1] not in ("=", "+", "-", "@", "\t", "\r", "\n")
    assert one_line(text).isprintable()
    assert len(code_span(text).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\n# heading", "a\\n# heading"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("right\u202eleft", "right\\u202eleft"),
        ("größe", "größe"),
        ("x" * 300, "x" * 300),
        ("x" * 301, "x" * 297 + "..."),
    ],
)
def test_one_line_is_printable(text: str, line: str) -> None:
    assert one_line(text) == line


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("https://a.b/c", "`https://a.b/c`"),
        ("`", "`` ` ``"),
        ("a``b`c", "```a``b`c```"),
        ("", "`  `"),
        ("<script>\n", "`<script>\\n`"),
    ],
)
def test_a_code_span_ends_where_its_text_does(text: str, span: str) -> None:
    assert code_span(text) == span


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("train.csv", "train.csv"),
        ("my train (2).csv", "`my train (2).csv`"),
        ("a|b.csv", "`a\\|b.csv`"),
        ("[x](http://a.b).csv", "`[x](http://a.b).csv`"),
        ("www.evil.example", "`www.evil.example`"),
        ("# x\n.csv", "`# x\\n.csv`"),
        ("<b>.csv", "`<b>.csv`"),
    ],
)
def test_a_file_name_makes_no_markup(name: str, shown: str) -> None:
    assert file_name(name) == shown


def test_line_breaks_and_tabs_stay_where_text_may_have_them() -> None:
    assert printable("a\x1b[2J\x07\u202e\tb\n\u00e9 \u4e2d") == "a\\x1b[2J\\x07\\u202e\tb\n\u00e9 \u4e2d"
