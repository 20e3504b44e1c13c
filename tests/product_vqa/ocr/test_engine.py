import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image, ImageDraw, ImageFont

from product_vqa.errors import InputError
from product_vqa.ocr import engine
from product_vqa.ocr.engine import load_engine
from quickstart.rendering.drawing import FONT_FOLDER
from tests.product_vqa.ocr.printed import needs_engine, printed


@needs_engine
def test_printed_text_is_read_with_its_place() -> None:
    text = load_engine().read(printed("Net wt. 500 g"))
    assert (text.width, text.height) == (200, 200)
    (box,) = text.boxes
    assert box.text.replace(" ", "").casefold() == "netwt.500g" and box.score > 0.9
    left, top, right, bottom = box.box
    assert 0.05 < left < 0.15 and 0.7 < right < 1 and 0.3 < top < 0.45 and 0.45 < bottom < 0.6


@needs_engine
def test_an_engine_can_be_sent_to_a_worker() -> None:
    reader = load_engine()
    reader.read(printed("20 cm"))  # its models are loaded, and stay here
    copied = pickle.loads(pickle.dumps(reader))
    assert copied.description == reader.description and copied.read(printed("20 cm")) == reader.read(printed("20 cm"))


@needs_engine
def test_an_image_without_text_and_threads_that_share_an_engine() -> None:
    reader = load_engine()
    images = [Image.new("RGB", (200, 200), "navy"), printed("1,500 mAh"), printed("20 cm", degrees=90)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(reader.read, images))
    assert together == [reader.read(image) for image in images]
    assert [[box.text.replace(" ", "") for box in one.boxes] for one in together] == [[], ["1,500mAh"], ["20cm"]]


@needs_engine
@pytest.mark.faults
@pytest.mark.parametrize("size", [(3, 200), (400, 24)])
def test_a_strip_takes_no_more_than_an_image(size: tuple[int, int]) -> None:
    """One of 3 x 200 px was enlarged to 736 x 49,000."""
    strip = Image.new("RGB", size, "white")
    if size == (400, 24):
        font = ImageFont.truetype(str(FONT_FOLDER / "LiberationSans-Bold.ttf"), 20)
        ImageDraw.Draw(strip).text((100, 0), "500 g", font=font, fill="black")
    text = load_engine().read(strip)
    assert (text.width, text.height) == size
    assert [box.text.replace(" ", "") for box in text.boxes] == (["500g"] if size == (400, 24) else [])
    for box in text.boxes:
        assert 0.2 < box.box[0] < 0.3 and box.box[1] < 0.3 and 0.7 < box.box[3] <= 1


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "rapidocr", None)
    monkeypatch.setattr(engine, "_MISSING", "No module named 'rapidocr'", raising=False)
    with pytest.raises(InputError, match=r"No module named 'rapidocr'\): pip install 'product-vqa\[ocr\]'"):
        load_engine()
