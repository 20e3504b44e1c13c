"""A table is recognized by its content; test_table_formats.py builds datasets from each format."""

import gzip
import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from product_vqa.errors import InputError
from product_vqa.tables.record_files import open_table, split_of

ROWS = [("0.jpg", "M"), ("1.jpg", "")]


def test_the_same_cells_are_read_from_a_file_of_any_format(tmp_path: Path) -> None:
    csv, lines = b"photo,size\n0.jpg,M\n\n1.jpg,\n", b'{"photo": "0.jpg", "size": "M"}\n{"photo": "1.jpg"}\n'
    pq.write_table(pa.table({"photo": ["0.jpg", "1.jpg"], "size": ["M", None]}), tmp_path / "parquet")
    for name, content in [
        ("csv", csv),
        ("jsonl", lines),
        ("gz", gzip.compress(lines)),
        ("bom", b"\xef\xbb\xbf" + csv),
    ]:
        (tmp_path / name).write_bytes(content)
    for name in ("csv", "jsonl", "gz", "bom", "parquet"):
        with open_table(tmp_path / name) as table:
            assert (table.name, table.records.names) == (name, ["photo", "size"])
            assert list(table.records.read(["size", "photo"])) == [row[::-1] for row in ROWS]
        with open_table(tmp_path / name) as table:
            assert list(table.records.read(["photo"])) == [row[:1] for row in ROWS]
            assert table.sha256() == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()


def test_a_name_means_a_split_unless_it_is_a_file(tmp_path: Path) -> None:
    found = split_of(f"{tmp_path}:train")
    assert found is not None and (found[0].folder, found[1]) == (tmp_path, "train")
    assert split_of("a:b.csv") is None and split_of("train") is None
    (tmp_path / "odd:name").write_text("a,b\n")
    assert split_of(str(tmp_path / "odd:name")) is None


def test_a_name_that_cannot_be_published_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a\nb").write_text("photo,size\n")
    with pytest.raises(InputError, match="must be printable; rename it"), open_table(tmp_path / "a\nb"):
        pass
