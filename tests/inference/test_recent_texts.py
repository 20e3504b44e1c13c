"""The last images are read once, and no more than a few are remembered."""

from PIL import Image

from inference.recent_texts import MAX_IMAGES, RecentTexts
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
