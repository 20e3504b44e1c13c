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
    TEXT_FILES,
    adapter_sha256,
    check_content,
    content_sha256,
    list_changes,
    processor_sha256,
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
    (folder / "data" / ".y.parquet").write_text("another")
    (folder / "data" / "folder.parquet").mkdir()
    moved = folder.rename(tmp_path_factory.mktemp("elsewhere") / "moved")
    assert content_sha256(Location(str(moved)), DATASET_FILES) == before


def test_the_texts_of_images_do_not_count_for_a_dataset_and_have_a_hash_of_their_own(folder: Path) -> None:
    location = Location(str(folder))
    before, empty = content_sha256(location, DATASET_FILES), content_sha256(location, TEXT_FILES)
    (folder / "ocr").mkdir()
    (folder / "ocr" / "test-0.parquet").write_text("texts")
    assert content_sha256(location, DATASET_FILES) == before
    texts = content_sha256(location, TEXT_FILES)
    (folder / "ocr" / "test-0.parquet").write_text("other texts")
    assert len({before, empty, texts, content_sha256(location, TEXT_FILES)}) == 4
    (folder / "data" / "ocr").mkdir()
    (folder / "data" / "ocr" / "test-0.parquet").touch()
    assert content_sha256(location, DATASET_FILES) != before


@pytest.mark.parametrize("change", ["edit", "rename", "add", "remove", "swap", "schema"])
def test_another_content_is_another_hash(folder: Path, change: str) -> None:
    before = content_sha256(Location(str(folder)), DATASET_FILES)
    test, train = folder / "data" / "test-0.parquet", folder / "data" / "train-0.parquet"
    if change == "edit":
        test.write_text("data/test-1.parquet")  # of the same size
    elif change == "rename":
        test.rename(folder / "data" / "test-1.parquet")
    elif change == "add":
        (folder / "validation.parquet").touch()
    elif change == "schema":
        (folder / "schema.yaml").touch()
    elif change == "remove":
        train.unlink()
    else:
        first, second = test.read_text(), train.read_text()
        test.write_text(second)
        train.write_text(first)
    assert content_sha256(Location(str(folder)), DATASET_FILES) != before


def test_the_hash_is_that_of_names_and_hashes_and_stays_the_same_in_later_versions(tmp_path: Path) -> None:
    # { printf 'a.parquet\0'; printf 1 | sha256sum | cut -c-64; printf 'b/c.parquet\0'; printf 2 | sha256sum |
    #   cut -c-64; } | sha256sum
    (tmp_path / "a.parquet").write_text("1")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.parquet").write_text("2")
    assert (
        content_sha256(Location(str(tmp_path)), DATASET_FILES)
        == "2c493f15f2b69597d1ad3949c4beec39efdcce836de3b9b9a3650a5e339e5233"
    )
    # The same for adapter_config.json and adapter_model.safetensors.
    (tmp_path / "adapter_config.json").write_text("1")
    (tmp_path / "adapter_model.safetensors").write_text("2")
    assert adapter_sha256(tmp_path) == "dc591d46f0c6ccb66bf210c3448e1d2b4fda5c2a11546384859c0bfdbf7fa076"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "folder/tokenizer.json", "tokenizer.model"])
def test_a_base_model_is_its_weights_configuration_and_processor(tmp_path: Path, name: str) -> None:
    location = Location(str(tmp_path))
    empty = content_sha256(location, BASE_MODEL_FILES)
    for other in ("README.md", "model.gguf", "image.png"):
        (tmp_path / other).touch()
    assert content_sha256(location, BASE_MODEL_FILES) == empty
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    assert content_sha256(location, BASE_MODEL_FILES) != empty


@pytest.mark.parametrize(
    "name",
    [
        "processor_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer.model",
        "special_tokens_map.json", "added_tokens.json",
    ],
)  # fmt: skip
def test_a_processor_is_its_files_and_not_the_adapters(tmp_path: Path, name: str) -> None:
    empty = processor_sha256(tmp_path)
    for other in (ADAPTER_CONFIG, ADAPTER_WEIGHTS, "config.json", "README.md"):
        (tmp_path / other).write_text(other)
    (tmp_path / "tokenizer_folder").mkdir()
    assert processor_sha256(tmp_path) == empty
    (tmp_path / name).write_text("1")
    first = processor_sha256(tmp_path)
    assert first != empty
    (tmp_path / name).write_text("2")
    assert processor_sha256(tmp_path) not in (first, empty)


def test_a_repo_is_its_commit() -> None:
    assert content_sha256(Location("user/dataset", "0" * 40), BASE_MODEL_FILES) is None


def test_a_link_out_of_the_folder_is_refused(folder: Path) -> None:
    (folder / "data" / "z.parquet").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match=rf"^{folder}: its file 'data/z\.parquet' is a link out of the folder"):
        content_sha256(Location(str(folder)), DATASET_FILES)


def test_a_file_that_cannot_be_read_is_named(folder: Path) -> None:
    (folder / ADAPTER_CONFIG).touch()
    with pytest.raises(
        InputError,
        match=rf"^{folder}: its file 'adapter_model\.safetensors' cannot be read: \[Errno 2\] No such file",
    ):
        adapter_sha256(folder)
    (folder / os.fsdecode(b"\xff.parquet")).touch()  # a name of no encoding
    with pytest.raises(
        InputError, match=rf"^{folder}: its file '\\udcff\.parquet' cannot be read: 'utf-8' codec can't encode"
    ):
        content_sha256(Location(str(folder)), DATASET_FILES)


def test_what_is_expected_is_compared(folder: Path) -> None:
    location = Location(str(folder))
    found = content_sha256(location, DATASET_FILES)
    assert check_content(location, DATASET_FILES, expected=None) == found
    assert check_content(location, DATASET_FILES, expected=found) == found
    with (
        pytest.raises(
            InputError,
            match=rf"^`dataset_sha256` 0123: the content of {folder} is now {found}; use the folder that the run "
            "started with, or drop this argument to start a new run$",
        ),
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


def test_changes_are_listed_with_both_values() -> None:
    before = {"rows": 3, "split": "test", "adapter": "a"}
    assert list_changes(before, dict(before)) == ""
    assert (
        list_changes(before, {"rows": 4, "split": "test", "more": 1})
        == "adapter: a -> None; more: None -> 1; rows: 3 -> 4"
    )
