"""What an OCR engine has to offer, so that another one can take the place of the extra's."""

import logging
from typing import Protocol

from PIL import Image

from product_vqa.images import ImageError
from product_vqa.ocr.image_text import ImageText

logger = logging.getLogger(__name__)


class OcrEngine(Protocol):
    """Reads the text of an image. Any number of threads may use one engine."""

    @property
    def description(self) -> str:
        """Its name, version and models: texts of another engine are not mixed with its own."""
        ...

    def read(self, image: Image.Image) -> ImageText:
        """The texts of an image. Raises ImageError if the engine fails on it."""
        ...


def read_text(engine: OcrEngine, image: Image.Image) -> ImageText:
    """The texts of an image; none, with a warning, if the engine fails on it: a model can answer without them."""
    try:
        return engine.read(image)
    except ImageError as error:
        logger.warning("%s read no text in an image of %d x %d px: %s", engine.description, *image.size, error)
        return ImageText(*image.size)
