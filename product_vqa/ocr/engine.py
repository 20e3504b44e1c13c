"""The OCR engine behind one small interface, so that another one can take its place.

engine = load_engine()
text = engine.read(Image.open("pack.jpg"))
[box.text for box in text.boxes]
"""

import logging
import threading
from importlib.metadata import version

import numpy as np
from PIL import Image

from product_vqa.errors import InputError, first_line
from product_vqa.images import ImageError, to_rgb
from product_vqa.ocr.image_text import ImageText, make_box, select_boxes
from product_vqa.ocr.interface import OcrEngine

try:
    import rapidocr
    from rapidocr.inference_engine.onnxruntime.main import ONNXRuntimeError
    from rapidocr.main import RapidOCRError
    from rapidocr.utils.output import RapidOCROutput
    from rapidocr.utils.process_img import cv2  # type: ignore[attr-defined]  # OpenCV, of whichever package
except ImportError as error:
    rapidocr = None  # type: ignore[assignment]
    _MISSING = first_line(error)


MAX_ASPECT = 8  # a strip of 3 x 200 px would be enlarged to 736 x 49,000, which takes minutes and gigabytes


class RapidOcr:
    """PP-OCRv6 by onnxruntime on the CPU; the wheel of rapidocr has the models, so nothing is downloaded.

    Each thread of the caller has an engine of its own, which uses one core. An image is enlarged until its shorter
    side has 736 px, and reduced until its longer one has 2,000. A strip gets a white margin first.
    """

    def __init__(self) -> None:
        if rapidocr is None:
            raise InputError(f"reading text needs an OCR engine ({_MISSING}): pip install 'product-vqa[ocr]'")
        logging.getLogger("RapidOCR").setLevel(logging.ERROR)
        self._own = threading.local()

    def __reduce__(self) -> tuple[type, tuple[()]]:  # a worker loads the models itself
        return RapidOcr, ()

    @property
    def description(self) -> str:
        return f"rapidocr {version('rapidocr')}, PP-OCRv6 small"

    def read(self, image: Image.Image) -> ImageText:
        """The texts of an image, an upright RGB one or any that `product_vqa.images` accepts.

        Raises ImageError for another one, and where the engine fails.
        """
        image = to_rgb(image)
        pixels = np.ascontiguousarray(np.asarray(_widen(image))[:, :, ::-1])  # BGR, as OpenCV has it
        try:
            found = self._engine()(pixels)
        except (ONNXRuntimeError, RapidOCRError, cv2.error) as error:
            raise ImageError(f"ocr_failed: {first_line(error)}") from error
        if not isinstance(found, RapidOCROutput) or found.boxes is None or not found.txts or not found.scores:
            return ImageText(image.width, image.height)
        boxes = [
            make_box(text, score, (np.asarray(corners, dtype=float) / image.size).flatten())
            for text, score, corners in zip(found.txts, found.scores, found.boxes, strict=True)
        ]
        return ImageText(image.width, image.height, select_boxes(boxes))

    def _engine(self) -> "rapidocr.RapidOCR":
        engine = getattr(self._own, "engine", None)
        if engine is None:
            engine = self._own.engine = rapidocr.RapidOCR(
                params={
                    "Global.log_level": "error",
                    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
                    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
                }
            )
        return engine


def _widen(image: Image.Image) -> Image.Image:
    """The image, with white on its right or below it if it is a strip."""
    shorter = -(-max(image.size) // MAX_ASPECT)
    if min(image.size) >= shorter:
        return image
    widened = Image.new("RGB", (max(image.width, shorter), max(image.height, shorter)), "white")
    widened.paste(image)
    return widened


def is_installed() -> bool:
    """Whether the extra `ocr` is."""
    return rapidocr is not None


def load_engine() -> OcrEngine:
    """The engine of the extra `ocr`. Raises InputError if it is not installed."""
    return RapidOcr()
