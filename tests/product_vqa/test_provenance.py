import os
from pathlib import Path

import pytest

from product_vqa.errors import InputError, argument
from product_vqa.hub import Location
from product_vqa.provenance import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    BASE_MODEL_FILES,
    DATASET_FILES,
    adapter_sha256,
    check_content,
    content_sha256,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("data/test-0.parquet", "data/train-0.parquet", "README.md", ".cache/x.parquet", "data/.y.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def test_a_folder_is_its_files_and_not_their_dates_or_its_name(folder: Path, tmp_path_factory) -> None:
    before = content_sha256(Location(str(folder)), DATASET_FILES)
    os.utime(folder / "data" / "test-0.parquet", (1, 1))
    (folder / "README.md").write_text("another card")
    (folder / ".cache" / "x.parquet").write_text("another")
    moved = folder.rename(tmp_path_factory.mktemp("elsewhere") / "moved")
    assert content_sha256(Location(str(moved)), DATASET_FILES) == before


@pytest.mark.parametrize("change", ["edit", "rename", "add", "remove", "swap"])
def test_another_content_is_another_hash(folder: Path, change: str) -> None:
    before = content_sha256(Location(str(folder)), DATASET_FILES)
    test, train = folder / "data" / "test-0.parquet", folder / "data" / "train-0.parquet"
    if change == "edit":
        test.write_text("data/test-1.parquet")  # of the same size
    elif change == "rename":
        test.rename(folder / "data" / "test-1.parquet")
    elif change == "add":
        (folder / "validation.parquet").touch()
    elif change == "remove":
        train.unlink()
    else:
        first, second = test.read_text(), train.read_text()
        test.write_text(second)
        train.write_text(first)
    assert content_sha256(Location(str(folder)), DATASET_FILES) != before


def test_a_repo_is_its_commit() -> None:
    assert content_sha256(Location("user/dataset", "0" * 40), BASE_MODEL_FILES) is None


def test_what_is_expected_is_compared(folder: Path) -> None:
    location = Location(str(folder))
    found = content_sha256(location, DATASET_FILES)
    assert check_content(location, DATASET_FILES, expected=None) == found
    assert check_content(location, DATASET_FILES, expected=found) == found
    with (
        pytest.raises(InputError, match=r"`dataset_sha256` 0123: the content of .* is now"),
        argument("dataset_sha256"),
    ):
        check_content(location, DATASET_FILES, expected="0123")


def test_an_adapter_is_its_weights_and_its_configuration(tmp_path: Path) -> None:
    hashes = set()
    for weights, config in (("a", "b"), ("a", "c"), ("d", "b"), ("ab", "")):
        (tmp_path / ADAPTER_WEIGHTS).write_text(weights)
        (tmp_path / ADAPTER_CONFIG).write_text(config)
        (tmp_path / "calibration.json").write_text(weights)
        hashes.add(adapter_sha256(tmp_path))
    assert len(hashes) == 4
    (tmp_path / "calibration.json").unlink()
    assert adapter_sha256(tmp_path) in hashes
