"""The command: from a dataset and predictions to the page and the ranking."""

import csv
from pathlib import Path

import pytest
import yaml

from dataset_builder import audit, build
from product_vqa.errors import InputError
from product_vqa.ocr import engine
from product_vqa.ocr.image_text import ImageText, make_box
from product_vqa.ocr.text_files import TextRow, write_texts
from quickstart.rendering.levels import PLAIN
from quickstart.rendering.writer import write_labels
from tests.commands import call
from tests.dataset_builder.audits import save_audited, save_predictions

needs_engine = pytest.mark.skipif(engine.rapidocr is None, reason="the extra `ocr` is not installed")


def test_with_predictions_alone_no_image_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = save_audited(tmp_path / "dataset")
    one = save_predictions(tmp_path / "1.parquet", {10: ("50.0 gram", 0.9), 13: ("230.0 volt", 0.9)})
    two = save_predictions(tmp_path / "2.parquet", {12: ("3.0 inch", 0.6), 99: ("1.0 volt", 0.6)})
    call(audit.main, monkeypatch, "--dataset", dataset, "--reader", "none", "--predictions", one, two,
         "--output", tmp_path / "audit.html", "--ranking", tmp_path / "audit.csv", "--max_rows", "2")  # fmt: skip
    with (tmp_path / "audit.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["index"] for row in rows] == ["10", "12", "11", "13"]
    assert {row["score_ocr"] for row in rows} == {""}
    page = (tmp_path / "audit.html").read_text()
    assert page.count('<li class="row"') == 2 and "2 of 4 labels" in page
    printed = capsys.readouterr().out
    assert "1 predictions are about rows that are not in train, or have no label" in printed
    assert f"{tmp_path / 'audit.html'}: 2 of 4 labels" in printed


def test_texts_that_the_dataset_has_are_used_without_reading_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = save_audited(tmp_path / "dataset")
    splits = {name: [{"split": "train", "path": f"{name}/train-*"}] for name in ("data", "ocr")}
    configs = [{"config_name": "default", "data_files": splits["data"]},
               {"config_name": "ocr", "data_files": splits["ocr"]}]  # fmt: skip
    (dataset / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n")
    (dataset / "ocr").mkdir()
    text = ImageText(60, 40, (make_box("Net 50 g", 1.0, (0.1, 0.1, 0.5, 0.1, 0.5, 0.2, 0.1, 0.2)),))
    rows = [TextRow("https://shop.example/0.jpg", None, text)]
    write_texts(dataset / "ocr" / "train-00000-of-00001.parquet", rows, engine="an engine")
    monkeypatch.setattr(engine, "rapidocr", None)  # as where the extra is not installed
    call(audit.main, monkeypatch, "--dataset", dataset, "--output", tmp_path / "audit.html", "--ranking",
         tmp_path / "audit.csv")  # fmt: skip
    with (tmp_path / "audit.csv").open(newline="") as lines:
        ranking = list(csv.DictReader(lines))
    assert [(row["index"], row["score_ocr"], row["suggestion"]) for row in ranking][:2] == [
        ("10", "2.944", "50.0 gram"), ("11", "", ""),
    ]  # fmt: skip
    assert "an engine, stored in the dataset" in (tmp_path / "audit.html").read_text()


def test_texts_of_the_dataset_that_are_damaged_are_its_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = save_audited(tmp_path / "dataset")
    (dataset / "ocr").mkdir()
    (dataset / "ocr" / "train-00000-of-00001.parquet").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"--dataset .*ocr/train-00000-of-00001.parquet: it has 4 bytes and is not"):
        call(audit.main, monkeypatch, "--dataset", dataset, "--output", tmp_path / "audit.html")


@needs_engine
@pytest.mark.slow
def test_with_ocr_alone_wrong_labels_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_labels(tmp_path, train_rows=12, test_rows=1, seed=3, level=PLAIN, base_url="http://x/i")
    rows = list(csv.DictReader((tmp_path / "train.csv").open()))
    wrong = next(number for number, row in enumerate(rows) if row["entity_value"][0].isdigit())
    rows[wrong]["entity_value"] = "777.25 " + rows[wrong]["entity_value"].split(" ", 1)[1]
    with (tmp_path / "wrong.csv").open("w", newline="") as lines:
        writer = csv.DictWriter(lines, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    call(build.main, monkeypatch, "--train_csv", tmp_path / "wrong.csv", "--image_dir", tmp_path / "images",
         "--output_dir", tmp_path / "dataset", "--validation_size", "0")  # fmt: skip
    call(audit.main, monkeypatch, "--dataset", tmp_path / "dataset", "--output", tmp_path / "audit.html",
         "--ranking", tmp_path / "audit.csv")  # fmt: skip
    with (tmp_path / "audit.csv").open(newline="") as lines:
        ranking = list(csv.DictReader(lines))
    assert wrong in [int(row["index"]) for row in ranking[:3]]
    assert 'class="box' in (tmp_path / "audit.html").read_text()


@pytest.mark.parametrize("option", ["output", "ranking"])
def test_predictions_are_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    dataset = save_audited(tmp_path / "dataset")
    one, two = (save_predictions(tmp_path / name, {10: ("50.0 gram", 0.9)}) for name in ("1.parquet", "2.parquet"))
    (tmp_path / "link.parquet").symlink_to(two)
    before = two.read_bytes()
    for file in (two, dataset / ".." / two.name, tmp_path / "link.parquet"):
        with pytest.raises(InputError, match=rf"--{option} .*parquet: is a file of --predictions, which it would re"):
            call(audit.main, monkeypatch, "--dataset", dataset, "--reader", "none", "--predictions", one, two,
                 "--output", tmp_path / "audit.html", f"--{option}", file)  # fmt: skip
    assert two.read_bytes() == before and not (tmp_path / "audit.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--reader", "none"), "--reader none compares labels with predictions only: give --predictions FILE"),
        (("--max_rows", "0"), "--max_rows must be at least 1, got 0"),
        (("--reader", "none", "--predictions", "p.parquet", "--split", "none"), "has no split 'none'"),
        (("--reader", "none", "--predictions", "p.parquet"), "--predictions p.parquet: no such file"),
        (("--output", "FOLDER"), "--output .*: is a folder; name a file"),
        (("--ranking", "FOLDER"), "--ranking .*: is a folder; name a file"),
        (("--output", "FOLDER/a", "--ranking", "FOLDER/../dataset/a"), "--ranking .*: is the file of --output, too"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_followed_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    dataset = save_audited(tmp_path / "dataset")
    with pytest.raises(InputError, match=message):
        call(audit.main, monkeypatch, "--dataset", dataset, "--output", tmp_path / "audit.html",
             *[one.replace("FOLDER", str(dataset)) for one in arguments])  # fmt: skip
    assert not (tmp_path / "audit.html").exists()
