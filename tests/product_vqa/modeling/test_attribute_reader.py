"""`AttributeReader`: what it accepts, what it refuses, and what its predictions record."""

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from product_vqa.errors import InputError
from product_vqa.images import ImageError
from product_vqa.modeling.attribute_reader import AttributeReader
from product_vqa.modeling.calibration import Calibration, Scaling
from product_vqa.modeling.generation import not_finite_remedy
from product_vqa.ocr.image_text import ImageText
from product_vqa.schemas import save_schema
from product_vqa.task.prompt import BaseSettings, save_task
from product_vqa.task.schema import CHALLENGE, UNITS_BY_ENTITY
from tests.product_vqa.modeling.adapters import save_adapter
from tests.product_vqa.modeling.schemas import ALL_KINDS
from tests.product_vqa.png_files import encode_png
from tests.tiny import make_image, make_rows


@pytest.fixture(scope="module")
def reader(model: PaliGemmaForConditionalGeneration, processor: PaliGemmaProcessor) -> AttributeReader:
    return AttributeReader(model, processor, schema=CHALLENGE)


def test_an_image_may_be_pillows_the_bytes_of_a_file_or_stored_by_datasets(reader: AttributeReader) -> None:
    image = make_image(0)
    as_png = encode_png(image)
    expected = reader.read(image, "item_weight")
    assert expected.unit in UNITS_BY_ENTITY["item_weight"]
    for same in (as_png, {"bytes": as_png, "path": None}, Image.open(io.BytesIO(as_png))):
        assert reader.read(same, "item_weight") == expected
    assert reader.read_batch([], []) == []


def unreadable_images() -> dict[str, tuple[Any, str]]:
    complete = encode_png(make_image(0))
    return {
        "a truncated file": (Image.open(io.BytesIO(complete[:3000])), "image_unreadable: OSError: "),
        "bytes of a truncated file": (complete[:3000], "image_unreadable: OSError: "),
        "bytes of something else": (b"<html>", "not_a_picture"),
        "no file": ("photo.jpg", "file_unreadable: No such file"),
        "None": (None, "not_an_image: None; pass a Pillow image"),
        "a list": ([1, 2], "not_an_image: list"),
        "an array of floats": (np.zeros((4, 4, 3)), "not_an_image: an array"),
        "a stored path": ({"bytes": None, "path": "/a.png"}, "no_bytes: only the path '/a.png'"),
        "no size": (Image.new("RGB", (0, 0)), "no_pixels: 0x0"),
        "too long a side": (Image.new("1", (1, 20_001)), "side_too_long: 1x20001"),
    }


@pytest.mark.parametrize("name", unreadable_images())
def test_the_reader_names_the_position_of_what_it_cannot_read(reader: AttributeReader, name: str) -> None:
    image, message = unreadable_images()[name]
    with pytest.raises(ImageError, match=rf"^images\[2\]: {message}"):
        reader.read_batch([make_image(0), make_image(1), image, make_image(3)], ["width"] * 4)
    with pytest.raises(ImageError, match=rf"^images\[0\]: {message}"):
        reader.read(image, "width")


@pytest.mark.parametrize(
    ("images", "entity_names", "message"),
    [
        ([make_image(0)], [], "must have the same length, got 1 and 0"),
        ([], ["width"], "must have the same length, got 0 and 1"),
        ([make_image(0)] * 2, ["width", "colour"], r"entity_names\[1\]: unknown entity_name 'colour'; known are "),
        ([make_image(0)], [None], r"entity_names\[0\]: unknown entity_name None"),
        (make_image(0), ["width"], r"`images` must be a list, got Image; read\(\) takes a single image"),
        ("photo.jpg", ["width"], "`images` must be a list, got str"),
        (None, ["width"], "`images` must be a list, got None"),
        ([make_image(0)], "width", "`entity_names` must be a list, got str"),
    ],
)  # fmt: skip
def test_the_reader_refuses_what_is_not_a_batch(
    reader: AttributeReader, images: Any, entity_names: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        reader.read_batch(images, entity_names)


@pytest.mark.parametrize(
    ("ocr", "given"),
    [
        (ImageText(8, 8), "ImageText"),
        ("ocr", "str"),
        ({}, "dict"),
        (iter([ImageText(8, 8)]), "list_iterator"),
        ([None], "a list with NoneType at position 0"),
        ((ImageText(8, 8), {}), "a tuple with dict at position 1"),
    ],
)
def test_what_is_neither_an_engine_nor_texts_is_refused(reader: AttributeReader, ocr: Any, given: str) -> None:
    engine = r"`ocr` must be an engine \(product_vqa.ocr.engine.load_engine\(\)\)"
    with pytest.raises(ValueError, match=f"^{engine} or a list with the ImageText of each image, got {given}$"):
        reader.read_batch([make_image(0)], ["width"], ocr=ocr)


@pytest.mark.parametrize("ocr", ["ocr", True, [ImageText(8, 8)], open, ImageText])
def test_what_is_neither_an_engine_nor_a_text_is_refused(reader: AttributeReader, ocr: Any) -> None:
    given = type(ocr).__name__
    with pytest.raises(
        ValueError, match=rf"^`ocr` must be an engine \(.*\) or the ImageText of the image, got {given}$"
    ):
        reader.read(make_image(0), "width", ocr=ocr)


def test_confidences_are_calibrated_and_answers_stay(
    model: PaliGemmaForConditionalGeneration, processor: PaliGemmaProcessor, reader: AttributeReader
) -> None:
    scaling = Scaling(temperature=2.0, bias=0.5)
    calibrated = AttributeReader(
        model, processor, num_beams=2, calibration=Calibration(answer=scaling), schema=CHALLENGE
    )
    plain = AttributeReader(model, processor, num_beams=2, schema=CHALLENGE)
    rows = make_rows(3)
    asked = [row["image"] for row in rows], [row["entity_name"] for row in rows]
    for answer, raw in zip(calibrated.read_batch(*asked), plain.read_batch(*asked), strict=True):
        assert answer.text == raw.text
        assert answer.confidence == scaling(raw.confidence)
        assert [other.text for other in answer.alternatives] == [other.text for other in raw.alternatives]
        assert len(answer.alternatives) == 1


def test_an_adapter_is_loaded_on_the_base_model_that_it_names(tiny_base: Path, tmp_path: Path) -> None:
    folder = save_adapter(tmp_path / "adapter", tiny_base)
    reader = AttributeReader.from_pretrained(str(folder), dtype="float32", device="cpu")
    assert str(reader.base_model) == str(tiny_base)
    recorded = {name: value for name, value in reader.provenance.items() if name != "adapter_sha256"}
    assert recorded == {
        "adapter": str(folder),
        "processor_sha256": None,
        "base_model": str(tiny_base),
        "base_precision": "not quantized",
        "adapter_merged": "yes",
        "dtype": "torch.float32",
        "calibration": "answer 1 +0, number 1 +0, unit 1 +0",
    }
    assert len(str(reader.provenance["adapter_sha256"])) == 64


def test_a_removed_cap_of_the_logits_is_removed_for_predictions_too(tiny_paligemma2: Path, tmp_path: Path) -> None:
    folder = save_adapter(tmp_path / "adapter", tiny_paligemma2)
    logits, caps = [], []
    for is_removed in (False, True):
        save_task(folder, BaseSettings("float32", load_in_4bit=False, disable_logit_softcapping=is_removed))
        reader = AttributeReader.from_pretrained(str(folder), dtype="float32", device="cpu")
        row = make_rows(1)[0]
        batch = reader.processor(images=row["image"], text="<image>What is the width?", return_tensors="pt")
        with torch.inference_mode():
            logits.append(reader.model(**batch).logits)
        caps.append(reader.model.config.text_config.final_logit_softcapping)
    assert caps == [30.0, None]
    torch.testing.assert_close(logits[0], 30 * torch.tanh(logits[1] / 30))


@pytest.mark.slow
def test_a_base_model_alone_records_no_adapter(tiny_base: Path) -> None:
    reader = AttributeReader.from_pretrained(None, base_model=str(tiny_base), device="cpu")
    names = ("adapter", "adapter_sha256", "processor_sha256", "adapter_merged")
    assert [reader.provenance[name] for name in names] == ["None", None, None, None]


def test_what_is_missing_is_named_as_an_argument(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^pass `adapter` or `base_model`"):
        AttributeReader.from_pretrained(None)
    with pytest.raises(InputError, match=r"^`adapter` .*none: no such folder"):
        AttributeReader.from_pretrained(str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"^`base_model` .*none: no such folder"):
        AttributeReader.from_pretrained(None, base_model=str(tmp_path / "none"))
    folder = save_adapter(tmp_path / "adapter", tmp_path / "gone", trained_on=tiny_base)
    with pytest.raises(InputError, match=r"^`base_model` .*gone: no such folder \(the base model that .* names"):
        AttributeReader.from_pretrained(str(folder))


def test_logits_that_are_not_finite_are_reported_once_with_a_remedy(
    model: PaliGemmaForConditionalGeneration, processor: PaliGemmaProcessor, caplog: pytest.LogCaptureFixture
) -> None:
    reader = AttributeReader(model, processor, schema=CHALLENGE)
    hook = model.lm_head.register_forward_hook(lambda module, inputs, output: output * float("nan"))
    with caplog.at_level(logging.WARNING):
        answers = [reader.read(make_image(seed), "width") for seed in range(2)]
    hook.remove()
    assert [answer.prediction for answer in answers] == ["", ""]
    assert caplog.text.count("logits are not finite for 1 of 1 rows") == 1
    assert not_finite_remedy(torch.float32) in caplog.text
    assert "`dtype` float32: float16 overflows" in not_finite_remedy(torch.float16)


def test_a_reader_answers_the_questions_of_its_adapters_schema(base: Path, tmp_path: Path) -> None:
    folder = save_adapter(tmp_path / "adapter", base)
    save_schema(ALL_KINDS, folder)
    reader = AttributeReader.from_pretrained(str(folder), dtype="float32", num_beams=2)
    assert reader.schema == ALL_KINDS
    assert reader.provenance["schema_sha256"] == ALL_KINDS.sha256
    answers = reader.read_batch([make_image(0)] * len(ALL_KINDS.names), ALL_KINDS.names)
    for name, answer in zip(ALL_KINDS.names, answers, strict=True):
        assert ALL_KINDS[name].is_valid(answer.prediction)
        assert f"{answer.value} {answer.unit}".strip() == answer.prediction
    assert len(reader.read(make_image(0), "colour").alternatives) == 1
    with pytest.raises(ValueError, match=r"^entity_names\[0\]: unknown entity_name 'width'; known are storage, temp"):
        reader.read(make_image(0), "width")


def test_a_base_model_alone_answers_the_questions_that_it_is_given(base: Path) -> None:
    reader = AttributeReader.from_pretrained(None, base_model=str(base), dtype="float32", schema=ALL_KINDS)
    assert reader.read(make_image(0), "organic").prediction in ("", "yes", "no")
    assert "schema_sha256" not in AttributeReader.from_pretrained(None, base_model=str(base)).provenance
