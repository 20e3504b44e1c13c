"""Candidates of rows: from the texts of a dataset, or of an engine that reads each image once."""

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset
from PIL import Image

from inference.candidate_finder import (
    CandidateFinder,
    describe_grounding,
    find_engine,
    find_source,
    find_texts,
    make_finder,
)
from inference.text_source import TextSource
from product_vqa.errors import InputError
from product_vqa.hub import locate
from product_vqa.modeling.calibration import Calibration, Grounding
from product_vqa.ocr.candidates import CandidateRules
from product_vqa.ocr.engine import RapidOcr, rapidocr
from product_vqa.ocr.image_text import ImageText, make_box
from product_vqa.ocr.text_files import TextRow, write_texts
from product_vqa.task.features import FEATURES
from product_vqa.task.schema import CHALLENGE
from tests.tiny import make_rows, save_dataset

ROWS = Dataset.from_list(make_rows(3), features=FEATURES)  # their images have no texts
CORNERS = (0.1, 0.2, 0.5, 0.2, 0.5, 0.3, 0.1, 0.3)


class CountingEngine:
    """Reads the width of an image as its weight."""

    description = "a test's engine"

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def read(self, image: Image.Image) -> ImageText:
        self.sizes.append(image.width)
        return ImageText(image.width, image.height, (make_box(f"{image.width} g", 0.9, CORNERS),))


def test_an_engine_reads_each_image_of_a_batch_once() -> None:
    engine = CountingEngine()
    small, large = Image.new("RGB", (30, 20)), Image.new("RGB", (50, 20))
    rows = [{"image_link": "x", "entity_name": name} for name in ("item_weight", "item_weight", "voltage")]
    found = CandidateFinder(TextSource(engine=engine), CandidateRules(CHALLENGE, {})).find(rows, [small, large, small])
    assert [[one.answer for one in row or []] for row in found] == [["30.0 gram"], ["50.0 gram"], []]
    assert sorted(engine.sizes) == [30, 50]


def test_texts_of_a_dataset_are_found_by_url_and_the_shares_of_units_rank_them(tmp_path: Path) -> None:
    folder = save_dataset(tmp_path / "dataset")
    (folder / "ocr").mkdir()
    text = ImageText(800, 600, (make_box("20 g", 0.9, CORNERS), make_box("0.7 oz", 0.9, CORNERS)))
    write_texts(folder / "ocr" / "test-00000-of-00001.parquet", [TextRow("http://x/1", None, text)], engine="e")
    texts = find_texts(None, dataset=locate(str(folder)), split="test", rows=ROWS)
    assert texts is not None and texts.stored is not None and texts.engine is None
    rows = [{"image_link": f"http://x/{number}", "entity_name": "item_weight"} for number in (1, 2)]
    for shares, first in (({"gram": 0.9, "ounce": 0.001}, "20.0 gram"), ({"gram": 0.001, "ounce": 0.9}, "0.7 ounce")):
        finder = CandidateFinder(texts, CandidateRules(CHALLENGE, {"item_weight": shares}))
        images = [Image.new("RGB", (width, 9)) for width in (9, 30)]
        (found, missing) = finder.find(rows, images)
        assert found is not None and found[0].answer == first and len(found) == 2 and missing is None
        reads = CandidateFinder(TextSource(texts.stored, CountingEngine()), CandidateRules(CHALLENGE, {}))
        (stored, read) = pickle.loads(pickle.dumps(reads)).find(rows, images)
        assert {one.answer for one in stored} == {one.answer for one in found}
        assert [one.answer for one in read] == ["30.0 gram"]
    assert find_texts("none", dataset=locate(str(folder)), split="test", rows=ROWS) is None
    assert find_texts(None, dataset=locate(str(folder)), split="train", rows=ROWS) is None


@pytest.mark.parametrize(
    ("ground", "grounding", "constrain", "expected"),
    [
        (None, None, "on", None),
        (None, Grounding(is_better=False), "on", None),
        (None, Grounding(is_better=True), "on", "stored"),
        (None, Grounding(is_better=True), "off", None),
        ("none", Grounding(is_better=True), "on", None),
        ("ocr", Grounding(is_better=False), "on", "stored"),
        ("ocr", None, "on", "no calibration.json that says how far to trust OCR"),
    ],
)
def test_the_calibration_decides_unless_the_user_does(
    tmp_path: Path, ground: str | None, grounding: Grounding | None, constrain: str, expected: Any
) -> None:
    folder = save_dataset(tmp_path / "dataset")
    (folder / "ocr").mkdir()
    write_texts(folder / "ocr" / "test-00000-of-00001.parquet", [], engine="e")
    options = {"calibration": Calibration(grounding=grounding), "constrain": constrain}

    def find(split: str) -> Any:
        return find_source(ground, **options, dataset=locate(str(folder)), split=split, rows=ROWS)

    if expected not in (None, "stored"):
        with pytest.raises(InputError, match=expected):
            find("test")
        return
    source = find("test")
    assert (source is not None and source.stored is not None) == (expected == "stored")
    described = describe_grounding(source, options["calibration"])
    if source is None:
        assert described == {}
        return
    assert (described["ground"], described["grounding"]) == ("ocr", str(grounding))
    assert described["ocr_texts"] == "e" and described["ocr_texts_sha256"] == source.sha256 is not None
    assert ("ocr_engine" in described) == (ground == "ocr" and rapidocr is not None)  # for images without texts
    if ground == "ocr" and rapidocr is not None:
        assert isinstance(find("train").engine, RapidOcr) and find("train").stored is None


def test_texts_of_another_image_at_the_url_do_not_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = save_dataset(tmp_path / "dataset")
    (folder / "ocr").mkdir()
    text = ImageText(800, 600, (make_box("20 g", 0.9, CORNERS),))
    hashes = {"http://x/1": "a" * 64, "http://x/2": None}
    write_texts(
        folder / "ocr" / "test-00000-of-00001.parquet", [TextRow(*one, text) for one in hashes.items()], engine="e"
    )
    texts = find_texts(None, dataset=locate(str(folder)), split="test", rows=ROWS)
    assert texts is not None
    rows = [{"image_link": link, "entity_name": "item_weight", "image_sha256": "b" * 64} for link in hashes]
    images = [Image.new("RGB", (width, 9)) for width in (9, 30)]
    finder = CandidateFinder(texts, CandidateRules(CHALLENGE, {}))
    for _ in range(2):
        (other, unknown) = finder.find(rows, images)
        assert other is None and unknown is not None and unknown[0].answer == "20.0 gram"
    assert caplog.text.count("The texts of http://x/1 were read in another image") == 1
    reads = CandidateFinder(TextSource(texts.stored, CountingEngine()), CandidateRules(CHALLENGE, {}))
    assert [found[0].answer for found in reads.find(rows, images) if found] == ["9.0 gram", "20.0 gram"]
    (same, _) = finder.find([rows[0] | {"image_sha256": "a" * 64}, rows[1]], images)
    assert same is not None and same[0].answer == "20.0 gram"


def test_without_a_source_there_is_no_finder() -> None:
    assert make_finder(None, None) is None  # type: ignore[arg-type]  # the reader is not asked


@pytest.mark.parametrize(
    ("ground", "grounding", "has_engine"),
    [
        (None, None, False),
        (None, Grounding(is_better=False), False),
        (None, Grounding(is_better=True), True),
        ("none", Grounding(is_better=True), False),
        ("ocr", Grounding(is_better=False), True),
    ],
)
def test_images_of_ones_own_are_read_where_that_gains(
    ground: str | None, grounding: Grounding | None, has_engine: bool
) -> None:
    reader = SimpleNamespace(calibration=Calibration(grounding=grounding))
    assert isinstance(find_engine(ground, reader), RapidOcr) == has_engine  # type: ignore[arg-type]  # has no more
    with pytest.raises(InputError, match="says how far to trust OCR"):
        find_engine("ocr", SimpleNamespace(calibration=Calibration()))  # type: ignore[arg-type]
