"""What an item of `AttributeReader` may be, and its image; and what may read its text."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeGuard

import numpy as np
from PIL import Image

from product_vqa.documents import read_bytes
from product_vqa.errors import first_line
from product_vqa.images import MAX_BYTES, ImageError, as_image, load_image
from product_vqa.ocr.image_text import ImageText
from product_vqa.task.attributes import Schema

ImageItem = str | os.PathLike[str] | bytes | np.ndarray | Image.Image
Item = ImageItem | tuple[ImageItem, str]  # a pair names the attribute that is asked for

_URL = re.compile(r"\s*(?:[a-z][a-z0-9+.-]+://|https?:/)", re.IGNORECASE)  # the latter is that of a Path of a URL
_MODES = {2: "L", 3: "RGB", 4: "RGBA"}  # of an array, by its dimensions or the size of its last one


def load_item(image: object) -> Image.Image:
    """Decode an image: a path, the bytes of a file, an array, or what `as_image` takes.

    An array is (height, width), (height, width, 3) in the order red, green, blue, or (height, width, 4), of uint8.
    Raises ImageError for a file that cannot be read and for anything else.
    """
    if isinstance(image, str | os.PathLike):
        return load_image(_read_file(image))
    if isinstance(image, np.ndarray):
        return as_image(_array_image(image))
    return as_image(image)


def is_url(image: object) -> TypeGuard[str]:
    """Whether an item is a URL, of any scheme. That of a path has lost a slash, and is none."""
    return isinstance(image, str) and "://" in image and _URL.match(image) is not None


def _read_file(path: str | os.PathLike[str]) -> bytes:
    if _URL.match(str(path)):
        raise ImageError(
            "not_a_file: a URL; read_many with allow_urls=True downloads it if it is a str, or pass the bytes of the "
            "image"
        )
    try:
        return read_bytes(Path(path), max_bytes=MAX_BYTES)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise ImageError(f"file_unreadable: {getattr(error, 'strerror', None) or first_line(error)}") from error


def _array_image(array: np.ndarray) -> Image.Image:
    mode = _MODES.get(2 if array.ndim == 2 else array.shape[-1]) if array.ndim in (2, 3) else None
    if mode is None or array.dtype != np.uint8:
        raise ImageError(
            f"not_an_image: an array {array.shape} of {array.dtype}; pass (height, width, 3) of uint8, from 0 to 255"
        )
    if 0 in array.shape:
        raise ImageError(f"no_pixels: {array.shape[1]}x{array.shape[0]}")
    return Image.fromarray(np.ascontiguousarray(array), mode)


def load_rows(images: Sequence[ImageItem], entity_names: Sequence[str], *, schema: Schema) -> list[dict[str, Any]]:
    """Decode the images of `AttributeReader.read_batch`, as rows for `make_generation_batch`. Raises as that does."""
    images = _as_list("images", images)
    entity_names = _as_list("entity_names", entity_names)
    if len(images) != len(entity_names):
        raise ValueError(
            f"`images` and `entity_names` must have the same length, got {len(images)} and {len(entity_names)}"
        )
    rows = []
    decoded: dict[int, Image.Image] = {}
    for position, (image, entity_name) in enumerate(zip(images, entity_names, strict=True)):
        if not isinstance(entity_name, str) or entity_name not in schema.attributes:
            raise ValueError(
                f"entity_names[{position}]: unknown entity_name {entity_name!r}; known are {', '.join(schema.names)}"
            )
        try:
            if id(image) not in decoded:
                decoded[id(image)] = load_item(image)
        except ImageError as error:
            raise ImageError(f"images[{position}]: {error}") from error
        rows.append({"image": decoded[id(image)], "entity_name": entity_name})
    return rows


def check_ocr(ocr: object, *, takes: Literal["engine", "text", "texts"]) -> None:
    """Raise ValueError unless `ocr` is None, an engine, or what a method takes instead: a text or a list of texts."""
    if ocr is None or (
        not isinstance(ocr, type) and hasattr(ocr, "description") and callable(getattr(ocr, "read", 0))
    ):
        return
    given = type(ocr).__name__
    expected = "an engine (product_vqa.ocr.engine.load_engine())"
    if takes == "text":
        expected += " or the ImageText of the image"
        if isinstance(ocr, ImageText):
            return
    elif takes == "texts":
        expected += " or a list with the ImageText of each image"
        if isinstance(ocr, Sequence) and not isinstance(ocr, str | bytes):
            wrong = [(number, text) for number, text in enumerate(ocr) if not isinstance(text, ImageText)]
            if not wrong:
                return
            given = f"a {given} with {type(wrong[0][1]).__name__} at position {wrong[0][0]}"
    raise ValueError(f"`ocr` must be {expected}, got {given}")


def _as_list(name: str, values: object) -> list[Any]:
    is_scalar = getattr(values, "ndim", 1) == 0  # a 0-d array is an Iterable, but cannot be iterated
    if is_scalar or not isinstance(values, Iterable) or isinstance(values, str | bytes | Mapping | Image.Image):
        raise ValueError(f"`{name}` must be a list, got {type(values).__name__}; read() takes a single image")
    return list(values)
