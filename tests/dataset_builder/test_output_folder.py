"""The folder of a build. What is in it is in test_manifest.py, errors while it is written in test_writer.py."""

import os
from pathlib import Path

import pytest

from dataset_builder.output_folder import check_output_dir, temporary_folder
from product_vqa.errors import InputError


@pytest.mark.parametrize("path", ["a::b", "a::b/out", "s3://bucket/out", "zip://x::out"])
def test_a_folder_that_datasets_would_take_for_an_archive_or_a_server_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"^`output_dir` {path}: a folder of this machine without `::`"):
        check_output_dir(path)
    assert not os.listdir(tmp_path)


def test_a_folder_within_one_with_colons_is_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a::b").mkdir()
    monkeypatch.chdir(tmp_path / "a::b")
    with pytest.raises(InputError, match=r"^`output_dir` .*a::b/out: has `::` in its name; choose another folder"):
        check_output_dir("out")


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_temporary_folder_is_on_the_same_disk_and_leaves_nothing(tmp_path: Path, is_killed: bool) -> None:
    if is_killed:
        (tmp_path / ".out.building").mkdir()
        (tmp_path / ".out.building" / "leftover").touch()
    with temporary_folder(tmp_path / "out") as temporary:
        assert temporary.parent == tmp_path and not list(temporary.iterdir())
        (temporary / "file").touch()
    assert not list(tmp_path.iterdir())
