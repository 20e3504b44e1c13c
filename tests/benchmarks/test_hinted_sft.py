"""Questions that end with what OCR suggests, in training and in prediction alike."""

from pathlib import Path

import pytest

from benchmarks.hinted_sft import HintedBatches, HintedCollator, Hints
from product_vqa.dataset import load_split
from product_vqa.hub import Location
from product_vqa.modeling.collator import IGNORED, TrainingCollator
from product_vqa.modeling.loading import load_processor
from product_vqa.ocr.image_text import ImageText, make_box
from product_vqa.ocr.text_files import TextRow, write_texts
from product_vqa.task.schema import CHALLENGE
from tests.tiny import save_dataset

CORNERS = (0.1, 0.2, 0.5, 0.2, 0.5, 0.3, 0.1, 0.3)
QUESTIONS = ("What is the item weight? 500.0 gram, 20.0 ounce", "What is the voltage?")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """The first two images of two splits have their texts."""
    folder = save_dataset(tmp_path / "dataset")
    (folder / "ocr").mkdir()
    text = ImageText(800, 600, (make_box("500 g (20 oz)", 0.9, CORNERS),))
    for split, first in (("train", 0), ("test", 5000)):
        rows = [TextRow(f"https://example.com/{first + number}.jpg", None, text) for number in (0, 1)]
        write_texts(folder / "ocr" / f"{split}-00000-of-00001.parquet", rows, engine="e")
    return folder


def test_what_is_asked_and_learned(dataset: Path, tiny_base: Path) -> None:
    processor = load_processor(Location(str(tiny_base)))
    rows = load_split(Location(str(dataset)), "train").select(range(3)).to_list()
    batch = HintedCollator(processor, CHALLENGE, Hints.of(dataset, "train", schema=CHALLENGE))(rows)
    plain = TrainingCollator(processor, CHALLENGE)(rows)
    texts = processor.tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)
    without = "What is the maximum weight recommendation?"
    for text, question, row in zip(texts, (*QUESTIONS, without), rows, strict=True):
        assert text == f"{question}\n{row['entity_value']}"
    for ids, others in zip(batch["labels"], plain["labels"], strict=True):
        assert ids[ids != IGNORED].tolist() == others[others != IGNORED].tolist()
    assert batch["row_index"].tolist() == [0, 1, 2]


def test_what_is_asked_in_prediction(dataset: Path, tiny_base: Path) -> None:
    processor = load_processor(Location(str(tiny_base)))
    batches = HintedBatches(
        load_split(Location(str(dataset)), "test"), processor=processor, batch_size=2, schema=CHALLENGE,
        hints=Hints.of(dataset, "test", schema=CHALLENGE),
    )  # fmt: skip
    batch = batches[0]
    texts = processor.tokenizer.batch_decode(batch.inputs["input_ids"], skip_special_tokens=True)
    assert texts == [f"{question}\n" for question in QUESTIONS]
    assert batch.entity_names == ["item_weight", "voltage"]  # of the answers
    assert "pixel_values" in batch.inputs
