"""An OCR engine that remembers the last images: several questions are asked about one."""

import hashlib
import threading
from collections import OrderedDict
from concurrent.futures import Future

from PIL import Image

from product_vqa.ocr.image_text import ImageText
from product_vqa.ocr.interface import OcrEngine

MAX_IMAGES = 16


def hash_pixels(image: Image.Image) -> bytes:
    """Equal for images of equal pixels. Not the object or its file: either may be overwritten with another image."""
    digest = hashlib.sha256(f"{image.mode} {image.size}".encode())
    digest.update(image.tobytes())
    return digest.digest()


class RecentTexts:
    """Reads an image once, as long as it is among the last MAX_IMAGES: threads that ask for it meanwhile wait."""

    def __init__(self, engine: OcrEngine) -> None:
        self._engine = engine
        self._texts: OrderedDict[bytes, Future[ImageText]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def description(self) -> str:
        return self._engine.description

    def read(self, image: Image.Image) -> ImageText:
        key = hash_pixels(image)
        with self._lock:
            text = self._texts.get(key)
            if text is not None:
                self._texts.move_to_end(key)
            else:
                own = self._texts[key] = Future()
                if len(self._texts) > MAX_IMAGES:
                    self._texts.popitem(last=False)
        if text is not None:
            return text.result()
        try:
            own.set_result(self._engine.read(image))
        except BaseException as error:  # whoever waits for it gets it too, and the next one tries again
            with self._lock:
                if self._texts.get(key) is own:
                    del self._texts[key]
            own.set_exception(error)
        return own.result()
