"""The interface of an engine: the extra's has it, and so has a class of one's own."""

from typing import Any

from PIL import Image

from product_vqa.ocr.engine import RapidOcr
from product_vqa.ocr.image_text import ImageText
from product_vqa.ocr.interface import OcrEngine


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
