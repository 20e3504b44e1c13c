"""A dataset of several row groups that is streamed from the Hub, and a Hub that can be made to fail."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from tests.faulty_hub import FaultyHub, faulty_hub, point_at
from tests.tiny import make_rows, save_row_groups

REPO = "local/streamed"


def save_streamed(folder: Path) -> Path:
    """62 rows for training in 14 row groups of two files."""
    splits = {"train": make_rows(62), "validation": make_rows(21, start=1000), "test": make_rows(9, start=2000)}
    return save_row_groups(folder, splits, has_table=True)


def push(folder: Path) -> str:
    HfApi().create_repo(REPO, repo_type="dataset", exist_ok=True)
    HfApi().upload_folder(repo_id=REPO, folder_path=folder, repo_type="dataset")
    return REPO


@contextmanager
def hub_with_faults(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyHub]:
    """A Hub of its own that has the dataset, and that this process asks."""
    with faulty_hub(tmp_path) as hub:
        point_at(hub, monkeypatch)
        push(folder)
        yield hub
