"""The arguments that most runs of this room start with, and a repo of their own for those that push."""

import secrets
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from local_hub import LocalHub
from tests.commands import ROOT


@pytest.fixture(scope="session")
def tiny_run(tiny_base: Path, tiny_dataset: Path) -> list[str | Path]:
    """The quickstart's configuration on the tiny base model and dataset, with batches of two."""
    return [
        "--config", ROOT / "training/configs/quickstart.yaml", "--dataset_name", tiny_dataset, "--model_name_or_path",
        tiny_base, "--base_model_id", "user/base", "--per_device_train_batch_size", "2",
    ]  # fmt: skip


@pytest.fixture
def repo_id(hub: LocalHub) -> str:
    """A new model repo on the local Hub."""
    name = f"local/{secrets.token_hex(8)}"
    HfApi().create_repo(name, private=True)
    return name
