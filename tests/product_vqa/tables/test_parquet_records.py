from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from product_vqa.errors import InputError
from product_vqa.tables.parquet_records import ParquetRecords


def write(file: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), file)
    return file


def test_the_rows_of_all_files_are_texts_in_the_order_that_was_asked_for(tmp_path: Path) -> None:
    first = write(tmp_path / "a.parquet", a=["x", None], b=pa.array([0.1, 24], pa.float32()), c=[True, False])
    second = write(tmp_path / "b.parquet", c=[None], b=pa.array([float("nan")], pa.float32()), a=["y"], d=[[1]])
    records = ParquetRecords([first, second], file="f")
    assert records.names == ["a", "b", "c"]
    assert [(cells, records.number) for cells in records.read(["c", "a", "b", "a"])] == [
        (("yes", "x", "0.1", "x"), 0), (("no", "", "24.0", ""), 1), (("", "y", "", "y"), 2),
    ]  # fmt: skip


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    good = write(tmp_path / "a.parquet", a=["x"], b=[[1, 2]])
    lists = write(tmp_path / "b.parquet", b=[["x"]], c=[{"d": "x"}])
    for name in ("b", "b.list.element", "c"):
        with pytest.raises(InputError, match=rf"^f: column {name} of b\.parquet has lists or structs"):
            list(ParquetRecords([lists], file="f").read([name]))
    with pytest.raises(InputError, match=r"^f: c\.parquet has no column a, unlike the first file"):
        list(ParquetRecords([good, write(tmp_path / "c.parquet", b=["x"])], file="f").read(["a"]))
    good.write_bytes(good.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"\(it does not end like a Parquet file.*\); save it again"):
        ParquetRecords([good], file="f")
