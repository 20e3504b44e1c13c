"""Texts of images through `build --ocr` to whoever loads the dataset; what images say may be an attack."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi

from dataset_builder import build, downloader, ocr
from dataset_builder.ocr_files import find_small_print, is_ocr
from local_hub import LocalHub
from product_vqa.dataset import find_splits, load_split
from product_vqa.hub import Location, locate
from product_vqa.ocr import stored_texts
from product_vqa.ocr.image_text import MAX_CHARS
from product_vqa.provenance import DATASET_FILES, content_sha256
from tests.commands import call
from tests.dataset_builder import ocr_engines
from tests.dataset_builder.files import READ_ELSEWHERE, Shop, card_data, contents, run_elsewhere
from tests.dataset_builder.ocr_engines import HOSTILE

READ_TEXTS = """
from datasets import load_dataset
texts = load_dataset(sys.argv[1], "ocr")
for split, rows in texts.items():
    for row in rows:
        boxes = [(one["text"], round(one["score"], 3), len(one["corners"])) for one in row["texts"]]
        print(repr([split, row["image_link"], row["sha256"], row["width"], row["height"], boxes]))
print(texts["test"].features["texts"])
"""
FIRST = ["<script>alert(1)</script>", 0.9, 8]


def read_elsewhere(name: object, cwd: Path, **environment: str) -> tuple[list[Any], str]:
    *rows, features = run_elsewhere(READ_TEXTS, name, cwd=cwd, env=environment)
    return [eval(row, {}) for row in rows], features


@pytest.mark.slow
def test_the_texts_are_a_configuration_and_the_dataset_is_as_before(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*shop.arguments(), "--validation_size", "0.25", "--seed", "3", "--output_dir"]
    call(build.main, monkeypatch, *arguments, shop.folder / "plain")
    ocr_engines.use(monkeypatch, *HOSTILE)
    folder = shop.folder / "out"
    call(build.main, monkeypatch, *arguments, folder, "--ocr")
    assert not list(shop.folder.glob(".*"))
    assert contents(folder) == contents(shop.folder / "plain")
    files = sorted(file.name for file in (folder / "ocr").iterdir())
    assert files == [f"{split}-00000-of-00001.parquet" for split in ("test", "train", "validation")]
    assert content_sha256(Location(str(folder)), DATASET_FILES) == content_sha256(
        Location(str(shop.folder / "plain")), DATASET_FILES
    )
    location = locate(str(folder))
    assert set(find_splits(location)) == {"train", "validation", "test"} and len(load_split(location, "test")) == 4

    manifest = json.loads((folder / "build.json").read_text())
    assert manifest["ocr"]["engine"] == "an engine 1.0"
    assert sum(manifest["ocr"]["images"].values()) == 13 and manifest["ocr"]["images"]["test"] == 3
    assert manifest["ocr"]["longer_side"] == {"smallest": 48, "median": 48, "largest": 48}
    assert {f"ocr/{name}" for name in files} <= manifest["files"].keys()

    # Whoever has not this project: the default configuration is the same, and `ocr` has a row per image.
    assert run_elsewhere(READ_ELSEWHERE, folder, cwd=shop.folder)[-1] == "int64 Image"
    rows, features = read_elsewhere(folder, shop.folder)
    assert sorted(row[1] for row in rows) == sorted(shop.images)
    stored = pq.read_table(folder / "rows" / "test.parquet").to_pylist()
    for split, url, sha256, width, height, boxes in rows:
        assert (width, height) == (48, 32)
        if split == "test":
            assert sha256 in {row["sha256"] for row in stored if row["image_link"] == url}
        assert len(boxes) == len(HOSTILE) and tuple(boxes[0]) == tuple(FIRST)
        assert all(text.isprintable() and 0 < len(text) <= MAX_CHARS and corners == 8 for text, _, corners in boxes)
    assert "float32" in features and "string" in features

    # Nothing that an image says is in the card or the manifest, and the images have their own hashes.
    for name in ("README.md", "build.json"):
        content = (folder / name).read_text()
        assert not any(text[:12] in content for text in HOSTILE) and "999 gram" not in content
    test = load_split(location, "test")
    texts = stored_texts.load_texts(location, "test")
    assert texts is not None and texts.description == "an engine 1.0"
    for row in test:
        assert texts.find(row["image_link"]) is not None
    assert {row[2] for row in rows if row[0] == "test"} == {
        hashlib.sha256(row["image"]["bytes"]).hexdigest() for row in test
    }


@pytest.mark.slow
def test_texts_are_pushed_and_removed_again_with_the_build(
    hub: LocalHub, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    ocr_engines.use(monkeypatch, *HOSTILE)
    push = ["--push_to_hub", "--hub_dataset_id", "local/with-texts"]
    arguments = [*shop.arguments(), *push, "--output_dir", str(shop.folder / "out")]
    call(build.main, monkeypatch, *arguments, "--ocr")
    environment = {"HF_HUB_OFFLINE": "0"}
    rows, _ = read_elsewhere("local/with-texts", shop.folder, **environment)
    assert sorted({row[1] for row in rows}) == sorted(shop.images) and tuple(rows[0][5][0]) == tuple(FIRST)
    texts = stored_texts.load_texts(locate("local/with-texts", repo_type="dataset"), "test")
    assert texts is not None and len(texts) == 3

    call(build.main, monkeypatch, *arguments)
    names = HfApi().list_repo_files("local/with-texts", repo_type="dataset")
    assert not [name for name in names if name.startswith("ocr/")]
    assert [one["config_name"] for one in card_data(shop.folder / "out")["configs"]] == ["default", "rows"]
    assert stored_texts.load_texts(locate("local/with-texts", repo_type="dataset"), "test") is None


@pytest.mark.slow
def test_damaged_texts_are_written_again(shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    fake = ocr_engines.use(monkeypatch, "500 g")
    arguments = [*shop.arguments(), "--ocr", "--output_dir", str(shop.folder / "out")]
    call(build.main, monkeypatch, *arguments)
    file = shop.folder / "out" / "ocr" / "test-00000-of-00001.parquet"
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    call(build.main, monkeypatch, *arguments)
    assert "ocr/test-00000-of-00001.parquet is not as it was written" in caplog.text
    assert file.read_bytes() == content and len(fake.sizes) == 26


def test_a_build_that_removes_texts_says_so_before_it_reads_images(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ocr_engines.use(monkeypatch, "500 g")
    folder = shop.folder / "out"
    arguments = [*shop.arguments(), "--output_dir", str(folder)]
    call(build.main, monkeypatch, *arguments)
    call(ocr.main, monkeypatch, "--dataset", folder)
    call(build.main, monkeypatch, *arguments)  # the same one: nothing is written
    call(build.main, monkeypatch, *arguments, "--ocr", "--seed", "2")  # reads them itself
    assert len(list((folder / "ocr").iterdir())) == 3 and "will be removed" not in caplog.text

    logged = []
    import_images = downloader.import_images

    def record(*args: Any, **options: Any) -> None:
        logged.append(caplog.text)
        import_images(*args, **options)

    monkeypatch.setattr(downloader, "import_images", record)
    call(build.main, monkeypatch, *arguments)
    assert f"{folder}: the texts of 13 images of the earlier build (ocr/) will be removed; --ocr, or" in logged[0]
    assert not (folder / "ocr").exists()


def test_texts_that_cannot_be_read_do_not_stop_a_build(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ocr_engines.use(monkeypatch, "500 g")
    folder = shop.folder / "out"
    arguments = [*shop.arguments(), "--output_dir", str(folder)]
    call(build.main, monkeypatch, *arguments, "--ocr")
    train, validation = (folder / "ocr" / f"{split}-00000-of-00001.parquet" for split in ("train", "validation"))
    train.write_bytes(train.read_bytes()[:-9] + b"damaged!!")
    validation.unlink()
    os.mkfifo(validation)
    call(build.main, monkeypatch, *arguments)
    assert "the texts of 3 images of the earlier build" in caplog.text and not (folder / "ocr").exists()


def test_a_folder_of_images_is_not_read_again_after_an_interruption(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = ocr_engines.use(monkeypatch, "500 g")
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    fake.fail_at = 8
    arguments = [*shop.arguments(), "--ocr", "--output_dir", str(shop.folder / "out")]
    with pytest.raises(KeyboardInterrupt):
        call(build.main, monkeypatch, *arguments)
    assert [path.name for path in shop.folder.glob(".*")] == [".out.texts"]
    fake.fail_at = None
    call(build.main, monkeypatch, *arguments)
    assert len(fake.sizes) < 8 + 13 and not list(shop.folder.glob(".*"))


@pytest.mark.parametrize(
    ("change", "is_valid"),
    [
        ({}, True),
        ({"engine": "<b>engine</b>"}, False),
        ({"engine": "x" * 201}, False),
        ({"images": {"evil | <b>": 1}}, False),
        ({"images": {"train": "1"}}, False),
        ({"images": {"train": True}}, False),
        ({"images": {}}, False),
        ({"longer_side": {"smallest": 1, "median": 2}}, False),
        ({"longer_side": {"smallest": 0, "median": 2, "largest": 3}}, False),
        ({"more": 1}, False),
    ],
)
def test_only_a_description_that_a_card_can_show_is_valid(change: dict[str, Any], is_valid: bool) -> None:
    sides = {"smallest": 1, "median": 2, "largest": 3}
    assert is_ocr({"engine": "rapidocr 3.10.0", "images": {"train": 1}, "longer_side": sides} | change) == is_valid
    assert is_ocr({}) and not is_ocr([])


def test_the_cost_of_small_images_is_printed() -> None:
    (line,) = find_small_print({"longer_side": {"median": 999}})
    assert line.startswith("texts: read at 999 px") and "0.738 at 448 px" in line
    assert find_small_print({"longer_side": {"median": 1000}}) == find_small_print({}) == []
