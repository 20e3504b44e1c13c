"""Splits of a folder or a repo: found by the card or by their names, wherever the folder is."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import Dataset, load_dataset
from huggingface_hub import HfApi, constants

from dataset_builder.leakage import read_rows
from product_vqa.dataset import count_entities, find_splits, load_split, load_splits
from product_vqa.errors import InputError, argument
from product_vqa.hub import Location, locate
from tests.hostile.datasets import IMAGE, good_columns, write
from tests.tiny import save_dataset

FOLDERS = ["runs [x]", "a*b", "a?b", "[!a]", "{a,b}", "a#b", "50%20 off", " a b ", "größe-日本", "a:b", "a]b[", "it's"]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_of_any_name_is_read(tiny_dataset: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(tiny_dataset, tmp_path / name))
    location = Location(str(folder))
    with argument("dataset"):
        splits = load_splits(location, ["train", "test"])
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 32, "test": 11}
    assert read_rows(location)["split"].value_counts().to_dict() == {
        "train": 32, "test": 11, "validation": 8,
    }  # fmt: skip


def test_missing_columns_are_named(tmp_path: Path, tiny_dataset: Path) -> None:
    (tmp_path / "data").mkdir()
    rows = load_dataset("parquet", data_files=str(tiny_dataset / "data" / "test-*"), split="train")
    rows.remove_columns(["group_id", "entity_value"]).to_parquet(tmp_path / "data" / "test-0.parquet")
    rows.remove_columns("image").add_column("image", ["x"] * 11).to_parquet(tmp_path / "data" / "train-0.parquet")
    with (
        pytest.raises(InputError, match=r"split test has no group_id, entity_value; its columns are index, image, "),
        argument("dataset"),
    ):
        load_split(Location(str(tmp_path)), "test")
    with pytest.raises(InputError, match="split train has no images in its column"), argument("dataset"):
        load_split(Location(str(tmp_path)), "train")


def folder_with(root: Path, card: str | None, *files: str) -> Location:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Dataset.from_dict({"x": [1]}).to_parquet(root / name)
    if card is not None:
        (root / "README.md").write_text(f"---\n{card}\n---\n")
    return Location(str(root))


@pytest.mark.parametrize(
    ("card", "files", "splits"),
    [
        (None, ["data/train-00000-of-00001.parquet", "rows/test.parquet"], {"train": 1}),
        (None, ["train.parquet", "test-0.parquet", "validation_00.parquet"], {"train": 1, "test": 1, "validation": 1}),
        ("license: mit", ["data/own-00000-of-00002.parquet", "data/own-00001-of-00002.parquet"], {"own": 2}),
        ("configs: [{config_name: default, data_files: [{split: a, path: x/*}, {split: b, path: [y/1.parquet]}]}]",
         ["x/1.parquet", "x/2.parquet", "y/1.parquet", "y/2.parquet"], {"a": 2, "b": 1}),
        ("configs: [{config_name: c, data_files: d/*}]", ["d/1.parquet"], {"train": 1}),
        ("configs: [{config_name: c, data_files: [{split: a, path: n/*}]}]", ["d/1.parquet"], {}),
    ],
)  # fmt: skip
def test_splits_are_found_as_the_card_says_or_by_their_names(
    tmp_path: Path, card: str | None, files: list[str], splits: dict[str, int]
) -> None:
    with argument("dataset"):
        found = find_splits(folder_with(tmp_path, card, *files))
    assert {split: len(names) for split, names in found.items()} == splits


@pytest.mark.parametrize(
    ("card", "files", "reason"),
    [
        (None, [], "it holds no Parquet files"),
        ("configs: 7", ["data/train-0.parquet"], "README.md is malformed"),
        ("configs: [{config_name: a, data_files: [{path: 1}]}]", ["data/train-0.parquet"], "README.md is malformed"),
        ("a: [", ["data/train-0.parquet"], "README.md is malformed"),
    ],
)
def test_what_is_not_a_dataset_is_one_line(tmp_path: Path, card: str | None, files: list[str], reason: str) -> None:
    location = folder_with(tmp_path, card, *files)
    for read in (read_rows, lambda location: load_splits(location, ["train"])):
        with (
            pytest.raises(InputError, match=rf"`dataset` .* is not a dataset built by .*{reason}") as refusal,
            argument("dataset"),
        ):
            read(location)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet" * 99], ids=len)
def test_a_broken_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-0.parquet").write_bytes(content)
    location = Location(str(tmp_path))
    for read in (read_rows, lambda location: load_splits(location, ["train"])):
        with pytest.raises(InputError, match=r"`dataset` .* is not a dataset built by"), argument("dataset"):
            read(location)


def test_offline_a_split_that_was_never_fetched_is_named(
    hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    HfApi().create_repo("local/of-one-split", repo_type="dataset", private=True)
    HfApi().upload_folder(
        repo_id="local/of-one-split", repo_type="dataset", folder_path=save_dataset(tmp_path / "folder", train=4)
    )
    with argument("dataset"), argument("dataset"):
        load_split(locate("local/of-one-split", repo_type="dataset"), "train")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with argument("dataset"):
        location = locate("local/of-one-split", repo_type="dataset")
    assert len(load_split(location, "train")) == 4
    with (
        pytest.raises(InputError, match=r"`dataset` local/of-one-split at .* is not in the cache, or only in part"),
        argument("dataset"),
    ):
        load_split(location, "test")


def change_rows(folder: Path, **columns: pa.Array) -> Location:
    """A dataset of three rows, with some columns replaced."""
    write(folder, {**good_columns(), **columns})
    return Location(str(folder))


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("index", pa.array([0, None, 2]), r"the index of row 1 is null"),
        ("group_id", pa.array(["1", "1", None]), r"the group_id of index 2 is null"),
        (
            "entity_name",
            pa.array(["item_weight", "x\n", "voltage"]),
            r"the entity_name of index 1 is 'x\\n'; expected one of",
        ),
        (
            "entity_value",
            pa.array(["", "x" * 65_537, ""]),
            "the entity_value of index 1 has 65537 bytes, more than 65536",
        ),
        (
            "image_link",
            pa.Array.from_buffers(pa.string(), 3, pa.array([b"a", b"b", b"\xff"]).buffers()),
            "the image_link of index 2 is not UTF-8 text",
        ),
    ],
)
def test_a_row_that_no_dataset_of_this_project_has_is_named(
    tmp_path: Path, column: str, values: pa.Array, message: str
) -> None:
    with pytest.raises(InputError, match=rf"split validation: {message}") as refusal:
        load_split(change_rows(tmp_path, **{column: values}), "validation")
    assert "\n" not in str(refusal.value)


def test_a_path_next_to_the_bytes_of_an_image_is_not_opened(tmp_path: Path) -> None:
    image = pa.array([{"bytes": b"x", "path": "/dev/zero"}] * 3, IMAGE)
    rows = load_split(change_rows(tmp_path, image=image), "validation")
    assert rows[0]["image"] == {"bytes": b"x", "path": "/dev/zero"}


def test_the_schema_of_a_file_and_its_other_columns_choose_nothing(tmp_path: Path) -> None:
    """`datasets` would decode a column as what the file's metadata says: here URLs and paths as images."""
    features = {name: {"_type": "Image"} for name in ("image_link", "more")}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    more = pa.array([{"bytes": None, "path": "/etc/passwd"}] * 3, IMAGE)
    write(tmp_path, {**good_columns(), "more": more}, metadata=metadata)
    rows = load_split(Location(str(tmp_path)), "validation")
    assert "more" not in rows.column_names
    assert rows[1]["image_link"] == "https://example.com/1.jpg"


@pytest.mark.parametrize(
    "path", ["../*", "../outside/*", "OUTSIDE", "file://OUTSIDE", "**/../../outside/*", "http://127.0.0.1:9/x.parquet"]
)
def test_the_card_chooses_among_files_of_the_dataset_only(tmp_path: Path, path: str) -> None:
    write(tmp_path / "outside", good_columns(), name="x.parquet")
    write(tmp_path / "dataset", good_columns())
    path = path.replace("OUTSIDE", str(tmp_path / "outside" / "x.parquet"))
    card = {"configs": [{"config_name": "default", "data_files": [{"split": "validation", "path": path}]}]}
    (tmp_path / "dataset" / "README.md").write_text(f"---\n{json.dumps(card)}\n---\n")
    with pytest.raises(InputError, match="has no split 'validation'"):
        load_split(Location(str(tmp_path / "dataset")), "validation")


def test_a_link_out_of_the_dataset_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "outside", good_columns(), name="x.parquet")
    (tmp_path / "dataset" / "data").mkdir(parents=True)
    (tmp_path / "dataset" / "data" / "validation-0.parquet").symlink_to(tmp_path / "outside" / "x.parquet")
    with pytest.raises(InputError, match=r"'data/validation-0\.parquet' is a link out of the folder"):
        load_split(Location(str(tmp_path / "dataset")), "validation")


def test_entities_are_counted_in_the_table_of_rows_where_there_is_one(tmp_path: Path) -> None:
    folder = save_dataset(tmp_path / "data", train=0, validation=0, test=6)
    location = Location(str(folder))
    counts = {"item_weight": 2, "voltage": 2, "maximum_weight_recommendation": 1, "width": 1}
    assert {entity: number for entity, number in count_entities(location, "test").items() if number} == counts
    (folder / "rows").mkdir()
    pq.write_table(pa.table({"entity_name": ["depth", "depth", None, "colour"]}), folder / "rows" / "test.parquet")
    splits = [
        {"config_name": name, "data_files": [{"split": "test", "path": f"{name}/*"}]} for name in ("rows", "data")
    ]
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': splits})}---\n")
    assert count_entities(location, "test")["depth"] == 2


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([1, 2]), "test.parquet"),
        (pa.array([b"\xff", b"depth"]), "test.parquet"),
        (pa.array(["colour"]), "split 'test' has no rows with one of the entities"),
        (pa.array([], pa.string()), "split 'test' has no rows with one of the entities"),
    ],
)
def test_a_column_without_entities_is_one_line(tmp_path: Path, column: pa.Array, message: str) -> None:
    pq.write_table(pa.table({"entity_name": column}), tmp_path / "test.parquet")
    with pytest.raises(InputError, match=message) as raised:
        count_entities(Location(str(tmp_path)), "test")
    assert "\n" not in str(raised.value)
