import csv
import errno
import os
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_builder import build
from dataset_builder.image_preparation import prepare_image
from dataset_builder.image_store import ImageStore, Status, UrlState
from dataset_builder.output_folder import write_errors_explained
from dataset_builder.row_filter import DatasetRow, Dropped
from dataset_builder.split import Splits
from dataset_builder.stored_image import StoredImage
from dataset_builder.writer import WRITE_ERRORS, write_dataset, write_dropped
from product_vqa.errors import InputError
from product_vqa.tables.rows import Row
from tests.commands import call
from tests.dataset_builder.files import (
    TRAIN_COLUMNS,
    Shop,
    jpeg,
    run_elsewhere,
    write_csv,
)

# All other ways to read a dataset of 1,000 rows of train, without this project.
READ_IN_EVERY_WAY = """
from datasets import load_dataset, get_dataset_config_names
from datasets.distributed import split_dataset_by_node
name = sys.argv[1]
print(get_dataset_config_names(name))
print(len(load_dataset(name, split="train[:1%]")))
stream = load_dataset(name, split="train", streaming=True)
print(sorted(row["index"] for row in stream.shuffle(seed=1, buffer_size=100)) == list(range(1000)))
print([row["index"] for row in stream.shuffle(seed=1, buffer_size=100).take(3)] != [0, 1, 2])
nodes = [{row["index"] for row in split_dataset_by_node(stream, rank=rank, world_size=2)} for rank in (0, 1)]
print(min(map(len, nodes)) > 0, sum(map(len, nodes)), len(set.union(*nodes)))
columns = load_dataset(name, split="train", columns=["index", "entity_value"])
print(columns.column_names, columns[999])
rows = load_dataset(name, "rows", split="train")
print(rows.column_names, rows[0]["width"], rows[0]["height"])
"""


@pytest.mark.slow
def test_a_dataset_is_read_in_every_way_without_this_project(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[list[object]] = [
        [shop.train_urls[number % 10], "g", "width", f"{number + 1} inch"] for number in range(1000)
    ]
    write_csv(shop.train_csv, TRAIN_COLUMNS, rows)
    monkeypatch.setattr("dataset_builder.writer.MAX_SHARD_BYTES", 300_000)
    monkeypatch.setattr("dataset_builder.writer.SMALL_IMAGES_ROW_GROUP_ROWS", 100)
    folder = shop.folder / "out"
    arguments: list[str | Path] = ["--train_csv", shop.train_csv, "--image_dir", shop.image_dir]
    call(build.main, monkeypatch, *arguments, "--validation_size", "0", "--output_dir", folder)
    assert len(list((folder / "data").iterdir())) >= 4
    assert run_elsewhere(READ_IN_EVERY_WAY, folder, cwd=shop.folder) == [
        "['default', 'rows']",
        "10",
        "True",
        "True",
        "True 1000 1000",
        "['index', 'entity_value'] {'index': 999, 'entity_value': '1000.0 inch'}",
        "['index', 'image_link', 'group_id', 'entity_name', 'entity_value', 'entity_value_raw', "
        "'num_bytes', 'width', 'height', 'sha256', 'phash'] 48 32",
    ]


@pytest.mark.parametrize(("side", "max_shard_bytes", "group_rows"), [(48, 800_000, 1000), (120, 1_500_000, 100)])
def test_shards_and_row_groups_are_bounded(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, side: int, max_shard_bytes: int, group_rows: int
) -> None:
    """Images of 1.5 kB, whose smallest and largest Parquet repeats in the metadata of each group, and of 8 kB."""
    for number, url in enumerate(shop.train_urls):
        shop.file(url).write_bytes(jpeg(number, size=(side, side)))
    rows: list[list[object]] = [
        [shop.train_urls[number % 10], "g", "width", f"{number + 1} inch"] for number in range(2300)
    ]
    write_csv(shop.train_csv, TRAIN_COLUMNS, rows)
    monkeypatch.setattr("dataset_builder.writer.MAX_SHARD_BYTES", max_shard_bytes)
    folder = shop.folder / "out"
    arguments: list[str | Path] = ["--train_csv", shop.train_csv, "--image_dir", shop.image_dir]
    call(build.main, monkeypatch, *arguments, "--validation_size", "0", "--output_dir", folder)
    files = sorted((folder / "data").iterdir())
    assert [file.name for file in files] == [f"train-{n:05d}-of-{len(files):05d}.parquet" for n in range(len(files))]
    assert len(files) >= 2
    metadata = [pq.read_metadata(file) for file in files]
    assert sum(part.num_rows for part in metadata) == 2300
    assert max(part.row_group(n).num_rows for part in metadata for n in range(part.num_row_groups)) == group_rows


@pytest.fixture
def made(tmp_path: Path) -> tuple[Splits, ImageStore]:
    """A row of train with an image, and one of test without."""
    store, image = ImageStore(tmp_path / "store"), prepare_image(jpeg(1), image_size=448)
    store.save(image)
    stored = StoredImage(len(image.data), image.width, image.height, image.sha256, image.phash)
    store.record(UrlState("u", Status.STORED, "", 200, 1, 0.1, "now", **stored.as_dict()))
    train = DatasetRow(Row(3, 30, "u", "g", "width", "1 inch"), "1.0 inch", stored)
    test = DatasetRow(Row(0, 7, "v", "g", "depth", ""), "", None)
    return Splits({"train": (train,), "test": (test,)}, ()), store


def test_rows_are_written_with_and_without_their_images(made: tuple[Splits, ImageStore], tmp_path: Path) -> None:
    splits, store = made
    dropped = [Dropped("image", "test.csv", splits.rows["test"][0].row, "http_404")]
    info = write_dataset(splits, store, dropped, tmp_path / "out")
    assert [(split["name"], split["num_examples"]) for split in info["splits"]] == [("train", 1), ("test", 1)]
    columns = {
        "index": 30, "image_link": "u", "group_id": "g", "entity_name": "width", "entity_value": "1.0 inch",
        "entity_value_raw": "1 inch",
    }  # fmt: skip
    image = splits.rows["train"][0].image
    assert image is not None
    assert read_one(tmp_path / "out" / "rows" / "train.parquet") == columns | image.as_dict()
    assert read_one(tmp_path / "out" / "data" / "train-00000-of-00001.parquet") == columns | {
        "image": {"bytes": jpeg(1), "path": None}
    }
    assert read_one(tmp_path / "out" / "data" / "test-00000-of-00001.parquet")["image"] is None
    assert read_one(tmp_path / "out" / "rows" / "test.parquet")["phash"] is None
    assert [line.split(",") for line in (tmp_path / "out" / "left_out.csv").read_text().splitlines()] == [
        ["left_out", "reason", "file", "row", "index", "image_link", "group_id", "entity_name", "entity_value"],
        ["image", "http_404", "test.csv", "0", "7", "v", "g", "depth", ""],
    ]


def read_one(file: Path) -> dict[str, Any]:
    (row,) = pq.read_table(file).to_pylist()
    return dict(row)


FAILURES = [
    (OSError(errno.ENOSPC, "?"), "No space left on device; free some space there"),
    (OSError(errno.EDQUOT, "?"), "Disk quota exceeded; free some of your quota"),
    (OSError(errno.EIO, "?"), "Input/output error; check the disk and its free space"),
    (OSError(errno.EROFS, "?"), "Read-only file system; choose a folder on a disk that can"),
    (OSError(errno.EFBIG, "?"), "File too large; raise the limit on the size of files"),
    (PermissionError(errno.EACCES, "?"), "Permission denied; change its permissions"),
    (pa.ArrowInvalid("Unusual\nin two lines"), r"cannot be written \(Unusual\)"),
]


def fail(error: Exception, *, is_wrapped: bool) -> None:
    if is_wrapped:
        raise datasets.exceptions.DatasetGenerationError("An error occurred") from error
    raise error


@pytest.mark.parametrize("is_wrapped", [False, True])
@pytest.mark.parametrize(("error", "complaint"), FAILURES, ids=[str(case[0]) for case in FAILURES])
def test_a_dataset_that_could_not_be_written_is_one_line(
    tmp_path: Path, error: Exception, complaint: str, is_wrapped: bool
) -> None:
    with (
        pytest.raises(InputError, match=rf"^`output_dir` {tmp_path}: {complaint}") as refusal,
        write_errors_explained(tmp_path, also=WRITE_ERRORS),
    ):
        fail(error, is_wrapped=is_wrapped)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("change", ["garbled", "cut", "removed", "a pipe"])
def test_an_image_that_changes_while_it_is_written_ends_the_build_in_one_line(
    made: tuple[Splits, ImageStore], tmp_path: Path, change: str
) -> None:
    splits, store = made
    (file,) = store.folder.glob("files/*/*")
    content = file.read_bytes()
    file.unlink()
    if change == "a pipe":
        os.mkfifo(file)
    elif change != "removed":
        file.write_bytes(bytes(len(content)) if change == "garbled" else content[:-1])
    message = rf"^`image_store` {store.folder}: {file} has changed while the command ran; rerun"
    with pytest.raises(InputError, match=message), write_errors_explained(tmp_path, also=WRITE_ERRORS):
        write_dataset(splits, store, [], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "\n=1", " =1", "\u00a0=1", "\ufeff=1", "＝1"]
)
def test_a_formula_does_not_run_in_the_list_of_dropped_rows(tmp_path: Path, text: str) -> None:
    row = Row(0, -7, text, text, "depth", text)
    write_dropped([Dropped("row", "=1.csv", row, "broken")], tmp_path / "left_out.csv")
    with (tmp_path / "left_out.csv").open(newline="", encoding="utf-8") as stream:
        _, cells = csv.reader(stream)
    assert cells == ["row", "broken", "'=1.csv", "0", "-7", f"'{text}", f"'{text}", "depth", f"'{text}"]
