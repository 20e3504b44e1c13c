"""Grounding: weights from labelled rows, which calibrate writes down and every prediction with OCR applies."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from PIL import Image, ImageDraw, ImageFont

from inference import AttributeReader, calibrate, predict
from inference.grounding_fit import ScoredRow, cross_ground, fit_weights, ground_row, measure_gain
from inference.submission import read_run
from product_vqa.errors import InputError
from product_vqa.modeling.answer import Answer
from product_vqa.modeling.calibration import load_calibration
from product_vqa.modeling.grounding import FEATURES
from product_vqa.ocr import engine
from product_vqa.ocr.candidate import Candidate, Evidence
from product_vqa.ocr.image_text import ImageText, make_box
from product_vqa.ocr.text_files import TextRow, write_texts
from product_vqa.task.features import FEATURES as COLUMNS
from tests.commands import call
from tests.inference.runs import run_predict as launch_predict
from tests.tiny import make_rows

needs_engine = pytest.mark.skipif(engine.rapidocr is None, reason="the extra `ocr` is not installed")
BOX = (0.25, 0.25, 0.75, 0.5)
CORNERS = (0.25, 0.25, 0.75, 0.25, 0.75, 0.5, 0.25, 0.5)


def make_answer(text: str, confidence: float, *others: Answer, shown: float | None = None) -> Answer:
    value, _, unit = text.partition(" ")
    return Answer(text, text, confidence, confidence, 1.0, 1.0, others, value=value, unit=unit, shown=shown)


def make_scored(number: int, *, is_right: bool, evidence: Evidence = Evidence.VALUE) -> ScoredRow:
    """The model says 5.0 gram with 0.9, and OCR says another number, to which the model gives 0.01."""
    label = f"{number + 10}.0 gram"
    answer = make_answer("5.0 gram", 0.9, make_answer(label, 0.01))
    return ScoredRow(answer, [Candidate(label, evidence, BOX, 1.0, 0.0)], label if is_right else "5.0 gram")


def predictions_of(rows: list[ScoredRow], weights: dict[str, float]) -> list[str]:
    return [ground_row(row, weights).prediction for row in rows]


def test_what_is_right_on_labelled_rows_gains_and_what_is_wrong_does_not() -> None:
    rows = [make_scored(number, is_right=True) for number in range(40)]
    rows += [make_scored(number, is_right=False, evidence=Evidence.NUMBER) for number in range(40)]
    weights = fit_weights(rows)
    assert weights["value"] > 3 > 0 > weights["number"]
    assert predictions_of(rows, weights) == [row.label for row in rows]
    assert fit_weights([]) == dict.fromkeys(FEATURES, 0.0)


def test_weights_are_the_most_likely_ones() -> None:
    """Of 100 candidates that the model gives 0.01, 80 are right: weighted, they have 0.8."""
    rows = [make_scored(number, is_right=number % 5 > 0) for number in range(1000)]
    weights = fit_weights(rows)
    grounded = ground_row(rows[0], weights)
    assert grounded.confidence == pytest.approx(0.8, abs=0.01)


def test_an_empty_answer_gains_where_ocr_finds_nothing() -> None:
    answer = make_answer("5.0 gram", 0.5, make_answer("", 0.4, shown=0.6), shown=0.6)
    silent, speaking = ScoredRow(answer, [], ""), ScoredRow(answer, [], "5.0 gram")
    weights = fit_weights([silent] * 90 + [speaking] * 10)
    grounded = ground_row(silent, weights)
    assert (grounded.prediction, grounded.shown) == ("", pytest.approx(0.1, abs=0.02))
    assert fit_weights([speaking] * 50)["empty"] == 0.0  # never below: no other answer was searched


def test_rows_without_an_opinion_fit_nothing() -> None:
    """Images that nobody read, candidates that the model cannot say, and logits that are not finite."""
    rows = [make_scored(number, is_right=True) for number in range(40)]
    weights = fit_weights(rows)
    unread = replace(rows[0], candidates=None)
    impossible = replace(rows[0], answer=make_answer("5.0 gram", 0.9))
    failed = replace(rows[0], answer=Answer("", "", 0.0, 0.0, 0.0, 0.0))
    for row in (unread, impossible, failed):
        assert fit_weights(rows + [row] * 40) == pytest.approx(weights, abs=1e-3)
    for row in (unread, failed):
        assert ground_row(row, weights) == row.answer


def test_rows_that_the_model_is_sure_of_do_not_reward_a_weight_of_nothing() -> None:
    """In float32, the candidates of a row may have more than 1 together."""
    sure = [Candidate("5.0 gram", Evidence.NUMBER, BOX, 1.0, 0.0)]
    wrong = ScoredRow(make_answer("5.0 gram", 1.0 + 1.5e-6, make_answer("7.0 gram", 1e-6)), sure, "7.0 gram")
    right = replace(wrong, label="5.0 gram")
    weights = fit_weights([make_scored(number, is_right=True) for number in range(50)] + [right] * 250 + [wrong] * 10)
    grounded = ground_row(right, weights)
    assert weights["value"] > 3
    assert (grounded.prediction, grounded.confidence) == ("5.0 gram", pytest.approx(250 / 260, abs=0.01))


def test_a_row_is_grounded_with_weights_that_its_part_did_not_fit() -> None:
    rows = [make_scored(number, is_right=number < 20) for number in range(40)]
    answers, weights = cross_ground(rows, np.array([0] * 20 + [1] * 20))
    # Each half was fitted on the other, which says the opposite.
    assert {answer.prediction for answer in answers[:20]} == {"5.0 gram"}
    assert all(answer.prediction != "5.0 gram" for answer in answers[20:])
    unused, _ = cross_ground(rows, np.array([0] * 20 + [-1] * 20))
    assert all(answer.prediction != "5.0 gram" for answer in unused[20:])
    assert weights == fit_weights(rows)


def test_the_gain_has_an_interval_over_images() -> None:
    images = pd.Series([f"{number // 2}" for number in range(100)])
    alone = pd.Series([number % 4 > 0 for number in range(100)])
    gain = measure_gain(alone, pd.Series([True] * 100), images)
    assert gain["share_right"] == {"alone": 0.75, "grounded": 1.0}
    assert gain["gain"]["mean"] == pytest.approx(0.25)
    # Half of the 50 images gain half a row: the standard error is 0.25 / sqrt(50).
    assert gain["gain"]["low"] == pytest.approx(0.25 - 1.96 * 0.25 / math.sqrt(50), abs=0.02)
    assert gain["gain"]["high"] == pytest.approx(0.25 + 1.96 * 0.25 / math.sqrt(50), abs=0.02)
    assert measure_gain(alone, alone, images)["gain"] == {"mean": 0.0, "low": 0.0, "high": 0.0}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels that the adapter did not learn, printed on their images, as OCR read them; the last image is unknown."""
    folder = tmp_path_factory.mktemp("grounded")
    (folder / "data").mkdir()
    (folder / "ocr").mkdir()
    for split, number in (("validation", 60), ("test", 13)):
        rows = make_rows(number, start=1000 if split == "validation" else 5000)
        texts = []
        for position, row in enumerate(rows):
            unit = row["entity_value"].partition(" ")[2]
            row["entity_value"] = row["entity_value_raw"] = f"{position + 2}.5 {unit}"
            box = make_box(row["entity_value"], 0.99, CORNERS)
            texts.append(TextRow(row["image_link"], None, ImageText(800, 600, (box,))))
        Dataset.from_list(rows, features=COLUMNS).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
        write_texts(folder / "ocr" / f"{split}-00000-of-00001.parquet", texts[:-1], engine="an engine")
    return folder


@pytest.fixture(scope="module")
def calibrated(adapter_folder: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(adapter_folder, tmp_path_factory.mktemp("adapters") / "calibrated"))
    with pytest.MonkeyPatch.context() as patch:
        call(calibrate.main, patch, "--adapter", folder, "--dataset", dataset, "--dtype", "float32")
    return folder


def run_predict(
    adapter: Path, dataset: Path, output: Path, monkeypatch: pytest.MonkeyPatch, *more: Any
) -> list[dict[str, Any]]:
    options = ("--adapter", adapter, "--dataset", dataset, "--dtype", "float32", "--output", output)
    call(predict.main, monkeypatch, *options, *more)
    rows: list[dict[str, Any]] = pq.read_table(output.with_suffix(".parquet")).to_pylist()
    return rows


@pytest.mark.slow
def test_calibrate_finds_the_gain_and_predict_grounds_by_default(
    adapter_folder: Path, calibrated: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads((calibrated / "calibration.json").read_text())
    grounding = content["grounding"]
    assert grounding["is_better"] and grounding["gain"]["low"] > 0.5
    assert grounding["share_right"]["grounded"] > 0.9 > 0.1 > grounding["share_right"]["alone"]
    loaded = load_calibration(calibrated / "calibration.json")
    assert loaded is not None and loaded.grounding is not None and loaded.grounding.weights == grounding["weights"]

    rows = run_predict(calibrated, dataset, tmp_path / "default.csv", monkeypatch)
    labels = [f"{position + 2}.5" for position in range(13)]
    assert [row["prediction"].partition(" ")[0] for row in rows[:-1]] == labels[:-1]
    for row in rows[:-1]:
        assert row["box"] == pytest.approx(list(BOX)) and 0.5 < row["confidence"] <= 1
        assert row["number_confidence"] >= row["confidence"] * 0.99
    assert rows[-1]["box"] is None and rows[-1]["prediction"].partition(" ")[0] != labels[-1]
    run = read_run(tmp_path / "default.parquet")
    assert (run["ground"], run["ocr_texts"]) == ("ocr", "an engine") and "value +" in run["grounding"]
    assert len(run["ocr_texts_sha256"]) == 64 and "unit shares" in run["grounding"]

    alone = run_predict(calibrated, dataset, tmp_path / "none.csv", monkeypatch, "--ground", "none")
    before = run_predict(adapter_folder, dataset, tmp_path / "before.csv", monkeypatch)  # its file says nothing of OCR
    assert [row["prediction"] for row in alone] == [row["prediction"] for row in before]
    assert all(row["box"] is None for row in alone)
    assert "ground" not in read_run(tmp_path / "none.parquet")
    assert alone[-1]["prediction"] == rows[-1]["prediction"]

    for more in (("--num_beams", 3), ("--batch_size", 4), ("--dataloader_num_workers", 2)):
        again = run_predict(calibrated, dataset, tmp_path / "again.csv", monkeypatch, *more)
        assert [row["prediction"] for row in again] == [row["prediction"] for row in rows]
        assert [row["confidence"] for row in again] == pytest.approx([row["confidence"] for row in rows], rel=1e-3)
        assert [row["box"] for row in again] == [row["box"] for row in rows]


@pytest.mark.slow
def test_calibrate_says_that_it_takes_the_weights_of_ocr_away(
    calibrated: Path, dataset: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = Path(shutil.copytree(calibrated, tmp_path / "adapter"))
    file = folder / "calibration.json"
    assert json.loads(file.read_text())["made_with"]["ocr_texts"] == "an engine"
    options = ("--adapter", folder, "--dataset", dataset, "--dtype", "float32", "--ground", "none")
    for has_weights in (True, False):
        call(calibrate.main, monkeypatch, *options)
        assert "grounding" not in json.loads(file.read_text())
        printed = capsys.readouterr().out
        assert ("had weights for it, and now has none (--ground none); they were: all +0" in printed) == has_weights


@pytest.mark.faults  # a minute of two cores
def test_three_processes_give_the_grounded_predictions_of_one(
    calibrated: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--dtype", "float32", "--batch_size", "2", "--ground", "ocr")
    one = run_predict(calibrated, dataset, tmp_path / "one.csv", monkeypatch, *options)
    three = launch_predict(str(calibrated), dataset, tmp_path / "three.csv", *options, processes="3")
    assert list(three["prediction"]) == [row["prediction"] for row in one]
    assert list(three["confidence"]) == pytest.approx([row["confidence"] for row in one], rel=1e-6)
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "three.csv").read_bytes()


@pytest.mark.slow
def test_shards_are_grounded_and_merged_with_shards_of_the_same_texts_only(
    calibrated: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Path(shutil.copytree(dataset, tmp_path / "dataset"))
    options = ("--batch_size", "4")
    expected = run_predict(calibrated, own, tmp_path / "one.csv", monkeypatch, *options)
    sources = (
        "--adapter",
        calibrated,
        "--dataset",
        own,
        "--dtype",
        "float32",
        "--output",
        tmp_path / "s.csv",
        *options,
    )
    for shard in ("1/2", "2/2"):
        call(predict.main, monkeypatch, *sources, "--shard", shard)
    with pytest.raises(InputError, match="ground"):
        call(predict.main, monkeypatch, *sources, "--merge", 2, "--ground", "none")
    call(predict.main, monkeypatch, *sources, "--merge", 2)
    assert (tmp_path / "s.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    merged = pq.read_table(tmp_path / "s.parquet").to_pylist()
    assert [row["box"] for row in merged] == [row["box"] for row in expected]
    # Texts that were read again make other predictions: shards of both are not merged.
    file = own / "ocr" / "test-00000-of-00001.parquet"
    write_texts(file, [TextRow("https://example.com/5000.jpg", None, ImageText(9, 9))], engine="an engine")
    call(predict.main, monkeypatch, *sources, "--shard", "2/2")
    with pytest.raises(InputError, match="ocr_texts_sha256"):
        call(predict.main, monkeypatch, *sources, "--merge", 2)


@pytest.mark.slow
def test_the_reader_grounds_with_the_texts_of_an_image(calibrated: Path, adapter_folder: Path) -> None:
    class TestEngine:
        """An engine of one's own."""

        description = "a test's engine"

        def read(self, image: Any) -> ImageText:
            return ImageText(*image.size, (make_box("Net Wt 7.5 g", 0.95, CORNERS),))

    reader = AttributeReader.from_pretrained(str(calibrated), dtype="float32")
    image = make_rows(1)[0]["image"]
    text = TestEngine().read(image)
    answer = reader.read(image, "item_weight", ocr=text)
    assert answer.prediction == "7.5 gram" and answer.box == pytest.approx(BOX)
    assert reader.read(image, "item_weight", ocr=TestEngine()) == answer
    assert json.loads(json.dumps(answer.as_dict()))["box"] == pytest.approx(list(BOX))
    alone = reader.read(image, "item_weight")
    assert alone.prediction != "7.5 gram" and alone.box is None
    items = [image, (image, "voltage"), b"no image"]
    many = list(reader.read_many(items, entity_name="item_weight", ocr=TestEngine(), batch_size=2))
    assert many[0].prediction == "7.5 gram" and many[0].box == answer.box
    assert many[1].box is None and many[2].error is not None
    both = reader.read_batch([image, image], ["item_weight", "voltage"], ocr=[text, ImageText(*image.size)])
    assert [one.box is None for one in both] == [False, True]
    with pytest.raises(ValueError, match="`ocr` has the texts of 1 images, but there are 2 `images`"):
        reader.read_batch([image, image], ["item_weight", "voltage"], ocr=[text])
    plain = AttributeReader.from_pretrained(str(adapter_folder), dtype="float32")
    with pytest.raises(ValueError, match=r"`ocr` needs an adapter whose calibration\.json says how far to trust OCR"):
        plain.read(image, "item_weight", ocr=text)
    with pytest.raises(ValueError, match="`ocr` needs an adapter"):
        plain.read_many([image], entity_name="item_weight", ocr=TestEngine())
    free = AttributeReader.from_pretrained(str(calibrated), dtype="float32", constrain=False)
    with pytest.raises(ValueError, match="`ocr` needs constrained answers"):
        free.read(image, "item_weight", ocr=text)


@needs_engine
@pytest.mark.slow
def test_a_folder_of_images_is_grounded_where_that_is_asked_for(
    calibrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real engine reads a number that the adapter cannot know."""
    (tmp_path / "images").mkdir()
    label = Image.new("RGB", (400, 200), "white")
    ImageDraw.Draw(label).text((40, 60), "Net Wt 85.5 g", fill="black", font=ImageFont.load_default(48))
    label.save(tmp_path / "images" / "label.png")
    options = ("--adapter", calibrated, "--images", tmp_path / "images", "--entities", "item_weight", "--dtype",
               "float32", "--output", tmp_path / "answers.csv")  # fmt: skip
    call(predict.main, monkeypatch, *options, "--ground", "ocr")
    assert "85.5,gram" in (tmp_path / "answers.csv").read_text()
    (row,) = pq.read_table(tmp_path / "answers.parquet").to_pylist()
    left, top, right, bottom = row["box"]
    assert 0 < left < 0.2 and 0.2 < top < 0.4 and 0.7 < right < 1 and top + 0.1 < bottom < 0.7
    call(predict.main, monkeypatch, *options)
    assert "85.5" not in (tmp_path / "answers.csv").read_text()
    assert pq.read_table(tmp_path / "answers.parquet")["box"].to_pylist() == [None]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("is_calibrated", "options", "message"),
    [
        (False, ("--ground", "ocr"), "no calibration.json that says how far to trust OCR"),
        (True, ("--ground", "ocr", "--constrain", "off"), "--ground ocr chooses among valid answers"),
        (True, ("--ground", "ocr", "--reader", "ocr"), "drop --adapter, or drop --reader"),
    ],
)
def test_what_cannot_be_grounded_is_named(
    adapter_folder: Path, calibrated: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    is_calibrated: bool, options: tuple[str, ...], message: str,
) -> None:  # fmt: skip
    with pytest.raises(InputError, match=message):
        run_predict(
            calibrated if is_calibrated else adapter_folder, dataset, tmp_path / "s.csv", monkeypatch, *options
        )


@pytest.mark.slow
def test_without_texts_the_default_says_what_it_misses(
    calibrated: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    run_predict(calibrated, tiny_dataset, tmp_path / "s.csv", monkeypatch)
    assert "is better with OCR" in caplog.text and "python -m dataset_builder.ocr" in caplog.text
    assert "ground" not in read_run(tmp_path / "s.parquet")
