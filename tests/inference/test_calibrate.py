"""calibrate: fitted on a labelled split, measured on rows that the fit did not see, applied by every reader."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from safetensors.torch import load_file, save_file

from inference import AttributeReader, calibrate, predict, predicted_rows
from inference.calibrate import cross_fit, measure
from inference.dataloader import RowBatch
from product_vqa.errors import InputError
from product_vqa.modeling.calibration import fit_calibration, load_calibration, log_loss
from product_vqa.task.features import FEATURES
from tests.commands import call
from tests.tiny import make_rows, save_dataset


@pytest.mark.slow
def test_a_part_of_the_split_is_drawn_at_random(
    adapter: tuple[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first rows are of few products."""
    rows = make_rows(60)
    Dataset.from_list(rows, features=FEATURES).to_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet")
    asked: list[int] = []
    to_table = predicted_rows.to_table

    def record(batch: RowBatch, answers: Any) -> Any:
        asked.extend(row["index"] for row in batch.rows)
        return to_table(batch, answers)

    monkeypatch.setattr(predicted_rows, "to_table", record)
    options = ["--adapter", adapter[0], "--dataset", tmp_path, "--output_dir", tmp_path, "--max_samples", "30"]
    for seed in (0, 0, 1):
        call(calibrate.main, monkeypatch, *options, "--seed", str(seed))
    first, again, other = asked[:30], asked[30:60], asked[60:]
    assert len(set(first)) == 30 and max(first) > 45 and first == again != other


@pytest.mark.slow
def test_a_calibration_of_another_adapter_is_ignored_with_a_warning(
    adapter: tuple[str, Any], adapter_folder: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """In a folder and in a repo: one without a hash is from before they were bound, and as unknown."""
    folder = Path(shutil.copytree(adapter_folder, tmp_path / "adapter"))
    call(calibrate.main, monkeypatch, "--adapter", folder, "--dataset", dataset)
    file = folder / "calibration.json"
    content = json.loads(file.read_text())
    question = make_rows(1)[0]["image"], "item_weight"

    def confidence(name: str, **options: Any) -> float:
        caplog.clear()
        return AttributeReader.from_pretrained(name, **options).read(*question).confidence

    raw = confidence(str(folder), calibrated=False)
    calibrated = confidence(str(folder))
    assert "ignored" not in caplog.text
    assert calibrated != pytest.approx(raw, rel=1e-3)
    api = HfApi()
    api.create_repo("local/bound", private=True)
    weights = folder / "adapter_model.safetensors"
    tensors = load_file(weights)
    for change, message in (
        ("another adapter", "was fitted on another adapter"),
        ("no hash", "does not record which adapter it was fitted on"),
        ("another calibration", "was fitted on another adapter"),
    ):
        if change == "another adapter":
            save_file({name: tensor * (1 + 1e-6) for name, tensor in tensors.items()}, weights)
        elif change == "no hash":
            file.write_text(json.dumps({name: value for name, value in content.items() if name != "adapter_sha256"}))
        else:
            file.write_text(json.dumps(content | {"adapter_sha256": "0" * 64}))
        assert confidence(str(folder)) == pytest.approx(raw, rel=1e-3)
        assert message in caplog.text
        api.upload_folder(repo_id="local/bound", folder_path=folder)
        assert confidence("local/bound") == pytest.approx(raw, rel=1e-3)
        assert message in caplog.text


def test_what_calibration_brings_is_measured_on_rows_that_the_fit_did_not_see() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 0.99, 60)
    table = pd.DataFrame({"image_link": [f"{n // 2}" for n in range(60)], "confidence": confidence})
    table = table.assign(number_confidence=confidence, unit_confidence=confidence, is_number_right=True)
    table["is_right"] = rng.uniform(size=60) < confidence
    seen = log_loss(confidence, table["is_right"].to_numpy(), fit_calibration(table).answer)
    assert measure(table, cross_fit(table))["log_loss"]["after"] > seen
    # An image's rows are held out together: where the other images say nothing, nothing is changed.
    alone = table.assign(image_link="one")
    assert cross_fit(alone) == pytest.approx(confidence)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """40 labelled rows; what the adapter has learnt to answer is right for three in four."""
    rows = make_rows(40)
    for row in rows[::4]:
        row["entity_value"] = row["entity_value_raw"] = "7.0 gram"
    (tmp_path / "data").mkdir()
    Dataset.from_list(rows, features=FEATURES).to_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet")
    return tmp_path


@pytest.mark.slow
def test_calibrated_through_the_hub(
    adapter: tuple[str, Any], dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "local/calibrated"
    copy_repo(adapter[0], name)
    before = HfApi().model_info(name).sha
    arguments = ["--adapter", name, "--dataset", dataset]
    call(calibrate.main, monkeypatch, *arguments, "--push_to_hub")
    file = Path(hf_hub_download(name, "calibration.json"))
    content = json.loads(file.read_text())
    assert content["answer"]["temperature"] > 1.2  # it was sure of answers of which a quarter is wrong
    assert content["log_loss"]["after"] < content["log_loss"]["before"]
    assert content["calibration_error"]["after"] < content["calibration_error"]["before"]
    assert (content["rows"], content["share_right"]) == (40, 0.75)
    assert content["made_with"]["adapter"] == f"{name}@{before}"

    tables = {}
    for revision in (before, "main"):
        output = tmp_path / f"{revision}.csv"
        call(predict.main, monkeypatch, "--adapter", f"{name}@{revision}", "--dataset", dataset, "--split",
             "validation", "--output", output)  # fmt: skip
        tables[revision] = pd.read_parquet(output.with_suffix(".parquet"))
    raw, calibrated = tables[before], tables["main"]
    assert list(raw["prediction"]) == list(calibrated["prediction"])
    scaling = load_calibration(file).answer
    assert list(calibrated["confidence"]) == pytest.approx([*map(scaling, raw["confidence"])])
    answer = AttributeReader.from_pretrained(name).read(make_rows(1)[0]["image"], "item_weight")
    assert answer.confidence == pytest.approx(calibrated["confidence"][0], rel=1e-3)


def copy_repo(source: str, target: str) -> None:
    HfApi().create_repo(target, private=True)
    HfApi().upload_folder(repo_id=target, folder_path=snapshot_download(source))


@pytest.mark.slow
def test_predictions_below_the_minimum_confidence_are_empty(
    adapter: tuple[str, Any], dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = {}
    for threshold in (0.0, 1.0):
        output = tmp_path / f"{threshold}.csv"
        call(predict.main, monkeypatch, "--adapter", adapter[0], "--dataset", dataset, "--split", "validation",
             "--output", output, "--min_confidence", str(threshold))  # fmt: skip
        tables[threshold] = pd.read_parquet(output.with_suffix(".parquet"))
    assert (tables[0.0]["prediction"] != "").all()
    assert list(tables[1.0]["answer"]) == list(tables[0.0]["answer"])  # what it was is kept
    abstained = tables[1.0]["prediction"] == ""
    assert list(abstained) == list(tables[0.0]["confidence"] < 1.0)
    assert abstained.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "test"], "0 labelled rows, at least 20 are needed"),
        (["--split", "nowhere"], "nowhere"),
        (["--max_samples", "-1"], "--max_samples must not be negative"),
        ([], "is a repo: pass --push_to_hub to push calibration.json there"),
    ],
)
def test_what_cannot_be_calibrated_is_named(
    adapter: tuple[str, Any], tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], message: str,
) -> None:  # fmt: skip
    folder = ["--output_dir", tmp_path] if arguments else []
    with pytest.raises(InputError, match=message):
        call(calibrate.main, monkeypatch, "--adapter", adapter[0], "--dataset", tiny_dataset, *folder, *arguments)
    assert not (tmp_path / "calibration.json").exists()


@pytest.mark.slow
def test_calibrating_twice_gives_the_same_calibration(
    adapter_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is fitted on the model's own confidences, even if the adapter has a calibration already."""
    folder = Path(shutil.copytree(adapter_folder, tmp_path / "adapter"))
    dataset = save_dataset(tmp_path / "labelled", train=0, validation=40, test=3)
    file = folder / "calibration.json"
    contents = []
    for _ in range(2):
        call(calibrate.main, monkeypatch, "--adapter", folder, "--dataset", dataset, "--dtype", "float32")
        contents.append(json.loads(file.read_text()))
        scaling = {"temperature": 2.0, "bias": 0.5}  # of the same adapter, so the reader would apply it
        file.write_text(json.dumps(contents[0] | {"answer": scaling, "number": scaling, "unit": scaling}))
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        "[" * 5000,
        '{"answer": {"temperature": 1' + "0" * 400 + '}, "number": {}, "unit": {}}',
        '{"answer": {}, "number": {}}',
        '{"answer": {"temperature": -1}, "number": {}, "unit": {}}',
    ],
)
def test_a_file_that_is_not_a_calibration_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(InputError, match=r"calibration.json is malformed"):
        load_calibration(tmp_path / "calibration.json")


@pytest.mark.parametrize(
    "change",
    [
        {"weights": [1]},
        {"weights": {"value": 16.0}},
        {"weights": {"value": float("nan")}},
        {"weights": {"value": "much"}},
        {"unit_shares": {"height": 1}},
        {"unit_shares": {"height": {"inch": -0.5}}},
        {"unit_shares": None},
        {"answer": {"temperature": 0}},
        {"number": None},
        [],
    ],
)
def test_a_grounding_that_is_none_is_named(tmp_path: Path, change: Any) -> None:
    scalings = {name: {"temperature": 1.0, "bias": 0.0} for name in ("answer", "number", "unit")}
    grounding = {"weights": {"value": 2.0}, "unit_shares": {"height": {"inch": 0.5}}, "is_better": True, **scalings}
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps({**scalings, "grounding": grounding}))
    loaded = load_calibration(file)
    assert loaded is not None and loaded.grounding is not None and loaded.grounding.is_better
    assert loaded.grounding.weights == {"value": 2.0}
    wrong = {**grounding, **change} if isinstance(change, dict) else change
    file.write_text(json.dumps({**scalings, "grounding": wrong}))
    with pytest.raises(InputError, match=r"calibration.json is malformed .*grounding"):
        load_calibration(file)
