"""What an OCR engine has to offer, so that another one can take the place of the extra's."""

from typing import Protocol

from PIL import Image

from product_vqa.ocr.image_text import ImageText


class OcrEngine(Protocol):
    """Reads the text of an image. Any number of threads may use one engine."""

    @property
    def description(self) -> str:
        """Its name, version and models: texts of another engine are not mixed with its own."""
        ...

    def read(self, image: Image.Image) -> ImageText: ...
