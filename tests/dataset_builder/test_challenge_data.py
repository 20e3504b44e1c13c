"""The challenge's own files, where they lie (see the marker `data` in pyproject.toml)."""

import json
import os
import shutil
from pathlib import Path

import datasets
import pytest

from dataset_builder import ProductVqa
from dataset_builder.selection import count_left_out
from tests.dataset_builder.conftest import run_command

DATA = Path(os.environ.get("PRODUCT_VQA_DATA") or Path(__file__).resolve().parents[2].parent / "shared" / "data")
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not (DATA / "train.csv.gz").is_file(), reason="the challenge's files are not here"),
]


def test_the_challenge_is_counted(tmp_path: Path):
    files = ["--train_csv", DATA / "train.csv.gz", "--test_csv", DATA / "test.csv.gz"]
    done = run_command("inspect", *files, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert (counts["train"]["rows"], counts["train"]["images"], counts["train"]["groups"]) == (263859, 255906, 750)
    assert (counts["test"]["rows"], counts["test"]["images"]) == (131187, 90666)
    assert counts["train"]["label_forms"] == {
        "plain": 259992, "range_brackets": 3276, "range_to": 272, "exponent": 5, "unit_unknown": 313, "broken": 1,
    }  # fmt: skip
    assert counts["train"]["unit_unsuitable"] == 469
    assert counts["train"]["rows_by_entity"]["item_weight"] == 102786
    assert counts["test"]["rows_by_entity"]["height"] == 32282


def test_real_rows_and_photographs_become_a_dataset(tmp_path: Path):
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
    left_out = Path(builder.cache_dir) / "left_out.csv"
    assert dataset["train"].num_rows + dataset["validation"].num_rows == 147
    assert count_left_out(left_out, "row") == {"range_to": 1, "unit_unsuitable": 1, "range_brackets": 1}
    assert count_left_out(left_out, "image") == {}
    assert dataset["test"].num_rows == 809
    assert dataset["test"]["image"][808].size
    row = dataset["train"].cast_column("image", datasets.Image(decode=False))[0]
    assert row["image"]["bytes"] == (images / row["image_link"].rsplit("/", 1)[-1]).read_bytes()
