"""What an item may be, and which image it is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from product_vqa.images import ImageError
from product_vqa.modeling.items import load_item
from tests.product_vqa.png_files import encode_png
from tests.tiny import make_image


def test_a_path_a_file_an_array_and_an_image_are_the_same(tmp_path: Path) -> None:
    image = make_image(0)
    file = tmp_path / "photo.png"
    file.write_bytes(encode_png(image))
    for item in (str(file), file, file.read_bytes(), np.asarray(image), np.asarray(image)[::-1][::-1], image):
        assert load_item(item).tobytes() == image.tobytes()


def test_an_array_may_be_grey_or_transparent() -> None:
    grey = load_item(np.full((4, 6), 128, np.uint8))
    assert (grey.mode, grey.size, grey.getpixel((0, 0))) == ("RGB", (6, 4), (128, 128, 128))
    assert load_item(np.zeros((4, 6, 4), np.uint8)).getpixel((5, 3)) == (255, 255, 255)  # on white


def wrong_items(folder: Path) -> dict[str, tuple[Any, str]]:
    (folder / "text.jpg").write_text("<html>")
    return {
        "no file": (folder / "none.jpg", r"^file_unreadable: No such file or directory"),
        "a folder": (folder, r"^file_unreadable: "),
        "another file": (str(folder / "text.jpg"), r"^not_a_picture"),
        "a name with a null character": ("a\0b", r"^file_unreadable: .*null"),
        "a URL": ("https://example.com/a.jpg", r"^not_a_file: a URL; read_many with allow_urls=True downloads it"),
        "a URL in capitals": (" HTTP://example.com/a.jpg", r"^not_a_file: a URL; "),
        "a URL of another scheme": ("s3://bucket/a.jpg", r"^not_a_file: a URL; "),
        "a path made of a URL": (Path("https://example.com/a.jpg"), r"^not_a_file: a URL; .* if it is a str, or pass"),
        "floats": (np.zeros((4, 4, 3)), r"^not_an_image: an array \(4, 4, 3\) of float64; pass \(height, width, 3\)"),
        "channels first": (np.zeros((3, 20, 20), np.uint8), r"^not_an_image: an array \(3, 20, 20\) of uint8"),
        "a scalar": (np.uint8(3) * np.ones((), np.uint8), r"^not_an_image"),
        "no pixels": (np.zeros((0, 4, 3), np.uint8), r"^no_pixels: 4x0"),
        "a bomb": (np.zeros((1, 20_001), np.uint8), r"^side_too_long: 20001x1"),
        "a list": ([1, 2], r"^not_an_image: list"),
    }


def test_what_is_not_an_image_is_refused_with_a_reason(tmp_path: Path) -> None:
    for item, message in wrong_items(tmp_path).values():
        with pytest.raises(ImageError, match=message):
            load_item(item)
