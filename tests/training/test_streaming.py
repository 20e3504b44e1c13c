"""Training on rows that are read from the Hub meanwhile: the same training as on a copy of them on disk."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from tests.commands import call
from tests.tiny import make_rows, save_row_groups
from tests.training.runs import check_equal_adapters, read_log
from training import sft

pytestmark = pytest.mark.slow
REPO = "local/streamed"


@pytest.fixture(scope="module")
def repo(hub: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """62 rows for training in 14 row groups of two files; the folder that was pushed."""
    splits = {"train": make_rows(62), "validation": make_rows(21, start=1000), "test": make_rows(9, start=2000)}
    folder = save_row_groups(tmp_path_factory.mktemp("datasets") / "streamed", splits)
    HfApi().create_repo(REPO, repo_type="dataset")
    HfApi().upload_folder(repo_id=REPO, folder_path=folder, repo_type="dataset")
    return folder


@pytest.fixture(scope="module")
def arguments(tiny_run: list[str | Path], repo: Path) -> list[str | Path]:
    """Four epochs of 16 steps of four samples, with an evaluation in each."""
    return [
        *tiny_run, "--dataset_name", REPO, "--num_train_epochs", "4", "--max_steps", "-1", "--save_steps", "10",
        "--logging_steps", "1", "--eval_steps", "16", "--lora_r", "4", "--dtype", "float32", "--bf16", "false",
        "--seed", "3", "--shuffle_buffer_size", "20", "--max_eval_samples", "9", "--load_best_model_at_end", "true",
        "--per_device_train_batch_size", "4", "--save_steps", "16",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def from_disk(arguments: list[str | Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output_dir = tmp_path_factory.mktemp("runs") / "from_disk"
    with pytest.MonkeyPatch.context() as monkeypatch:
        call(sft.main, monkeypatch, *arguments, "--output_dir", output_dir)
    return output_dir


def test_it_trains_and_scores_what_a_run_from_disk_does_without_a_copy(
    arguments: list[str | Path], from_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    call(sft.main, monkeypatch, *arguments, "--streaming", "true", "--output_dir", tmp_path / "run")
    assert not list((tmp_path / "cache").rglob("*.parquet"))
    assert read_log(tmp_path / "run") == read_log(from_disk)
    check_equal_adapters(tmp_path / "run", from_disk)
