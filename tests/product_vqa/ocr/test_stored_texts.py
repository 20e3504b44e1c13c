"""The texts of a dataset, of a folder and of a repo, written by `write_texts` and by strangers."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from product_vqa import parquet_files
from product_vqa.dataset import load_split
from product_vqa.errors import InputError
from product_vqa.hub import Location, locate
from product_vqa.ocr import text_files
from product_vqa.ocr.image_text import MAX_BOXES, MAX_CHARS, ImageText, make_box
from product_vqa.ocr.stored_texts import load_texts
from product_vqa.ocr.text_files import ENGINE_KEY, SCHEMA, TextRow, write_texts
from product_vqa.provenance import DATASET_FILES, TEXT_FILES, content_sha256

CORNERS = (0.1, 0.2, 0.5, 0.2, 0.5, 0.3, 0.1, 0.3)
NAME = "ocr/test-00000-of-00001.parquet"


def text_of(number: int) -> ImageText:
    return ImageText(800 + number, 600, (make_box(f"{number} g", 0.98765, CORNERS),))


@pytest.fixture
def folder(tiny_dataset: Path, tmp_path: Path) -> Path:
    """A dataset whose card has the configuration `ocr`, of which no file is written yet."""
    folder = Path(shutil.copytree(tiny_dataset, tmp_path / "dataset"))
    files = {name: [{"split": s, "path": f"{name}/{s}-*"} for s in ("train", "test")] for name in ("data", "ocr")}
    configs = [{"config_name": "default", "data_files": files["data"]}]
    configs.append({"config_name": "ocr", "data_files": files["ocr"]})
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n")
    (folder / "ocr").mkdir()
    return folder


def test_the_images_in_which_texts_were_read_are_known_by_their_hashes(folder: Path) -> None:
    rows = [TextRow("http://x/1", "a" * 64, text_of(1)), TextRow("http://x/2", None, text_of(2))]
    write_texts(folder / NAME, rows, engine="an engine")
    location = locate(str(folder))
    texts = load_texts(location, "test")
    assert texts is not None and texts.hashes() == {"http://x/1": "a" * 64, "http://x/2": None}
    table = pq.read_table(folder / NAME)
    pq.write_table(table.drop_columns(["sha256"]), folder / NAME)  # a stranger's
    texts = load_texts(location, "test")
    assert texts is not None and texts.hashes() == {"http://x/1": None, "http://x/2": None}
    pq.write_table(table.set_column(1, "sha256", pa.array([1, 2])), folder / NAME)
    with pytest.raises(
        InputError, match=r"ocr/test-00000-of-00001.parquet: its column sha256 is INT64, not BYTE_ARRAY"
    ):
        load_texts(location, "test")


def test_texts_count_for_the_image_only_in_which_they_were_read(folder: Path) -> None:
    rows = [TextRow("http://x/1", "a" * 64, text_of(1)), TextRow("http://x/2", None, text_of(2))]
    write_texts(folder / NAME, rows, engine="an engine")
    texts = load_texts(locate(str(folder)), "test")
    assert texts is not None
    assert texts.find("http://x/1") == texts.find("http://x/1", "a" * 64) == text_of(1)
    assert texts.find("http://x/1", "b" * 64) is None
    assert texts.find("http://x/2", "b" * 64) == text_of(2)  # nobody knows of which image they are
    pq.write_table(pq.read_table(folder / NAME).drop_columns(["sha256"]), folder / NAME)
    texts = load_texts(locate(str(folder)), "test")
    assert texts is not None and texts.find("http://x/1", "b" * 64) == text_of(1)


def test_texts_are_found_by_url_over_row_groups_and_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "ROW_GROUP_ROWS", 3)
    before = content_sha256(Location(str(folder)), DATASET_FILES)
    assert load_texts(locate(str(folder)), "test") is None
    rows = [TextRow(f"http://x/{number}", None, text_of(number)) for number in range(100)]
    write_texts(folder / NAME, rows[:60], engine="an engine")
    write_texts(folder / "ocr" / "test-00001-of-00002.parquet", rows[60:] + rows[:1], engine="an engine")
    location = locate(str(folder))
    texts = load_texts(location, "test")
    assert texts is not None and (texts.description, len(texts)) == ("an engine", 100)
    for number in (99, *range(100), 0):
        assert texts.find(f"http://x/{number}") == text_of(number)
    assert texts.find("http://x/100") is None
    assert "http://x/99" in texts and "http://x/100" not in texts
    copied = pickle.loads(pickle.dumps(texts))  # for a worker
    assert copied.find("http://x/99") == text_of(99) and copied.description == "an engine"
    assert load_texts(location, "train") is None and load_texts(location, "validation") is None
    assert len(load_split(location, "test")) == 11  # its rows, and not those of the texts
    assert content_sha256(location, DATASET_FILES) == before != content_sha256(location, TEXT_FILES)


def test_without_a_card_the_texts_are_found_by_the_names_of_their_files(tiny_dataset: Path, folder: Path) -> None:
    assert load_texts(locate(str(tiny_dataset)), "test") is None
    (folder / "README.md").unlink()
    write_texts(folder / NAME, [TextRow("http://x/1", None, text_of(1))], engine="an engine")
    texts = load_texts(locate(str(folder)), "test")
    assert texts is not None and texts.find("http://x/1") == text_of(1)
    assert load_texts(locate(str(folder)), "train") is None


def write_rows(folder: Path, rows: list[dict[str, Any]], schema: pa.Schema = SCHEMA, **options: Any) -> Location:
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / NAME, **options)
    return locate(str(folder))


def row_with(**values: Any) -> dict[str, Any]:
    box = {"text": "500 g", "score": 0.5, "corners": list(CORNERS)}
    boxes = [box | one for one in values.pop("texts", [])] if values.get("texts", True) is not None else None
    return {"image_link": "http://x/1", "width": 10, "height": 10, "texts": boxes} | values


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (row_with(width=0), "not the size of an image: 0 x 10"),
        (row_with(height=None), "not the texts of an image"),
        (row_with(texts=None), "not the texts of an image"),
        (row_with(texts=[{"corners": [0.1] * 7}]), "a text has not eight numbers"),
        (row_with(texts=[{"corners": None}]), "a text has not eight numbers|not the texts"),
        (row_with(texts=[{"score": float("nan")}]), "not the texts of an image"),
        (row_with(texts=[{"text": None}]), "not the texts of an image"),
        (row_with(texts=[{}] * (MAX_BOXES + 1)), "more than 500 texts"),
    ],
)
def test_a_row_that_has_not_the_texts_of_an_image_is_named(folder: Path, row: dict[str, Any], message: str) -> None:
    others = [row_with(image_link=f"http://x/{number}") for number in range(2, 5)]
    texts = load_texts(write_rows(folder, [*others, row], row_group_size=2), "test")
    assert texts is not None and texts.find("http://x/2") == ImageText(10, 10)
    with pytest.raises(InputError, match=rf"dataset: {NAME}: row 3: ({message}).*with dataset_builder\.ocr"):
        texts.find("http://x/1")


def test_texts_of_strangers_are_cleaned_and_cut(folder: Path) -> None:
    hostile = "<b>\x1b[31m\u202e" + "x" * 10**6
    schema = SCHEMA.with_metadata({ENGINE_KEY: f"an\n{hostile}".encode()})
    texts = load_texts(write_rows(folder, [row_with(texts=[{"text": hostile}])], schema), "test")
    assert texts is not None
    found = texts.find("http://x/1")
    assert found is not None
    for text in (found.boxes[0].text, texts.description):
        assert len(text) == MAX_CHARS and text.isprintable()
    assert texts.description.startswith("an <b> [31m xxx")


def test_files_that_are_not_texts_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(message: str) -> None:
        with pytest.raises(InputError, match=f"dataset: {NAME}: .*{message}.*; read the images again"):
            load_texts(locate(str(folder)), "test")

    pq.write_table(pa.table({"image_link": ["http://x/1"]}), folder / NAME)
    refused("it has no width, height, texts")
    flat = {"width": [1], "height": [1], "texts": ["500 g"]}
    pq.write_table(pa.table({"image_link": ["http://x/1"], **flat}), folder / NAME)
    refused(r"it has no texts\.list")
    pq.write_table(pa.table({"image_link": [["http://x/1"]], **flat}), folder / NAME)
    refused(r"it has no image_link")
    (folder / NAME).write_bytes(b"x" * 1000)
    refused("does not end like a Parquet file")
    write_rows(folder, [row_with(), row_with(image_link=None)])
    refused("the image_link of row 1 is null")
    monkeypatch.setattr(parquet_files, "MIN_LIMIT_BYTES", 1_000_000)
    write_rows(folder, [row_with(texts=[{"text": "x" * 5_000}] * 400)])
    refused("it looks like a decompression bomb")


def test_texts_of_two_engines_are_not_mixed(folder: Path) -> None:
    for number, engine in enumerate(("one", "another")):
        rows = [TextRow(f"http://x/{number}", None, text_of(number))]
        write_texts(folder / "ocr" / f"test-0000{number}-of-00002.parquet", rows, engine=engine)
    with pytest.raises(InputError, match="texts of different OCR engines"):
        load_texts(locate(str(folder)), "test")
