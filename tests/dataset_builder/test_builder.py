import csv
import gc
import hashlib
import io
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from dataset_builder import ProductVqa
from dataset_builder.downloader import download
from dataset_builder.fingerprint import FORMAT_VERSION
from dataset_builder.image_store import ImageStore
from dataset_builder.options import FetchOptions
from product_vqa.errors import InputError
from product_vqa.task.features import FEATURES
from tests.dataset_builder.files import TRAIN_COLUMNS, Shop, jpeg, write_csv
from tests.dataset_builder.image_server import ImageServer


def prepare(shop: Shop, **options: Any) -> tuple[ProductVqa, datasets.DatasetDict]:
    builder = ProductVqa(**{**shop.options(), "cache_dir": shop.folder / "cache", **options})
    builder.download_and_prepare()
    return builder, builder.as_dataset()


def read_dropped(builder: ProductVqa) -> list[dict[str, str]]:
    with open(f"{builder.cache_dir}/left_out.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_splits_hold_every_row_once_with_its_own_image(shop: Shop) -> None:
    builder, dataset = prepare(shop, validation_size=0.25)
    assert list(dataset) == ["train", "validation", "test"]
    assert all(dataset[split].features == FEATURES for split in dataset)

    labelled = [*dataset["train"], *dataset["validation"]]
    assert sorted(row["index"] for row in labelled) == [0, 1, 2, *range(4, 12)]  # row 3 is the range
    assert {row["image_link"] for row in dataset["train"]}.isdisjoint(dataset["validation"]["image_link"])
    assert 2 <= len(dataset["validation"]) <= 4  # a quarter of 11, and perhaps the second row of a url
    by_index = {row["index"]: row for row in labelled}
    assert by_index[1]["entity_value"] == "2.0 gram"
    assert by_index[1]["entity_value_raw"] == "2 gram"
    assert by_index[11]["entity_value"] == "2.5 inch"
    assert isinstance(by_index[1]["image"], Image.Image)

    assert dataset["test"]["index"][:] == [7, 3, 11, 12]
    assert dataset["test"]["group_id"][:] == ["g1", "g1", "g1", "9"]
    assert set(dataset["test"]["entity_value"]) == set(dataset["test"]["entity_value_raw"]) == {""}
    for split in dataset:
        for row in dataset[split].cast_column("image", datasets.Image(decode=False)):
            assert row["image"]["bytes"] == shop.images[row["image_link"]]
    (row,) = read_dropped(builder)
    assert (row["left_out"], row["reason"], row["row"], row["entity_value"]) == (
        "row", "range_brackets", "3", "[1.0, 2.0] gram",
    )  # fmt: skip


def test_an_image_that_could_not_be_loaded_drops_train_rows_but_no_test_row(shop: Shop) -> None:
    shop.file(shop.train_urls[0]).unlink()
    shop.file(shop.train_urls[5]).write_bytes(jpeg()[:-200])
    shop.file(shop.test_urls[0]).write_text("<html>")
    builder, dataset = prepare(shop, validation_size=0)
    assert list(dataset) == ["train", "test"]
    assert dataset["train"]["index"][:] == [1, 2, 4, 5, 7, 8, 9, 10]
    assert [row["image"] is None for row in dataset["test"]] == [True, False, True, False]
    reasons = [(row["left_out"], row["file"], row["index"], row["reason"]) for row in read_dropped(builder)]
    assert [(*row, reason.partition(":")[0]) for *row, reason in reasons] == [
        ("row", "train.csv", "3", "range_brackets"),
        ("row", "train.csv", "0", "image_missing"),
        ("row", "train.csv", "6", "image_unreadable"),
        ("row", "train.csv", "11", "image_missing"),
        ("image", "test.csv", "7", "not_a_picture"),
        ("image", "test.csv", "11", "not_a_picture"),
    ]  # fmt: skip


def test_images_of_the_working_directory_are_not_taken_for_those_of_the_folder(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = shop.folder / "elsewhere"
    elsewhere.mkdir()
    for url in shop.images:
        (elsewhere / shop.file(url).name).write_bytes(jpeg(99))
    monkeypatch.chdir(elsewhere)
    _, dataset = prepare(shop)
    stored = dataset["test"].cast_column("image", datasets.Image(decode=False))[0]["image"]
    assert stored["bytes"] == shop.images[shop.test_urls[0]]


def test_a_store_gives_its_images_and_its_reasons(shop: Shop, server: ImageServer) -> None:
    server.answers["/a.jpg"] = jpeg(1)
    urls = [f"{server.url}/{name}.jpg" for name in "abc"]
    store_folder = shop.folder / "store"
    download(ImageStore(store_folder), urls[:2], FetchOptions(connections=2, allow_private_hosts=True))
    train_csv = write_csv(shop.train_csv, TRAIN_COLUMNS, [[url, 1, "width", "1 inch"] for url in urls])
    options = {"train_csv": train_csv, "test_csv": None, "image_dir": None, "image_store": store_folder}
    builder, dataset = prepare(shop, **options)
    assert dataset["train"].cast_column("image", datasets.Image(decode=False))[0]["image"]["bytes"] == jpeg(1)
    assert [row["reason"] for row in read_dropped(builder)] == ["http_404", "not_fetched"]


@pytest.mark.slow
def test_the_cache_is_used_again_only_for_the_same_input(shop: Shop) -> None:
    first, _ = prepare(shop)
    written = [file.stat().st_mtime_ns for file in Path(first.cache_dir).iterdir()]
    again, _ = prepare(shop)
    assert again.cache_dir == first.cache_dir
    assert [file.stat().st_mtime_ns for file in Path(again.cache_dir).iterdir()] == written

    seen = {first.cache_dir}
    changes: list[dict[str, Any]] = [{"seed": 1}, {"validation_size": 0.3}, {"test_csv": None}, {}, {}]
    for number, change in enumerate(changes):
        if number == 3:
            shop.file(shop.train_urls[1]).write_bytes(jpeg(77))
        if number == 4:
            write_csv(shop.train_csv, TRAIN_COLUMNS, shop.train_rows[:-1])
        builder, changed = prepare(shop, **change)
        assert builder.cache_dir not in seen
        seen.add(builder.cache_dir)
    assert "validation" not in changed  # a twentieth of the ten rows that are left
    assert changed["train"].num_rows == 10


def test_rows_of_another_kind_need_another_format_version(shop: Shop) -> None:
    """If this fails, the same input gives other rows than before: raise FORMAT_VERSION, then the digest below."""
    _, dataset = prepare(shop, validation_size=0.3, ranges="first")
    digest = hashlib.sha256()
    for split, rows in dataset.items():
        for row in rows:
            stored = Image.open(io.BytesIO(shop.images[row["image_link"]]))
            is_same = row.pop("image").tobytes() == stored.tobytes()
            digest.update(f"{split} {is_same} {sorted(row.items())}\n".encode())
    assert (FORMAT_VERSION, digest.hexdigest()[:16]) == (2, "1d4c78d26ee86ded")


def test_the_same_input_gives_the_same_splits_elsewhere(shop: Shop) -> None:
    first, second = (prepare(shop, validation_size=0.3, cache_dir=shop.folder / name)[1] for name in "ab")
    assert first["validation"]["index"][:] == second["validation"]["index"][:]


REFUSED = [
    ({"image_dir": None}, "give exactly one source of images: `image_dir` or `image_store`"),
    ({"image_store": "store"}, "exactly one source of images"),
    ({"image_dir": "nowhere"}, "`image_dir` nowhere: no such folder"),
    ({"train_csv": None, "test_csv": None}, "give `train_csv`, `test_csv`, or both"),
    ({"validation_size": 1}, "`validation_size` must be"),
    ({"ranges": "middle"}, "`ranges` must be one of leave_out, first, last, got middle"),
    ({"validation_size": -0.1}, "`validation_size` must be"),
]


@pytest.mark.parametrize(("options", "complaint"), REFUSED, ids=[case[-1] for case in REFUSED])
def test_options_that_do_not_fit_are_refused(shop: Shop, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError) as refusal:
        prepare(shop, **options)
    assert complaint in str(refusal.value)


@pytest.mark.parametrize("is_prepared", [False, True])
def test_the_builder_streams(shop: Shop, is_prepared: bool) -> None:
    builder = ProductVqa(**shop.options(), cache_dir=shop.folder / "cache")
    if is_prepared:
        builder.download_and_prepare()
    rows = list(builder.as_streaming_dataset(split="test"))
    assert [row["index"] for row in rows] == [7, 3, 11, 12]
    assert isinstance(rows[0]["image"], Image.Image)


def test_images_of_a_folder_are_resized_and_leave_nothing_behind(shop: Shop) -> None:
    for url in shop.train_urls:
        shop.file(url).write_bytes(jpeg(1, size=(900, 600)))
    _, dataset = prepare(shop, image_size=64, test_csv=None, validation_size=0)
    assert {image.size for image in dataset["train"]["image"][:]} == {(64, 43)}
    gc.collect()
    assert not list((shop.folder / "cache").rglob("images-*"))


def test_images_of_which_none_could_be_loaded_are_refused(shop: Shop) -> None:
    (shop.folder / "empty").mkdir()
    with pytest.raises(InputError, match="none of the 13 images could be loaded"):
        prepare(shop, image_dir=shop.folder / "empty")


def test_labels_of_which_none_can_be_used_are_refused_before_anything_is_written(shop: Shop) -> None:
    write_csv(shop.train_csv, TRAIN_COLUMNS, [[shop.train_urls[0], 1, "width", "wide"]])
    with pytest.raises(InputError, match="none of the 1 rows has a usable label"):
        prepare(shop, test_csv=None)
    assert not list(Path(shop.folder / "cache").rglob("*.arrow"))


def test_a_range_teaches_the_end_that_was_asked_for(shop: Shop) -> None:
    for ranges, label in (("first", "1.0 gram"), ("last", "2.0 gram")):
        builder, dataset = prepare(shop, ranges=ranges, validation_size=0)
        assert dataset["train"][3]["entity_value"] == label
        assert dataset["train"][3]["entity_value_raw"] == "[1.0, 2.0] gram"
        assert not read_dropped(builder)
