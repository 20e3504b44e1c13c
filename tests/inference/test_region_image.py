"""The image of a region is bright where the heat is, and has the box."""

import io

import numpy as np
import pytest
from PIL import Image

from inference.region_image import SIZE, draw_region, text_region
from product_vqa.modeling.attribution import AnswerRegion

HEAT = np.array([[0, 0, 0, 0], [0, 3, 1, 0]], np.float32) / 4


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    assert image.format == "JPEG"
    return image.convert("RGB")


@pytest.mark.parametrize(("size", "drawn"), [((80, 40), (480, 240)), ((2000, 4000), (240, 480))])
def test_the_box_is_bright_and_everything_else_is_dark(size: tuple[int, int], drawn: tuple[int, int]) -> None:
    width, height = size
    box = (width // 4, height // 2, width // 2, height)
    image = opened(draw_region(Image.new("RGB", size, (200, 200, 200)), AnswerRegion("1.0 volt", HEAT, box)))
    assert image.size == drawn and max(drawn) == max(SIZE)
    pixels = np.asarray(image).astype(int)

    def at(x: float, y: float) -> np.ndarray:
        return pixels[round(y * image.height), round(x * image.width)]

    assert abs(at(0.375, 0.75) - 200).max() < 12  # the middle of the box
    assert abs(at(0.9, 0.1) - 200 * 120 / 255).max() < 12  # far from it
    left = pixels[round(0.75 * image.height), round(0.25 * image.width) - 1]
    assert abs(left - np.array((255, 190, 0))).max() < 60  # the box's outline


def test_the_box_of_a_text_is_outlined_and_nothing_is_dark() -> None:
    plain = Image.new("RGB", (80, 40), (200, 200, 200))
    region = text_region("1.0 volt", (0.25, 0.5, 0.5, 0.999), plain)
    assert region.box == (20, 20, 40, 40) and region.heat_map is None
    pixels = np.asarray(opened(draw_region(plain, region))).astype(int)
    for x, y in ((0.9, 0.1), (0.375, 0.75)):
        assert abs(pixels[round(y * 240), round(x * 480)] - 200).max() < 12
    assert abs(pixels[180, 119] - np.array((255, 190, 0))).max() < 60


def test_an_image_without_a_region_is_shown_as_it_is() -> None:
    image = opened(draw_region(Image.new("RGB", (96, 48), (10, 200, 30)), AnswerRegion("")))
    assert image.size == (480, 240)
    assert abs(np.asarray(image).astype(int) - (10, 200, 30)).max() < 6
