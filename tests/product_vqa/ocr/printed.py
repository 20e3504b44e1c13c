"""Images with text for the real engine, where it is installed."""

import pytest
from PIL import Image, ImageDraw, ImageFont

from product_vqa.ocr import engine
from quickstart.rendering.drawing import FONT_FOLDER

needs_engine = pytest.mark.skipif(engine.rapidocr is None, reason="the extra `ocr` is not installed")


def printed(text: str, *, degrees: int = 0) -> Image.Image:
    image = Image.new("RGB", (200, 200), "white")  # a square: a strip would be enlarged to thousands of px
    font = ImageFont.truetype(str(FONT_FOLDER / "LiberationSans-Bold.ttf"), 24)
    ImageDraw.Draw(image).text((20, 80), text, font=font, fill="black")
    return image.rotate(degrees, expand=True, fillcolor="white")
