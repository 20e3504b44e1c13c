"""The files of a prediction: complete, with what made them, and refused early where they cannot be written."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inference import predict
from inference.batch_files import check_output
from inference.submission import PREDICTIONS, read_boxes, read_predictions, read_run, write_submission
from product_vqa.errors import InputError
from tests.commands import call
from tests.inference.runs import arguments


def test_both_files_are_written_and_read_back(tmp_path: Path) -> None:
    rows = [
        {"index": 7, "prediction": "1.0 gram", "confidence": 0.5, "alternatives": []},
        {"index": 3, "prediction": "", "reason": "no_image"},
    ]
    table = pa.Table.from_pylist(rows, schema=PREDICTIONS)
    write_submission(table, tmp_path / "s.csv", run={"adapter": "user/name@1"})
    assert (tmp_path / "s.csv").read_bytes() == b"index,prediction\n7,1.0 gram\n3,\n"
    assert read_run(tmp_path / "s.parquet") == {"adapter": "user/name@1"}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["s.csv", "s.parquet"]
    for name, known in (("s.parquet", [0.5]), ("s.csv", [])):
        read = read_predictions(tmp_path / name)
        assert list(read["index"]) == [7, 3]
        assert list(read["prediction"]) == ["1.0 gram", ""]
        assert list(read["confidence"].dropna()) == known


def test_boxes_are_read_by_index(tmp_path: Path) -> None:
    rows = [
        {"index": 7, "prediction": "1.0 gram", "box": [0.1, 0.2, 0.3, 0.4]},
        {"index": 3, "prediction": "2.0 gram"},
    ]
    write_submission(pa.Table.from_pylist(rows, schema=PREDICTIONS), tmp_path / "s.csv", run={})
    assert read_boxes(tmp_path / "s.parquet") == {7: (0.1, 0.2, 0.3, 0.4)}
    assert read_boxes(tmp_path / "s.csv") == {}
    pd.DataFrame({"index": [7], "prediction": [""]}).to_parquet(tmp_path / "no.parquet")
    assert read_boxes(tmp_path / "no.parquet") == {}
    for box in (
        [0.1, 0.2, 0.3],
        [0.1, 0.2, 0.3, 4.0],
        [0.1, 0.2, 0.3, float("nan")],
        [0.1, None, 0.3, 0.4],
        [0.9, 0.9, 0.1, 0.1],
    ):
        table = pa.Table.from_pylist([rows[0] | {"box": box}], schema=PREDICTIONS)
        write_submission(table, tmp_path / "s.csv", run={})
        with pytest.raises(InputError, match="index 7: its box is not left, top, right and bottom of a text"):
            read_boxes(tmp_path / "s.parquet")


@pytest.mark.parametrize("text", ["", " ", "nan", "NaN", "0", "1.0", "1e-3", " 0.5 "])
def test_a_confidence_is_a_number_from_0_to_1_or_absent(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.csv").write_text(f"index,prediction,confidence\n3,1 gram,0.5\n7,2 gram,{text}\n")
    found = read_predictions(tmp_path / "p.csv")["confidence"]
    assert found[0] == 0.5
    assert found[1] == float(text) if text.strip(" naN") else np.isnan(found[1])
    pd.DataFrame({"index": [7], "prediction": [""], "confidence": [float("nan")]}).to_parquet(tmp_path / "p.parquet")
    assert read_predictions(tmp_path / "p.parquet")["confidence"].isna().all()


@pytest.mark.parametrize("text", ["-0.1", "1.1", "85", "85%", "inf", "high", '"0,85"', "true"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_any_other_confidence_is_refused_with_its_row(tmp_path: Path, text: str, suffix: str) -> None:
    """A percentage would count as certainty, and a text as none."""
    file = tmp_path / f"p{suffix}"
    (tmp_path / "p.csv").write_text(f"prediction,confidence,index\n1 gram,0.5,3\n2 gram,{text},7\n")
    pd.read_csv(tmp_path / "p.csv").to_parquet(tmp_path / "p.parquet")
    shown = re.escape(text.strip('"'))
    with pytest.raises(InputError, match=rf"{file}, index 7: confidence {shown}(\.0)? is not a number from 0 to 1"):
        read_predictions(file)


def test_the_parquet_file_says_what_made_it(
    adapter_folder: Path, tiny_base: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = {"adapter": adapter_folder, "base_model": tiny_base, "dataset": tiny_dataset}
    call(predict.main, monkeypatch, *arguments(sources, tmp_path / "s.csv", num_beams=2))
    made = read_run(tmp_path / "s.parquet")
    assert made["adapter"] == str(sources["adapter"])
    assert made["dataset"] == str(sources["dataset"])
    assert (made["split"], made["rows"], made["num_beams"], made["min_confidence"]) == ("test", 11, 2, 0.0)
    assert (made["base_precision"], made["adapter_merged"], made["dtype"]) == ("not quantized", "yes", "torch.float32")
    for name in ("adapter_sha256", "base_sha256", "dataset_sha256"):
        assert len(made[name]) == 64, name
    assert read_run(tmp_path / "s.csv") == {}


def test_a_parquet_file_that_predict_did_not_write_has_no_run(tmp_path: Path) -> None:
    pd.DataFrame({"index": [1], "prediction": [""]}).to_parquet(tmp_path / "p.parquet")
    assert read_run(tmp_path / "p.parquet") == {}


@pytest.mark.parametrize("taken", ["s.csv", "s.parquet", "s.parts"])
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: str
) -> None:
    if taken == "s.parts":
        (tmp_path / taken).touch()
    else:
        (tmp_path / taken).mkdir()
    sources = {"adapter": tmp_path / "none", "dataset": tmp_path / "none"}
    with pytest.raises(InputError, match=rf"--output .*{taken} is a (folder|file), but .* of that name"):
        call(predict.main, monkeypatch, *arguments(sources, tmp_path / "s.csv"))


def test_the_folder_of_the_output_is_created(tmp_path: Path) -> None:
    assert check_output(tmp_path / "new" / "s.csv") == tmp_path / "new" / "s.csv"
    assert (tmp_path / "new").is_dir()


@pytest.mark.parametrize("run", [b"", b"[]", b"{", b'{"adapter": {"a": 1}}', b"[" * 5000, b'{"rows": NaN}', b"\xff"])
def test_a_record_that_predict_did_not_write_is_one_line(tmp_path: Path, run: bytes) -> None:
    table = pa.table({"index": [1], "prediction": [""]}).replace_schema_metadata({b"product_vqa.run": run})
    pq.write_table(table, tmp_path / "p.parquet")
    with pytest.raises(InputError, match=r"^\S*p\.parquet: its metadata .*; predict again") as refusal:
        read_run(tmp_path / "p.parquet")
    assert "\n" not in str(refusal.value)
