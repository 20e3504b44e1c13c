"""Batches of a split: fixed by its order, each image decoded once, the same from workers as without."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from inference import AttributeReader
from inference.candidate_finder import CandidateFinder
from inference.dataloader import default_workers, load_batches
from inference.predictions import to_table
from inference.submission import NO_IMAGE
from inference.text_source import TextSource
from product_vqa.dataset import load_split
from product_vqa.hub import Location
from product_vqa.ocr.candidates import CandidateRules
from product_vqa.ocr.image_text import ImageText, make_box
from product_vqa.ocr.stored_texts import load_texts
from product_vqa.ocr.text_files import TextRow, hash_image, write_texts
from product_vqa.task.features import FEATURES
from product_vqa.task.schema import CHALLENGE
from tests.inference.challenge import RowBatches
from tests.tiny import make_rows, save_dataset


def test_rows_of_one_image_share_it(adapter: tuple[str, Any], tmp_path: Path) -> None:
    """As in test.csv, the questions about an image are consecutive. Workers make the same batches."""
    rows = make_rows(9, labelled=False)
    for row in rows:
        row["image"] = rows[row["index"] // 3 * 3]["image"] if row["index"] != 4 else None
    Dataset.from_list(rows, features=FEATURES).to_parquet(tmp_path / "data" / "test-00000-of-00001.parquet")
    dataset = load_split(Location(str(tmp_path)), "test")
    reader = AttributeReader.from_pretrained(adapter[0])
    batches = RowBatches(dataset, processor=reader.processor, batch_size=5)
    alone = list(load_batches(batches, [0, 1], num_workers=0))
    assert [len(batch.inputs["pixel_values"]) for batch in alone] == [2, 2]
    assert [batch.inputs["image_index"].tolist() for batch in alone] == [[0, 0, 0, 1], [0, 1, 1, 1]]
    for batch, other in zip(alone, load_batches(batches, [0, 1], num_workers=2), strict=True):
        assert batch.rows == other.rows
        assert all(torch.equal(batch.inputs[name], other.inputs[name]) for name in batch.inputs)
    answered = [
        row for batch in alone for row in to_table(batch, reader.answer(batch.inputs, batch.entity_names)).to_pylist()
    ]
    asked = [row for row in rows if row["image"] is not None]
    expected = reader.read_batch([row["image"].copy() for row in asked], [row["entity_name"] for row in asked])
    assert [row["answer"] for row in answered if row["index"] != 4] == [answer.text for answer in expected]


def test_a_row_without_an_image_is_not_part_of_the_inputs(adapter_reader: AttributeReader, tmp_path: Path) -> None:
    dataset = load_split(Location(str(save_dataset(tmp_path, test=5))), "test")
    batches = RowBatches(dataset, processor=adapter_reader.processor, batch_size=2)
    assert len(batches) == 3
    batch = batches[1]
    assert batch.failures == [NO_IMAGE, None]
    assert batch.entity_names == ["width"]  # of index 5003
    assert len(batch.inputs["input_ids"]) == 1
    alone = RowBatches(dataset, processor=adapter_reader.processor, batch_size=1)[2]
    assert (alone.failures, alone.entity_names, alone.inputs) == ([NO_IMAGE], [], {})


def test_texts_of_the_images_that_the_rows_have_count_and_no_others(
    adapter_reader: AttributeReader, tmp_path: Path
) -> None:
    folder = save_dataset(tmp_path / "dataset", test=3)
    location = Location(str(folder))
    dataset = load_split(location, "test")
    content = dataset[0]["image"]["bytes"]
    text = ImageText(60, 40, (make_box("500 g", 0.9, (0.1, 0.2, 0.5, 0.2, 0.5, 0.3, 0.1, 0.3)),))
    for sha256, has_candidates in ((hash_image(content), True), (hash_image(b"another"), False)):
        (folder / "ocr").mkdir(exist_ok=True)
        rows = [TextRow(dataset[0]["image_link"], sha256, text)]
        write_texts(folder / "ocr" / "test-00000-of-00001.parquet", rows, engine="e")
        finder = CandidateFinder(TextSource(load_texts(location, "test")), CandidateRules(CHALLENGE, {}))
        batch = RowBatches(dataset, processor=adapter_reader.processor, batch_size=5, finder=finder)[0]
        assert batch.candidates is not None
        assert [bool(found) for found in batch.candidates] == [has_candidates, False]  # the third has no image
        assert "image_sha256" not in batch.rows[0]


@pytest.mark.parametrize(
    ("cores", "num_processes", "expected"), [(64, 1, 8), (64, 4, 8), (16, 8, 2), (2, 8, 1), (None, 1, 1)]
)
def test_a_gpu_has_up_to_eight_workers_and_a_cpu_none(
    monkeypatch: pytest.MonkeyPatch, cores: int | None, num_processes: int, expected: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert default_workers(torch.device("cuda"), num_processes=num_processes) == expected
    assert default_workers(torch.device("cpu"), num_processes=num_processes) == 0
