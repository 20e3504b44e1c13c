"""The last images are read once, and no more than a few are remembered."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from product_vqa.images import ImageError
from product_vqa.modeling.recent_texts import MAX_IMAGES, RecentTexts
from product_vqa.ocr.image_text import ImageText


class CountingEngine:
    description = "a test's engine"

    def __init__(self) -> None:
        self.reads = 0

    def read(self, image: Image.Image) -> ImageText:
        self.reads += 1
        return ImageText(*image.size)


def test_an_image_is_read_again_only_after_many_others() -> None:
    engine = CountingEngine()
    texts = RecentTexts(engine)
    assert texts.description == "a test's engine"
    images = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in range(MAX_IMAGES + 1)]
    for image in (images[0], images[0].copy(), images[0]):
        assert texts.read(image) == ImageText(8, 8)
    assert engine.reads == 1
    assert texts.read(images[0].resize((4, 16))) == ImageText(4, 16)  # the same bytes, and another image
    assert engine.reads == 2
    for image in images:
        texts.read(image)
    before = engine.reads
    texts.read(images[-1])
    assert engine.reads == before
    texts.read(images[0])
    assert engine.reads == before + 1


def test_threads_that_ask_for_an_image_at_once_read_it_once() -> None:
    class SlowEngine(CountingEngine):
        def read(self, image: Image.Image) -> ImageText:
            threading.Event().wait(0.2)  # the other thread asks meanwhile
            return super().read(image)

    engine = SlowEngine()
    texts = RecentTexts(engine)
    image = Image.new("RGB", (8, 8))
    with ThreadPoolExecutor(2) as pool:
        assert [*pool.map(texts.read, [image, image.copy()])] == [ImageText(8, 8)] * 2
    assert engine.reads == 1


def test_a_failure_is_not_remembered() -> None:
    class FailingEngine(CountingEngine):
        def read(self, image: Image.Image) -> ImageText:
            if super().read(image) and self.reads == 1:
                raise ImageError("ocr_failed: busy")
            return ImageText(*image.size)

    texts = RecentTexts(FailingEngine())
    image = Image.new("RGB", (8, 8))
    with pytest.raises(ImageError, match="busy"):
        texts.read(image)
    assert texts.read(image) == ImageText(8, 8)
