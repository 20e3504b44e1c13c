"""The chain on the challenge's own rows and images, each stage handing the next a repo on the Hub."""

import json
from pathlib import Path

import pandas as pd
import pytest
from huggingface_hub import HfApi

from tests.commands import ROOT, launch, run_module

pytestmark = pytest.mark.slow


@pytest.mark.data
def test_real_rows_and_images_become_an_accepted_submission(
    data_dir: Path, tiny_repos: tuple[str, str], tmp_path: Path
) -> None:
    base, _ = tiny_repos
    (tmp_path / "images").mkdir()
    for folder in ("train", "test"):
        for image in (data_dir / "images" / folder).iterdir():
            (tmp_path / "images" / image.name).symlink_to(image)
    test_csv = data_dir / "test_with_images.csv"
    run_module(
        "dataset_builder.build", "--train_csv", data_dir / "train_with_images.csv", "--test_csv", test_csv,
        "--image_dir", tmp_path / "images", "--output_dir", tmp_path / "dataset", "--push_to_hub",
        "--hub_dataset_id", "local/real",
    )  # fmt: skip
    launch(
        "training.sft", "--config", ROOT / "training/configs/quickstart.yaml", "--dataset_name", "local/real",
        "--model_name_or_path", base, "--output_dir", tmp_path / "run", "--max_steps", 2, "--max_eval_samples", 4,
        "--push_to_hub", "--hub_model_id", "local/real-adapter",
    )  # fmt: skip
    submission = tmp_path / "submission.csv"
    launch("inference.predict", "--adapter", "local/real-adapter", "--dataset", "local/real", "--output", submission)
    expected = pd.read_csv(test_csv)["index"]
    assert len(expected) == 809
    assert list(pd.read_csv(submission)["index"]) == list(expected)
    for flags in ([], ["--official"]):
        done = run_module("inference.check", "--submission", submission, "--test_csv", test_csv, "--json", *flags)
        assert json.loads(done.stdout)["rows"] == 809
    assert HfApi().dataset_info("local/real").private
