"""What most runs of this room begin with."""

from pathlib import Path

import pytest

from tests.commands import ROOT


@pytest.fixture(scope="session")
def tiny_run(tiny_base: Path, tiny_dataset: Path) -> list[str | Path]:
    """Arguments of training.sft: the quickstart's configuration on the tiny base and dataset, two rows at a time."""
    return [
        "--config", ROOT / "training/configs/quickstart.yaml", "--dataset_name", tiny_dataset, "--model_name_or_path",
        tiny_base, "--base_model_id", "user/base", "--per_device_train_batch_size", "2",
    ]  # fmt: skip
