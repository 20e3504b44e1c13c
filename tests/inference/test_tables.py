"""Tables of text: a CSV and a Parquet file read alike; what is not a table or has no valid index is named."""

import re
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inference.tables import read_indexes, read_table
from product_vqa.errors import InputError


def test_a_csv_and_a_parquet_file_are_read_alike(tmp_path: Path) -> None:
    rows = pd.DataFrame({"index": [3, 7], "prediction": ["1.0 gram", None], "confidence": [0.5, None]})
    rows.to_csv(tmp_path / "p.csv", index=False)
    rows.to_parquet(tmp_path / "p.parquet")
    for name in ("p.csv", "p.parquet"):
        table = read_table(tmp_path / name, columns=("index", "prediction"), optional=("confidence", "answer"))
        assert table.to_dict("list") == {
            "index": ["3", "7"], "prediction": ["1.0 gram", ""], "confidence": ["0.5", ""],
        }  # fmt: skip
        assert read_indexes(table, path=name) == [3, 7]


@pytest.mark.parametrize("name", ["p.csv", "p.parquet"])
def test_what_is_not_a_table_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=rf"{re.escape(name)} cannot be read as a table"):
        read_table(tmp_path / name)


def test_a_column_that_expands_to_gigabytes_is_refused_unless_it_is_not_needed(tmp_path: Path) -> None:
    rows = 3000
    long = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * 10**6]))
    for name, column in (("bomb.parquet", "prediction"), ("unused.parquet", "answer")):
        table = pa.table({"index": range(rows), "prediction": [""] * rows} | {column: long})
        pq.write_table(table, tmp_path / name)
    with pytest.raises(InputError, match=r"bomb\.parquet cannot be read as a table: .*bytes"):
        read_table(tmp_path / "bomb.parquet", columns=("index", "prediction"))
    assert len(read_table(tmp_path / "unused.parquet", columns=("index", "prediction"))) == rows


def test_a_list_is_not_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"index": [1], "prediction": [["1 gram"]]}), tmp_path / "p.parquet")
    with pytest.raises(InputError, match=r"p\.parquet has no column prediction; its columns are index, prediction\."):
        read_table(tmp_path / "p.parquet", columns=("index", "prediction"))


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("id,answer\n1,x\n")
    with pytest.raises(InputError, match=r"p\.csv has no column index, prediction; its columns are id, answer"):
        read_table(tmp_path / "p.csv", columns=("index", "prediction"))


@pytest.mark.parametrize(
    ("indexes", "message"),
    [
        (["1", "2", "1.0"], r"line 4: duplicate index 1 \(first seen on line 2\)"),
        (["1", ""], "line 3: index '' is not"),
    ],
)
def test_an_index_that_is_not_one_or_occurs_twice_is_named_with_its_line(indexes: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_indexes(pd.DataFrame({"index": indexes}), path="p.csv")
