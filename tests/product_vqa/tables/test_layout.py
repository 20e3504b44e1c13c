"""The names of columns, as an option's text and as a dataset records them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from product_vqa.tables.layout import LONG, Layout, format_columns, is_layout, parse_columns

names = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="="), min_size=1, max_size=10)
columns = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=10)


@given(st.dictionaries(names, columns, min_size=1, max_size=5))
def test_columns_are_written_as_they_are_read(columns: dict[str, str]) -> None:
    assert parse_columns(format_columns(columns)) == columns
    assert is_layout(Layout(True, columns).describe())


@pytest.mark.parametrize(
    "content", [[], {"wide": False}, {"wide": 1}, {"columns": 1}, {"columns": "a"}, {"long": True}]
)
def test_no_other_record_is_a_layout(content: Any) -> None:
    assert not is_layout(content)


def test_a_table_with_a_column_of_attributes_is_long() -> None:
    wide = Layout(True, {"entity_name": "attr", "image_link": "photo_url"})
    assert wide.of_table(["photo_url", "Farbe"]) == wide
    assert wide.of_table(["photo_url", "attr"]) == Layout(False, wide.columns)
    assert LONG.of_table(["photo_url", "Farbe"]) == LONG
