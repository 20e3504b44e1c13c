import os
from pathlib import Path

import pytest

from product_vqa.errors import InputError, argument
from product_vqa.paths import find_shipped, readable_file, writable_folder


def test_a_file_is_checked_and_named_with_its_argument(tmp_path: Path) -> None:
    (tmp_path / "train.csv").touch()
    assert readable_file(str(tmp_path / "train.csv")) == tmp_path / "train.csv"
    with pytest.raises(InputError, match=r"`train_csv` .*none\.csv: no such file"), argument("train_csv"):
        readable_file(tmp_path / "none.csv")
    with pytest.raises(InputError, match="is a folder, not a file"), argument("train_csv"):
        readable_file(tmp_path)


def test_a_folder_is_created_with_its_parents(tmp_path: Path) -> None:
    assert writable_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()
    assert writable_folder(tmp_path / "a" / "b").is_dir(), "it may exist"


def test_a_folder_that_cannot_be_created_is_named_with_its_argument(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"`output_dir` .*cannot be created"), argument("output_dir"):
        writable_folder(tmp_path / "file" / "sub")


def test_a_folder_without_write_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(InputError, match=rf"{tmp_path}: not writable; choose another folder"):
        writable_folder(tmp_path)


def test_a_shipped_file_is_found_by_its_name_where_the_user_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("gpu", "gpu.yaml", "training/accelerate_configs/gpu.yaml"):
        found = Path(find_shipped(name, folder="accelerate_configs"))
        assert found.is_absolute() and found.name == "gpu.yaml" and found.is_file()
    for name in ("none", "quickstart", "other/gpu.yaml", ""):
        assert find_shipped(name, folder="accelerate_configs") == name
    Path("gpu.yaml").write_text("own: 1\n")
    assert find_shipped("gpu.yaml", folder="accelerate_configs") == "gpu.yaml"
