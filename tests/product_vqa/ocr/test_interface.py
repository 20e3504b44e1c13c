"""The interface of an engine: the extra's has it, and so has a class of one's own."""

from typing import Any

import pytest
from PIL import Image

from product_vqa.images import ImageError
from product_vqa.ocr.engine import RapidOcr
from product_vqa.ocr.image_text import ImageText
from product_vqa.ocr.interface import OcrEngine, read_text


def test_engines_have_what_the_interface_names() -> None:
    class Blind:
        description = "an engine that sees nothing"

        def read(self, image: Image.Image) -> ImageText:
            return ImageText(*image.size)

    engine: OcrEngine = Blind()
    assert engine.read(Image.new("RGB", (3, 2))) == ImageText(3, 2)
    named = {name for name in vars(OcrEngine) if not name.startswith("_")}
    kinds: tuple[Any, ...] = (Blind, RapidOcr)
    assert named == {"description", "read"} and all(hasattr(kind, name) for kind in kinds for name in named)


def test_an_engine_that_fails_on_an_image_has_read_nothing_in_it(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        description = "a broken engine"

        def read(self, image: Image.Image) -> ImageText:
            raise ImageError("ocr_failed: out of ink")

    assert read_text(Broken(), Image.new("RGB", (3, 2))) == ImageText(3, 2)
    assert "a broken engine read no text in an image of 3 x 2 px: ocr_failed: out of ink" in caplog.text
