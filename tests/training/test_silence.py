"""Silence from the dataset to the threshold: trained on empty answers, predicted with `shown`, scored, calibrated."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from datasets import Dataset

from inference import AttributeReader, calibrate, evaluate, predict, report
from product_vqa.hub import Location
from product_vqa.modeling.collator import make_training_batch
from product_vqa.modeling.loading import load_processor
from product_vqa.schemas import save_schema
from product_vqa.task.features import FEATURES
from product_vqa.task.schema import CHALLENGE
from tests.commands import call
from tests.tiny import make_rows
from training import sft

SILENT = CHALLENGE.with_not_shown(("width", "voltage"))


def make_asked(number: int, *, start: int) -> list[dict[str, object]]:
    """Every third question about the two attributes has no answer."""
    return [
        row | {"entity_value": "", "entity_value_raw": ""}
        if row["entity_name"] in SILENT.not_shown and row["index"] % 3 == 0
        else row
        for row in make_rows(number, start=start)
    ]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("silent")
    for split, number, start in (("train", 24, 0), ("validation", 60, 1000)):
        rows = Dataset.from_list(make_asked(number, start=start), features=FEATURES)
        rows.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    save_schema(SILENT, folder)
    return folder


def test_the_loss_of_an_empty_answer_is_on_its_end_token(tiny_base: Path) -> None:
    processor = load_processor(Location(str(tiny_base)))
    rows = [row | {"entity_name": "width", "entity_value": answer} for row, answer in zip(
        make_rows(2), ("", "12.25 inch"), strict=True)]  # fmt: skip
    empty, answered = make_training_batch(rows, processor=processor, schema=SILENT)["labels"]
    assert empty[empty != -100].tolist() == [processor.tokenizer.eos_token_id]
    assert (answered != -100).sum() > 3 and answered[answered != -100][-1] == processor.tokenizer.eos_token_id


@pytest.mark.slow
def test_from_empty_answers_to_a_threshold(
    dataset: Path, tiny_run: list[str | Path], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    adapter = tmp_path / "adapter"
    run = [*tiny_run, "--max_steps", "2", "--eval_strategy", "no", "--max_eval_samples", "0"]
    run[run.index("--dataset_name") + 1] = dataset
    assert call(sft.main, monkeypatch, *run, "--output_dir", adapter) == 0
    card = (adapter / "README.md").read_text()
    assert "About width, voltage it was also trained on questions that the image" in card
    assert "About item weight, maximum weight recommendation it answers even where" in card
    assert "it answers in the form `" in card and "\n\n\n" not in card

    sources = ["--adapter", adapter, "--base_model", tiny_base, "--dataset", dataset, "--split", "validation"]
    call(predict.main, monkeypatch, *sources, "--output", tmp_path / "s.csv", "--dtype", "float32", "--num_beams", "2")
    table = pd.read_parquet(tmp_path / "s.parquet")
    assert list(table.columns)[5:7] == ["confidence", "shown"]
    assert (table["shown"].notna() == table["entity_name"].isin(SILENT.not_shown)).all()
    assert table["shown"].dropna().between(0, 1).all() and table["shown"].nunique() > 5

    call(calibrate.main, monkeypatch, *sources, "--at_most_wrong", "0.9", "--dtype", "float32", "--max_samples", "0")
    printed = capsys.readouterr().out
    content = json.loads((adapter / "calibration.json").read_text())
    assert "shown: fitted on" in printed and "AUROC" in printed
    assert (content["shown_measured"]["rows"] + 0 < 40 and content["threshold"] is None) or "min_confidence" in printed
    reader = AttributeReader.from_pretrained(str(adapter), base_model=str(tiny_base), dtype="float32")
    row = make_asked(1, start=1001)[0]
    raw = AttributeReader.from_pretrained(str(adapter), base_model=str(tiny_base), dtype="float32", calibrated=False)
    one, other = (reading.read(row["image"], "voltage") for reading in (reader, raw))
    assert one.shown == pytest.approx(reader.calibration.shown(other.shown))

    call(evaluate.main, monkeypatch, "--predictions", tmp_path / "s.parquet", "--references",
         f"{dataset}:validation", "--bootstrap", "0")  # fmt: skip
    assert "NA precision" in capsys.readouterr().out
    call(report.main, monkeypatch, "--predictions", tmp_path / "s.parquet", "--dataset", dataset, "--output",
         tmp_path / "report.html", "--bootstrap", "0")  # fmt: skip
    page = (tmp_path / "report.html").read_text()
    assert "The probability that the image shows the attribute, of rows" in page and ", shown 0." in page
    assert torch.isfinite(torch.tensor(table["confidence"].to_numpy())).all()
