"""An OCR engine that remembers the last images: a page asks several questions about one."""

import hashlib
import threading
from collections import OrderedDict

from PIL import Image

from product_vqa.ocr.image_text import ImageText
from product_vqa.ocr.interface import OcrEngine

MAX_IMAGES = 16


class RecentTexts:
    """Reads an image once, as long as it is among the last MAX_IMAGES."""

    def __init__(self, engine: OcrEngine) -> None:
        self._engine = engine
        self._texts: OrderedDict[bytes, ImageText] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def description(self) -> str:
        return self._engine.description

    def read(self, image: Image.Image) -> ImageText:
        key = hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes()).digest()
        with self._lock:
            if key in self._texts:
                self._texts.move_to_end(key)
                return self._texts[key]
        text = self._engine.read(image)
        with self._lock:
            self._texts[key] = text
            if len(self._texts) > MAX_IMAGES:
                self._texts.popitem(last=False)
        return text
