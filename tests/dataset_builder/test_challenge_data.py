"""The challenge's own files, if they are available (see the marker `data` in pyproject.toml)."""

import json
import os
import shutil
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest

from dataset_builder import ProductVqa
from dataset_builder.image_preparation import prepare_image
from dataset_builder.labels import label_judge
from dataset_builder.leakage import find_leaks
from dataset_builder.split import hold_out
from product_vqa.task.schema import CHALLENGE
from product_vqa.task.schema_file import read_schema
from tests.commands import run_module
from tests.dataset_builder.challenge import filter_labels, read_train_csv

DATA = Path(os.environ.get("PRODUCT_VQA_DATA") or Path(__file__).resolve().parents[2].parent / "shared" / "data")
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not (DATA / "train.csv.gz").is_file(), reason="the challenge's files are not here"),
]


@pytest.mark.slow
def test_the_challenge_is_counted() -> None:
    files: list[str | Path] = ["--train_csv", DATA / "train.csv.gz", "--test_csv", DATA / "test.csv.gz"]
    done = run_module("dataset_builder.inspect", *files, "--json")
    counts = json.loads(done.stdout)
    assert (counts["train"]["rows"], counts["train"]["images"], counts["train"]["groups"]) == (263859, 255906, 750)
    assert (counts["test"]["rows"], counts["test"]["images"]) == (131187, 90666)
    assert counts["train"]["label_forms"] == {
        "plain": 259992, "range_brackets": 3276, "range_to": 272, "exponent": 5, "unit_unknown": 313, "broken": 1,
    }  # fmt: skip
    assert counts["train"]["unit_unsuitable"] == 469
    suspicious = counts["train"]["suspicious"]
    assert (suspicious["unit_unsuitable"], suspicious["zero"]) == (469, 534)
    assert suspicious["outlier"] > 0
    assert counts["train"]["rows_by_entity"]["item_weight"] == 102786
    assert counts["test"]["rows_by_entity"]["height"] == 32282


@pytest.mark.slow
def test_the_schema_of_the_challenge_is_proposed(tmp_path: Path) -> None:
    """Its eight attributes, and the 26 of its 31 units that labels have; and the horsepower of 245 labels."""
    file = tmp_path / "schema.yaml"
    run_module("dataset_builder.inspect", "--train_csv", DATA / "train.csv.gz", "--suggest_schema", file)
    schema = read_schema(file)
    assert sorted(schema.names) == sorted(CHALLENGE.names)
    assert set(schema.units) - set(CHALLENGE.units) == {"horsepower"}
    assert set(CHALLENGE.units) - set(schema.units) == {
        "yard", "kilovolt", "millivolt", "microlitre", "imperial gallon",
    }  # fmt: skip
    for dimension, units in schema.dimensions.items():
        for name in set(units) - {"horsepower"}:
            assert units[name].size == CHALLENGE.dimensions[dimension][name].size
    assert {difference.partition(" of ")[0] for difference in CHALLENGE.differences(schema)} == {"units"}
    text = file.read_text()
    assert "# 101,055 of 102,786 labels fit\n" in text
    assert "# does not fit: unit_unsuitable 300 (1.0 ounce, 4.0 ounce, 2.0 ounce)\n" in text


@pytest.mark.slow
def test_the_spellings_of_catalogues_change_no_label_of_the_challenge() -> None:
    judge, other = label_judge(CHALLENGE), label_judge(CHALLENGE, unit_spellings=True)
    labels = {(row.entity_name, row.entity_value) for row in read_train_csv(DATA / "train.csv.gz").rows}
    assert len(labels) == 21_679
    assert [label for label in labels if judge(*label) != other(*label)] == []


@pytest.mark.slow
def test_no_link_and_no_neighbour_of_the_real_rows_stands_in_two_splits() -> None:
    labelled, _ = filter_labels(read_train_csv(DATA / "train.csv.gz"), ranges="leave_out")
    rows = pd.DataFrame([row for row, _ in labelled]).assign(entity_value=[label for _, label in labelled])
    is_held_out, _ = hold_out(rows, validation_size=0.05, seed=0)
    assert is_held_out.mean() == pytest.approx(0.05, abs=0.0001)
    for entity, part in rows.groupby("entity_name"):
        assert is_held_out[part.index].mean() == pytest.approx(0.05, abs=0.005), entity
    (leak,) = find_leaks(rows.assign(split=np.where(is_held_out, "validation", "train")))
    assert (leak.crossing, leak.rows_crossing, leak.shared) == (0, 0, {"image_link": 0})
    assert leak.crossing_if_random > 1000


@pytest.mark.slow
def test_real_rows_and_images_become_a_dataset(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for folder in ("train", "test"):
        shutil.copytree(DATA / "images" / folder, images, copy_function=os.symlink, dirs_exist_ok=True)
    builder = ProductVqa(
        train_csv=DATA / "train_with_images.csv",
        test_csv=DATA / "test_with_images.csv",
        image_dir=images,
        cache_dir=tmp_path / "cache",
    )
    builder.download_and_prepare()
    dataset = builder.as_dataset()
    dropped = pd.read_csv(Path(builder.cache_dir) / "left_out.csv")
    assert dataset["train"].num_rows + dataset["validation"].num_rows == 147
    assert set(dropped["left_out"]) == {"row"}
    assert sorted(dropped["reason"]) == ["range_brackets", "range_to", "unit_unsuitable"]
    assert dataset["test"].num_rows == 809
    assert dataset["test"]["image"][808].size
    row = dataset["train"].cast_column("image", datasets.Image(decode=False))[0]
    original = (images / row["image_link"].rsplit("/", 1)[-1]).read_bytes()
    assert row["image"]["bytes"] == prepare_image(original, image_size=448).data
    files = {split: Path(builder.cache_dir) / "rows" / f"{split}.parquet" for split in dataset}
    rows = pd.concat([pd.read_parquet(file).assign(split=split) for split, file in files.items()], ignore_index=True)
    assert rows["sha256"].notna().all() and rows["phash"].notna().all()
    for leak in find_leaks(rows):
        if leak.splits == ("train", "validation"):
            assert (leak.crossing, leak.shared) == (0, {"image_link": 0, "sha256": 0, "phash": 0})
