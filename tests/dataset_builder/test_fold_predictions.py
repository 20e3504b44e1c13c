"""Files of predictions, as `inference.predict` writes them and as strangers may."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_builder.fold_predictions import read_predictions
from product_vqa import parquet_files
from product_vqa.errors import InputError
from product_vqa.row_selection import RowKey
from product_vqa.task.schema import CHALLENGE

ROWS = {index: RowKey(index, "item_weight", f"{index}.jpg") for index in range(4)}
SCHEMA = pa.schema(
    [
        ("index", pa.int64()), ("image_link", pa.string()), ("entity_name", pa.string()), ("prediction", pa.string()),
        ("answer", pa.string()), ("confidence", pa.float64()),
        ("alternatives", pa.list_(pa.struct({"prediction": pa.string(), "confidence": pa.float64()}))),
    ]
)  # fmt: skip


def row(index: int, answer: str | None, confidence: float | None, *others: tuple[str, float], **more: Any) -> dict:
    alternatives = [{"prediction": other, "confidence": share} for other, share in others]
    return {"index": index, "image_link": f"{index}.jpg", "entity_name": "item_weight", "prediction": answer or "",
            "answer": answer, "confidence": confidence, "alternatives": alternatives, **more}  # fmt: skip


def write(file: Path, *rows: dict) -> str:
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), file)
    return str(file)


def test_answers_and_alternatives_are_read_in_canonical_form(tmp_path: Path) -> None:
    one = write(
        tmp_path / "1.parquet", row(0, "500 gram", 0.7, ("5.0 gram", 0.2)), row(1, "", 0.9), row(9, "1 gram", 1)
    )
    two = write(
        tmp_path / "2.parquet", row(0, "5.0 gram", 0.4), row(2, None, None), row(3, "1.0 gram", 0.8, ("1 gram", 0.4))
    )
    found = read_predictions([one, two], ROWS, schema=CHALLENGE)
    assert found.num_unknown == 1
    assert found.answers == {
        0: [{"500.0 gram": 0.7, "5.0 gram": 0.2}, {"5.0 gram": 0.4}],
        1: [{"": 0.9}],
        3: [{"1.0 gram": pytest.approx(1.0)}],  # together at most 1
    }


def test_a_file_without_alternatives_is_read(tmp_path: Path) -> None:
    pd.DataFrame({"index": [0], "answer": ["1.0 gram"], "confidence": [0.5]}).to_parquet(tmp_path / "a.parquet")
    found = read_predictions([str(tmp_path / "a.parquet")], ROWS, schema=CHALLENGE)
    assert found.answers == {0: [{"1.0 gram": 0.5}]}


def test_texts_that_are_stored_as_bytes_or_by_dictionary_are_read(tmp_path: Path) -> None:
    """As a stranger's writer may store them; and with more columns within the alternatives."""
    bytes_of = pa.struct({"more": pa.string(), "prediction": pa.binary(), "confidence": pa.float32()})
    others = [{"more": "x", "prediction": b"5.0 gram", "confidence": 0.25}]
    table = pa.table(
        {
            "index": pa.array([0], pa.int32()),
            "answer": pa.array([b"500 gram"], pa.binary()),
            "confidence": pa.array([0.5], pa.float32()),
            "image_link": pa.array(["0.jpg"]).dictionary_encode(),
            "entity_name": pa.array(["item_weight"], pa.large_string()),
            "alternatives": pa.array([others], pa.list_(bytes_of)),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    found = read_predictions([str(tmp_path / "a.parquet")], ROWS, schema=CHALLENGE)
    assert found.answers == {0: [{"500.0 gram": 0.5, "5.0 gram": 0.25}]}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"alternatives": [[{"prediction": "a"}]]}, "its alternatives have a prediction alone, and need a prediction"),
        ({"alternatives": [[{"confidence": 0.5}]]}, "its alternatives have a confidence alone, and need a prediction"),
        ({"answer": [b"\xff"]}, r"cannot be read as predictions \(Invalid UTF8"),
        (
            {"alternatives": [[{"prediction": b"\xff", "confidence": 0.5}]]},
            r"cannot be read as predictions \(Invalid UTF8",
        ),
    ],
)
def test_columns_of_another_shape_are_refused(tmp_path: Path, changed: dict, message: str) -> None:
    pq.write_table(pa.table({"index": [0], "answer": ["a"], "confidence": [0.5]} | changed), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=rf"`predictions` .*a.parquet: {message}"):
        read_predictions([str(tmp_path / "a.parquet")], ROWS, schema=CHALLENGE)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (row(0, "1.0 gram", 1.5), r"a.parquet, index 0: '1.0 gram' with confidence 1.5 is not an answer with a prob"),
        (row(0, "1.0 gram", float("nan")), r"a.parquet, index 0: '1.0 gram' with confidence nan is not"),
        (row(0, "1.0 gram", 0.5, ("2.0 gram", -0.1)), r"index 0: '2.0 gram' with confidence -0.1 is not"),
        (row(0, "x" * 1001, 0.5), r"index 0: 'x+\.\.\. with confidence 0.5 is not an answer"),
        (row(0, "a", 0.5, *[("b", 0.0)] * 65), r"index 0: has 65 alternatives, more than 64"),
        (
            row(0, "a", 0.5, image_link="1.jpg"),
            r"index 0: image_link is '1.jpg', but the split has '0.jpg'; are these",
        ),
        (row(0, "a", 0.5, entity_name="width"), r"index 0: entity_name is 'width', but the split has 'item_weight'"),
        (row(7, "a", 0.5), r"a.parquet: none of its 1 rows is in the split; is it the split that was predicted\?"),
    ],
)
def test_a_row_that_no_prediction_of_the_split_has_is_refused(tmp_path: Path, changed: dict, message: str) -> None:
    with pytest.raises(InputError, match=rf"`predictions` .*{message}"):
        read_predictions([write(tmp_path / "a.parquet", changed)], ROWS, schema=CHALLENGE)


def test_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("index,prediction\n0,1.0 gram\n")
    pd.DataFrame({"index": [0], "prediction": ["a"]}).to_parquet(tmp_path / "b.parquet")
    pd.DataFrame({"index": ["0"], "answer": ["a"], "confidence": [0.5]}).to_parquet(tmp_path / "c.parquet")
    good = write(tmp_path / "good.parquet", row(0, "1.0 gram", 0.5))
    for name, message in (
        ("a.csv", r"cannot be read as predictions \(it does not end like a Parquet file.*; give the X.parquet"),
        ("b.parquet", "has no column answer, confidence; give the X.parquet"),
        ("c.parquet", "its column index is BYTE_ARRAY, not INT64 or INT32"),
        ("none.parquet", "no such file"),
    ):
        with pytest.raises(InputError, match=message):
            read_predictions([good, str(tmp_path / name)], ROWS, schema=CHALLENGE)
    with pytest.raises(InputError, match=r"good.parquet is given twice, so it would count twice; give each file once"):
        read_predictions([good, str(tmp_path / "." / "good.parquet")], ROWS, schema=CHALLENGE)


def test_alternatives_that_take_too_much_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is stored once and repeated; with a thousandth of the limit."""
    monkeypatch.setattr(parquet_files, "MAX_ROW_GROUP_BYTES", 2_000_000)
    table = pa.Table.from_pylist([row(0, "a", 0.5, ("x" * 9_000, 0.1))], schema=SCHEMA)
    pq.write_table(table.take(pa.array([0] * 300)), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 20_000
    with pytest.raises(
        InputError, match=r"a.parquet: cannot be read as predictions \(row group 0 takes 27\d{5} bytes"
    ):
        read_predictions([str(tmp_path / "a.parquet")], ROWS, schema=CHALLENGE)
