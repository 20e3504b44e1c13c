"""The table of several uploads: a row for each file and attribute, also for files that cannot be read."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from inference import AttributeReader
from inference.upload_table import HEADER, header, read_uploads, write_csv
from tests.product_vqa.modeling.schemas import ALL_KINDS
from tests.tiny import make_image


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    for number, name in enumerate(("a.png", "b.png")):
        make_image(number).save(tmp_path / name)
    (tmp_path / "=1+1.png").write_bytes(b"no image")
    return [tmp_path / name for name in ("a.png", "gone.png", "=1+1.png", "b.png")]


def test_each_file_has_a_row_per_attribute_in_order(adapter: tuple[str, Any], files: list[Path]) -> None:
    reader = AttributeReader.from_pretrained(adapter[0])
    rows = read_uploads(reader, files, ["voltage", "width"], read_file=Path.read_bytes)
    assert [row[:2] for row in rows] == [[file.name, name] for file in files for name in ("voltage", "width")]
    answer = reader.read(make_image(1), "width")
    assert rows[7][2:] == [answer.value, answer.unit, f"{answer.confidence:.6g}", ""]
    assert [row[2:5] for row in rows[2:6]] == [["", "", ""]] * 4
    assert all(row[5].startswith("not_a_picture") for row in rows[2:6]) and not rows[0][5]

    text = write_csv(rows, has_shown=False)
    lines = list(csv.reader(io.StringIO(text)))
    assert tuple(lines[0]) == HEADER and len(lines) == 9
    assert lines[5][0] == "'=1+1.png"  # no formula


def test_what_may_be_not_shown_has_its_probability(tiny_base: Path, files: list[Path]) -> None:
    reader = AttributeReader.from_pretrained(None, base_model=str(tiny_base), dtype="float32", schema=ALL_KINDS)
    names = list(reader.schema.not_shown)
    assert names
    rows = read_uploads(reader, files[:2], names[:1], read_file=Path.read_bytes)
    assert header(has_shown=True)[-2:] == ["shown", "error"]
    shown = reader.read(make_image(0), names[0]).shown
    assert shown is not None and float(rows[0][5]) == pytest.approx(shown, rel=1e-3)
    assert rows[1][5] == "" and rows[1][6].startswith("not_a_picture")
