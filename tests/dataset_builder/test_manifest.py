import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from dataset_builder import build
from dataset_builder.leakage import Leak
from product_vqa.errors import InputError
from tests.commands import call
from tests.dataset_builder.challenge import find_earlier_build
from tests.dataset_builder.files import Shop

KEYS = [
    "fingerprint", "sources", "picture_source", "image_size", "ranges", "validation_size", "seed", "versions", "rows",
    "rows_left_out", "images_missing", "oversize", "leaks", "placeholders", "files", "dataset_info", "row_selection",
    "is_challenge",
]  # fmt: skip


@pytest.fixture
def built(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Path:
    call(build.main, monkeypatch, *shop.arguments(), "--validation_size", "0.25", "--output_dir", shop.folder / "out")
    return shop.folder / "out"


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shop = Shop(tmp_path_factory.mktemp("shop"))
    with pytest.MonkeyPatch.context() as patch:
        call(build.main, patch, *shop.arguments(), "--output_dir", shop.folder / "out")
    return shop.folder / "out"


@pytest.fixture
def copied(built_once: Path, tmp_path: Path) -> Path:
    """The folder of a build, to be changed."""
    return Path(shutil.copytree(built_once, tmp_path / "out"))


def read(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "build.json").read_text())
    return content


def test_the_manifest_says_what_a_build_was_made_from_and_what_is_in_it(built: Path) -> None:
    content = read(built)
    assert list(content) == KEYS
    assert list(content["sources"]) == ["train_csv", "test_csv"]
    assert content["picture_source"] == "image_dir"
    assert (content["image_size"], content["ranges"], content["validation_size"]) == (448, "leave_out", 0.25)
    assert {split: sum(counts.values()) for split, counts in content["rows"].items()} == {
        "train": 8, "validation": 3, "test": 4,
    }  # fmt: skip
    assert content["rows_left_out"] == {"range_brackets": 1}
    assert content["images_missing"] == {}
    assert [leak["splits"] for leak in content["leaks"]] == [
        ["train", "validation"], ["train", "test"], ["validation", "test"],
    ]  # fmt: skip
    assert not content["is_challenge"]


def test_an_earlier_build_is_found_with_its_records(built: Path) -> None:
    earlier = find_earlier_build(built)
    assert earlier is not None
    assert earlier.fingerprint == read(built)["fingerprint"]
    assert all(isinstance(leak, Leak) for leak in earlier.leaks) and len(earlier.leaks) == 3


@pytest.mark.parametrize("change", [{"new_key": 1}, {"leaks": [{"splits": ["train", "test"]}]}, {"seed": None}])
def test_a_build_of_another_version_counts_as_none(built: Path, change: dict[str, Any]) -> None:
    content = read(built)
    if change == {"seed": None}:
        del content["seed"]
    else:
        content |= change
    (built / "build.json").write_text(json.dumps(content))
    assert find_earlier_build(built) is None


INVALID: list[dict[str, Any]] = [
    {"fingerprint": "# heading"}, {"sources": []}, {"sources": {"train_csv": {"file": "a"}}},
    {"sources": {"x": {"file": "a", "sha256": "0" * 64}}}, {"picture_source": "<b>"}, {"image_size": "448"},
    {"ranges": "# heading"}, {"validation_size": "0"}, {"validation_size": 2}, {"seed": None},
    {"versions": {"a": "\n# heading"}}, {"versions": {"a": 1}}, {"rows": {}}, {"rows": {"# heading": {}}},
    {"rows": {"train": {"<b>": 1}}}, {"rows": {"train": {"width": "1"}}}, {"rows_left_out": {"# a": 1}},
    {"images_missing": {"http_404": "1"}}, {"oversize": [{"rows": "1", "example": "a"}]},
    {"leaks": [{"splits": ["train", "<b>"]}]}, {"leaks": {}}, {"placeholders": "abc"},
    {"placeholders": [{"kind": "<b>", "urls": 1, "rows": 1, "example": "a"}]}, {"dataset_info": []}, {"files": []},
    {"is_challenge": "yes"},
]  # fmt: skip


@pytest.mark.parametrize("change", INVALID, ids=str)
def test_a_record_with_other_types_than_a_build_writes_counts_as_none(copied: Path, change: dict[str, Any]) -> None:
    assert find_earlier_build(copied) is not None
    (copied / "build.json").write_text(json.dumps(read(copied) | change))
    assert find_earlier_build(copied) is None


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("is_garbled", [False, True])
def test_a_truncated_or_garbled_record_is_one_line(copied: Path, share: float, is_garbled: bool) -> None:
    content = bytearray((copied / "build.json").read_bytes())
    position = int(share * len(content))
    content[position : position + 40 if is_garbled else None] = b"\xff" if is_garbled else b""
    (copied / "build.json").write_bytes(content)
    with pytest.raises(InputError, match=rf"^`output_dir` {copied}: contains files that are not an earlier build"):
        find_earlier_build(copied)


def test_a_record_that_is_a_pipe_does_not_hang(copied: Path) -> None:
    (copied / "build.json").unlink()
    os.mkfifo(copied / "build.json")
    with pytest.raises(InputError, match="contains files that are not an earlier build"):
        find_earlier_build(copied)


def test_a_file_that_no_build_writes_is_never_removed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, built: Path
) -> None:
    arguments = [*shop.arguments(), "--output_dir", str(built), "--validation_size"]
    for name in ("notes.txt", "data/mine.parquet", "rows/notes.md", ".env", "images/a.jpg", "data/train-1.parquet"):
        (built / name).parent.mkdir(exist_ok=True)
        (built / name).write_text("mine")
        for validation_size in ("0.25", "0"):  # the same again, and another
            with pytest.raises(InputError, match=rf"^--output_dir {built}: contains {name}, which no build writes"):
                call(build.main, monkeypatch, *arguments, validation_size)
        assert (built / name).read_text() == "mine"
        (built / name).unlink()
    (built / ".DS_Store").touch()
    call(build.main, monkeypatch, *arguments, "0")


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_where_nothing_is_there_is_no_earlier_build(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    assert find_earlier_build(tmp_path / name) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"seed": 0}'])
def test_other_files_are_not_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "build.json").write_text(content)
    with pytest.raises(InputError, match=r"`output_dir` .*: contains files that are not an earlier build"):
        find_earlier_build(tmp_path)
