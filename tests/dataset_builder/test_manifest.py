import json
from pathlib import Path
from typing import Any

import pytest

from dataset_builder import build
from dataset_builder.leakage import Leak
from dataset_builder.manifest import find_earlier_build
from product_vqa.errors import InputError
from tests.commands import call
from tests.dataset_builder.files import Shop

KEYS = [
    "fingerprint", "sources", "picture_source", "image_size", "ranges", "validation_size", "seed", "versions", "rows",
    "rows_left_out", "images_missing", "oversize", "leaks", "placeholders", "dataset_info", "is_challenge",
]  # fmt: skip


@pytest.fixture
def built(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Path:
    call(build.main, monkeypatch, *shop.arguments(), "--validation_size", "0.25", "--output_dir", shop.folder / "out")
    return shop.folder / "out"


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


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_where_nothing_is_there_is_no_earlier_build(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    assert find_earlier_build(tmp_path / name) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"seed": 0}'])
def test_other_files_are_not_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "build.json").write_text(content)
    with pytest.raises(InputError, match=r"`output_dir` .*: contains files that are not an earlier build"):
        find_earlier_build(tmp_path)
