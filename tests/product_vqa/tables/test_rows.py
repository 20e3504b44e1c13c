"""The rows of wide tables; tests/dataset_builder/test_csv_reader.py reads the challenge's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from product_vqa.tables.layout import Layout
from product_vqa.tables.rows import read_rows
from product_vqa.task.schema_file import parse_schema
from tests.dataset_builder.catalogues import PRODUCTS, SCHEMAS
from tests.dataset_builder.files import write_csv

cells = st.lists(st.sampled_from(["", " ", "M", "navy", "x"]), min_size=3, max_size=3)


@given(products=st.lists(cells, min_size=1, max_size=6))
def test_every_cell_with_a_value_is_a_row_with_an_index_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, products: list[list[str]]
) -> None:
    schema, layout = parse_schema(SCHEMAS["clothes"], name="s"), Layout(is_wide=True)
    file = write_csv(tmp_path_factory.getbasetemp() / "wide.csv", ["image_link", *PRODUCTS["clothes"][0]],
                     [[f"{number}.jpg", *cells] for number, cells in enumerate(products)])  # fmt: skip
    expected = [(number, 3 * number + place, cell) for number, cells in enumerate(products)
                for place, cell in enumerate(cells) if cell.strip()]  # fmt: skip
    if expected:
        rows = read_rows(file, schema=schema, layout=layout, is_labelled=True).rows
        assert [(row.position, row.index, row.entity_value) for row in rows] == expected
    asked = read_rows(file, schema=schema, layout=layout, is_labelled=False).rows
    assert [row.index for row in asked] == list(range(3 * len(products)))
