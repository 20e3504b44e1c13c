"""An adapter that has learned something, for the tests of this room."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, snapshot_download


@pytest.fixture(scope="session")
def adapter(tiny_repos: tuple[str, str], tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """An adapter on the Hub that has learned one answer per question, and the same model as it was in memory."""
    from tests.inference.adapters import train_adapter  # here: half of this room's tests need no torch

    folder = tmp_path_factory.mktemp("adapter")
    model = train_adapter(folder, tiny_base)
    HfApi().create_repo("local/trained-adapter", private=True)
    HfApi().upload_folder(repo_id="local/trained-adapter", folder_path=folder / "adapter")
    return "local/trained-adapter", model


@pytest.fixture(scope="session")
def adapter_folder(adapter: tuple[str, Any]) -> Path:
    """The files of that adapter. A test that changes them copies the folder first."""
    return Path(snapshot_download(adapter[0]))


@pytest.fixture(scope="module")
def adapter_reader(adapter: tuple[str, Any]) -> "AttributeReader":  # noqa: F821
    from inference import AttributeReader

    return AttributeReader.from_pretrained(adapter[0])
