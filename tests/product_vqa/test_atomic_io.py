import os
import subprocess
import sys
from pathlib import Path

import pytest

from product_vqa.atomic_io import atomic_write, replace_folder


def test_a_file_has_its_earlier_content_until_the_new_one_is_complete(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    for content in ("first", "second"):
        before = file.read_text() if file.exists() else None
        with atomic_write(file) as temporary:
            temporary.write_text(content)
            assert (file.read_text() if file.exists() else None) == before
        assert file.read_text() == content
    assert os.listdir(tmp_path) == ["report.html"]


@pytest.mark.parametrize("earlier", [None, "earlier"])
def test_an_error_while_writing_leaves_what_was_there_and_nothing_else(tmp_path: Path, earlier: str | None) -> None:
    file = tmp_path / "submission.csv"
    if earlier:
        file.write_text(earlier)
    with pytest.raises(ZeroDivisionError), atomic_write(file) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise ZeroDivisionError
    assert {name: (tmp_path / name).read_text() for name in os.listdir(tmp_path)} == (
        {"submission.csv": earlier} if earlier else {}
    )


def test_a_process_killed_while_writing_leaves_the_earlier_file(tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    file.write_text("earlier")
    code = (
        "import os, pathlib, sys\n"
        "from product_vqa.atomic_io import atomic_write\n"
        "with atomic_write(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, file], timeout=60).returncode == -9
    assert file.read_text() == "earlier"
    with atomic_write(file) as temporary:  # what the kill left is in nobody's way
        temporary.write_text("later")
    assert {name: (tmp_path / name).read_text() for name in os.listdir(tmp_path)} == {"calibration.json": "later"}


def folder_with(path: Path, content: str) -> Path:
    path.mkdir()
    (path / "data").write_text(content)
    return path


def test_a_folder_is_replaced_by_a_finished_one(tmp_path: Path) -> None:
    final = tmp_path / "dataset"
    for content in ("first", "second"):
        replace_folder(folder_with(tmp_path / "building", content), final)
        assert (final / "data").read_text() == content
        assert os.listdir(tmp_path) == ["dataset"]


def test_a_folder_that_cannot_be_replaced_is_there_as_before(tmp_path: Path) -> None:
    final = folder_with(tmp_path / "dataset", "earlier")
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "building", final)
    assert (final / "data").read_text() == "earlier"
    assert os.listdir(tmp_path) == ["dataset"]
