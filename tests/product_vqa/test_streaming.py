"""Splits without a copy on disk: the rows of a copy, and the same checks of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi, constants
from hypothesis import given, settings
from hypothesis import strategies as st

from local_hub import LocalHub
from product_vqa import streaming
from product_vqa.dataset import count_entities, load_split
from product_vqa.errors import InputError
from product_vqa.hub import Location, file_sizes, locate
from product_vqa.streaming import StreamedSplit, count_streamed_entities, open_split, read_entities
from tests.hostile.datasets import IMAGE, good_columns, write
from tests.tiny import make_rows, save_row_groups

FILE = "data/validation-00000-of-00001.parquet"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    splits = {"train": make_rows(23), "test": make_rows(8, labelled=False, start=100)}
    splits["test"][2]["image"] = None
    return save_row_groups(tmp_path_factory.mktemp("datasets") / "data", splits)


@pytest.fixture(scope="module")
def repo(hub: LocalHub, folder: Path) -> Location:
    HfApi().create_repo("local/split-by-row-groups", repo_type="dataset")
    HfApi().upload_folder(repo_id="local/split-by-row-groups", folder_path=folder, repo_type="dataset")
    return locate("local/split-by-row-groups", repo_type="dataset")


def opened(location: Location, split: str = "train") -> StreamedSplit:
    found = open_split(location, split)
    assert found is not None
    return found


def test_a_split_has_the_rows_of_a_copy_and_leaves_none(
    repo: Location, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {split: list(load_split(Location(str(folder)), split)) for split in ("train", "test")}
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for location in (repo, Location(str(folder))):
        for split, rows in expected.items():
            found = opened(location, split)
            assert len(found) == len(rows)
            assert [row for group in range(len(found.num_rows)) for row in found.read(group).to_pylist()] == rows
    assert opened(repo).num_rows.tolist() == [5, 5, 2, 5, 5, 1]  # 12 and 11 rows in two files
    assert not list((tmp_path / "cache").rglob("*.parquet"))
    assert open_split(repo, "none") is None


@settings(max_examples=10)
@given(st.lists(st.integers(0, 22), max_size=30))
def test_any_rows_are_loaded_in_the_order_that_was_asked_for(folder: Path, rows: list[int]) -> None:
    loaded = opened(Location(str(folder))).load(rows)
    assert loaded["index"][:] == rows
    assert loaded.features == load_split(Location(str(folder)), "train").features
    for row, values in zip(rows, loaded, strict=True):
        assert values["image"]["bytes"] and values["entity_value"] == make_rows(1, start=row)[0]["entity_value"]


def test_rows_that_take_too_much_memory_are_not_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "MAX_LOADED_BYTES", 20_000)
    split = opened(Location(str(folder)))
    assert len(split.load([1, 2])) == 2
    with pytest.raises(InputError, match="10 rows take more than 20000 bytes of memory; lower `max_eval_s"):
        split.load(list(range(10)))


def test_each_row_is_in_its_row_group(folder: Path) -> None:
    split = opened(Location(str(folder)))
    assert split.row_groups_of(np.arange(23)).tolist() == [0] * 5 + [1] * 5 + [2] * 2 + [3] * 5 + [4] * 5 + [5]
    assert split.starts.tolist() == [0, 5, 10, 12, 17, 22]


@pytest.mark.parametrize("has_table", [False, True])
def test_entities_are_read_without_images(tmp_path: Path, has_table: bool) -> None:
    rows = {"train": make_rows(23), "test": make_rows(7, labelled=False)}
    location = Location(str(save_row_groups(tmp_path, rows, has_table=has_table)))
    assert (
        read_entities(location, "train")
        == opened(location).entities()
        == [row["entity_name"] for row in rows["train"]]
    )
    assert count_streamed_entities(location, "test") == count_entities(location, "test")
    with pytest.raises(InputError, match="has no split 'none'"):
        read_entities(location, "none")


def test_a_table_of_other_entities_than_the_images_is_refused(tmp_path: Path) -> None:
    rows = make_rows(23)
    location = Location(str(save_row_groups(tmp_path, {"train": rows}, has_table=True)))
    table = pq.read_table(tmp_path / "rows" / "train.parquet")
    pq.write_table(table.slice(1), tmp_path / "rows" / "train.parquet")
    with pytest.raises(InputError, match="split train has 23 rows with images, and 22 without"):
        open_split(location, "train")
    pq.write_table(pa.concat_tables([table.slice(1), table.slice(0, 1)]), tmp_path / "rows" / "train.parquet")
    with pytest.raises(InputError, match=r"train-00000-of-00002\.parquet, row group 1: its entities differ from"):
        opened(location).read(1)


def columns(**changes: Any) -> dict[str, Any]:
    return {**good_columns(), **changes}


PATH = pa.array([{"bytes": b"x", "path": None}, {"bytes": None, "path": "/etc/passwd"}, None], IMAGE)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image": PATH}, "row group 0: the image of index 1 is only a path ('/etc/passwd'); build"),
        ({"entity_name": ["width", "x", "width"]}, "row group 0: the entity_name of index 1 is 'x'; expected one of"),
        ({"group_id": ["x", None, "x"]}, "row group 0: the group_id of index 1 is null"),
        ({"image_link": ["x", "x", "x" * 70_000]}, "the image_link of index 2 has 70000 bytes, more than 65536"),
        ({"index": pa.array([1, None, 2])}, "row group 0: the index of row 1 is null"),
    ],
    ids=["path", "entity", "null", "long", "index"],
)
def test_a_row_that_no_built_dataset_has_is_refused_when_it_is_read(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    write(tmp_path, columns(**changed))
    split = opened(Location(str(tmp_path)), "validation")
    with pytest.raises(InputError) as error:
        split.read(0)
    assert f"{FILE}, " in str(error.value) and message in str(error.value)


def test_other_columns_and_files_without_any_are_refused_when_it_is_opened(tmp_path: Path) -> None:
    write(tmp_path, columns(more=[1, 2, 3]))
    assert opened(Location(str(tmp_path)), "validation").read(0).column_names == list(good_columns())
    without = {name: column for name, column in good_columns().items() if name != "group_id"}
    write(tmp_path, without)
    with pytest.raises(InputError, match="split validation has no group_id; its columns are index, image, "):
        open_split(Location(str(tmp_path)), "validation")
    (tmp_path / FILE).write_bytes(b"PAR1PAR1")
    with pytest.raises(InputError, match=r"validation-00000-of-00001\.parquet: it has 8 bytes and is not a Parquet"):
        open_split(Location(str(tmp_path)), "validation")


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("MAX_ROWS", "have 3 rows, more than 2"),
        ("MAX_ROW_GROUPS", "have 3 row groups, more than 2"),
        ("MAX_FOOTER_BYTES", r"have \d{4,} bytes of footers, more than 2"),
    ],
)
def test_more_rows_and_row_groups_than_fit_into_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, message: str
) -> None:
    save_row_groups(tmp_path, {"train": make_rows(3)}, files=2, rows=1)
    monkeypatch.setattr(streaming, limit, 2)
    with pytest.raises(InputError, match=f"and the other files of its split {message}"):
        open_split(Location(str(tmp_path)), "train")


def test_row_groups_without_rows_are_skipped(tmp_path: Path) -> None:
    location = Location(str(save_row_groups(tmp_path, {"train": make_rows(6)}, files=2)))
    file = tmp_path / "data" / "train-00001-of-00002.parquet"
    table = pq.read_table(file)
    with pq.ParquetWriter(file, table.schema) as writer:
        for part in (table.slice(0, 0), table, table.slice(0, 0)):
            writer.write_table(part)
    split = opened(location)
    assert split.num_rows.tolist() == [3, 0, 3, 0]
    assert split.entities() == [row["entity_name"] for row in make_rows(6)]
    assert split.load([5, 0])["index"][:] == [5, 0]


def test_only_ranges_of_files_are_requested_once_the_files_are_listed(repo: Location, hub: LocalHub) -> None:
    opened(repo)
    sizes = file_sizes(repo, repo_type="dataset")
    assert sizes["data/train-00000-of-00002.parquet"] > 10_000
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert file_sizes(repo, repo_type="dataset") == sizes


def test_a_damaged_row_group_is_named(tmp_path: Path) -> None:
    save_row_groups(tmp_path, {"train": make_rows(23)})
    file = tmp_path / "data" / "train-00001-of-00002.parquet"
    data = bytearray(file.read_bytes())
    data[4:3000] = bytes(2996)  # in its first row group
    file.write_bytes(data)
    split = opened(Location(str(tmp_path)))
    assert split.read(2).num_rows == 2
    assert split.read(4).num_rows == 5
    with pytest.raises(InputError, match=r"train-00001-of-00002\.parquet: row group 0, column"):
        split.read(3)
