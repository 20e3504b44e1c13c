from pathlib import Path

import pyarrow.parquet as pq
import pytest

from product_vqa.ocr import text_files
from product_vqa.ocr.image_text import ImageText, make_box
from product_vqa.ocr.text_files import COLUMNS, ENGINE_KEY, SCHEMA, TextRow, write_texts
from product_vqa.parquet_files import check_parquet

CORNERS = (0.1, 0.2, 0.5, 0.2, 0.5, 0.3, 0.1, 0.3)
TEXT = ImageText(800, 600, (make_box("Net wt. 500 g", 0.98, CORNERS),))


def test_rows_are_written_in_row_groups_with_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "ROW_GROUP_ROWS", 2)
    rows = [TextRow(f"http://x/{number}", None, TEXT if number else ImageText(5, 4)) for number in range(5)]
    write_texts(tmp_path / "a.parquet", iter(rows), engine="an engine")
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.schema.equals(SCHEMA) and table.schema.metadata == {ENGINE_KEY: b"an engine"}
    assert pq.read_metadata(tmp_path / "a.parquet").num_row_groups == 3
    first, second, *_ = table.to_pylist()
    assert first == {"image_link": "http://x/0", "sha256": None, "width": 5, "height": 4, "texts": []}
    assert ImageText.from_dict(second) == TEXT
    assert set(COLUMNS) <= set(check_parquet(tmp_path / "a.parquet", COLUMNS))
    assert [file.name for file in tmp_path.iterdir()] == ["a.parquet"]


def test_a_file_that_could_not_be_written_completely_is_not_there(tmp_path: Path) -> None:
    def rows():  # type: ignore[no-untyped-def]
        yield TextRow("http://x/1", "0" * 64, TEXT)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_texts(tmp_path / "a.parquet", rows(), engine="an engine")
    assert list(tmp_path.iterdir()) == []
