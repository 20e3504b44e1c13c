"""The reader with a trained adapter: one answer and many, and batches that do not fit in memory."""

import io
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from inference import AttributeReader
from product_vqa.modeling import attribute_reader
from tests.product_vqa.modeling.challenge import make_generation_batch
from tests.product_vqa.png_files import encode_png
from tests.tiny import make_image, make_rows


@pytest.mark.slow
def test_the_reader_answers_one_and_many(adapter: tuple[str, Any]) -> None:
    reader = AttributeReader.from_pretrained(adapter[0], revision="main")
    rows = make_rows(3)
    answers = reader.read_batch([row["image"] for row in rows], [row["entity_name"] for row in rows])
    for row, answer in zip(rows, answers, strict=True):
        alone = reader.read(row["image"], row["entity_name"])
        assert alone.text == answer.text
        assert 0 <= answer.confidence <= 1
        assert alone.confidence == pytest.approx(answer.confidence, rel=1e-3)
    with pytest.raises(ValueError, match="unknown entity_name 'colour'"):
        reader.read(rows[0]["image"], "colour")
    as_png, expected = encode_png(rows[0]["image"]), reader.read(rows[0]["image"], "item_weight")
    for same in (as_png, {"bytes": as_png, "path": None}, Image.open(io.BytesIO(as_png))):
        assert reader.read(same, "item_weight") == expected
    assert reader.read_batch([], []) == []


@pytest.mark.slow
def test_an_answer_may_be_empty_only_if_that_is_allowed(
    adapter: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for allow_empty in (True, False):
        reader = AttributeReader.from_pretrained(adapter[0], allow_empty=allow_empty)
        end = reader.processor.tokenizer.eos_token_id
        reader.model.lm_head.register_forward_hook(
            lambda module, inputs, logits, end=end: logits.index_fill(-1, torch.tensor(end), 100.0)
        )
        answer = reader.read(make_rows(1)[0]["image"], "item_weight")
        assert (answer.text == "") == allow_empty
        assert answer.confidence > 0


def fail_above(size: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let no more rows than these fit in memory; returns the sizes that are tried."""
    generate_answers, sizes = attribute_reader.generate_answers, []

    def generate_few(model: Any, batch: Any, *, entity_names: list[str], **options: Any) -> Any:
        sizes.append(len(entity_names))
        assert len(batch["input_ids"]) == len(batch["image_index"]) == len(entity_names)
        if len(entity_names) > size:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return generate_answers(model, batch, entity_names=entity_names, **options)

    monkeypatch.setattr(attribute_reader, "generate_answers", generate_few)
    return sizes


def test_a_batch_that_does_not_fit_in_memory_is_answered_in_halves(
    adapter: tuple[str, Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = AttributeReader.from_pretrained(adapter[0])
    rows = make_rows(7)
    names = [row["entity_name"] for row in rows]
    batch = make_generation_batch(rows, processor=reader.processor)
    expected = reader.answer(batch, names)
    sizes = fail_above(2, monkeypatch)
    halved = reader.answer(batch, names)
    assert "out of memory with 7 rows in a batch: it is split in half" in caplog.text
    assert sizes == [7, 3, 1, 2, 4, 2, 2]
    assert [answer.prediction for answer in halved] == [answer.prediction for answer in expected]
    assert len(halved) == 7


def test_a_single_row_that_does_not_fit_in_memory_is_an_error(
    adapter_reader: AttributeReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_above(0, monkeypatch)
    with pytest.raises(torch.OutOfMemoryError):
        adapter_reader.read(make_image(0), "width")


def test_a_batch_without_rows_has_no_answers(adapter_reader: AttributeReader) -> None:
    assert adapter_reader.answer({}, []) == []


def test_the_batch_size_is_the_largest_that_fits_in_memory(
    adapter: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = AttributeReader.from_pretrained(adapter[0])
    assert reader.find_batch_size() == 32

    def fit(rows: int) -> Any:
        def generate(model: Any, batch: Any, *, entity_names: list[str], **options: Any) -> list[Any]:
            if len(entity_names) > rows:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return []

        return generate

    monkeypatch.setattr(type(reader.model), "device", property(lambda _: SimpleNamespace(type="cuda")))
    monkeypatch.setattr(attribute_reader, "generate_answers", fit(70))
    assert reader.find_batch_size() == 64
    monkeypatch.setattr(attribute_reader, "generate_answers", fit(0))
    assert reader.find_batch_size(largest=4) == 1
