"""What an OCR engine read in an image: texts with their places and scores, as data that nobody should trust."""

import math
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from product_vqa.task.texts import has_invisible

MAX_BOXES = 500  # of an image, those with the best scores
MAX_CHARS = 200  # of a box
Corner = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class TextBox:
    """One line of text, or a piece of it.

    `corners` are the top left, top right, bottom right and bottom left of the text as one reads it, each (x, y) as
    fractions of the image's width and height, so that they hold for the image at any size.
    """

    text: str
    score: float  # how sure the engine is of the text, 0 to 1
    corners: tuple[Corner, Corner, Corner, Corner]

    @property
    def box(self) -> Box:
        """The upright box around the text, as fractions of the image."""
        xs, ys = zip(*self.corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def as_dict(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "score": self.score,
            "corners": [value for corner in self.corners for value in corner],
        }


@dataclass(frozen=True)
class ImageText:
    """The texts of an image, from top to bottom, and the size in px at which it was read."""

    width: int
    height: int
    boxes: tuple[TextBox, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As a row of a dataset's configuration `ocr` has it, and JSON."""
        return {"width": self.width, "height": self.height, "texts": [box.as_dict() for box in self.boxes]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ImageText":
        """Read what `as_dict` made. Raises ValueError for anything else; it may come from a stranger."""
        try:
            width, height = int(values["width"]), int(values["height"])
            boxes = [make_box(one["text"], one["score"], one["corners"]) for one in values["texts"]]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"not the texts of an image ({type(error).__name__}: {error})") from error
        if width < 1 or height < 1:
            raise ValueError(f"not the size of an image: {width} x {height}")
        return cls(width, height, select_boxes(boxes))


def make_box(text: str, score: float, corners: Iterable[float]) -> TextBox:
    """A box with its text cleaned and its numbers within their limits; `corners` are eight, x and y in turns.

    Raises ValueError for other numbers of them and for numbers that are not finite.
    """
    values = [float(value) for value in corners]
    if len(values) != 8 or not all(map(math.isfinite, (*values, float(score)))):
        raise ValueError(f"expected a score and eight finite numbers, got {score!r} and {values!r:.200}")
    values = [round(min(1.0, max(0.0, value)), 5) for value in values]
    found = tuple(zip(values[::2], values[1::2], strict=True))
    return TextBox(clean_text(text), round(min(1.0, max(0.0, float(score))), 4), found)  # type: ignore[arg-type]


def clean_text(text: str) -> str:
    """One line of at most MAX_CHARS characters that can be seen, composed (NFC), with single spaces."""
    text = unicodedata.normalize("NFC", text[: 4 * MAX_CHARS])
    visible = "".join(char if char.isprintable() and not has_invisible(char) else " " for char in text)
    return " ".join(visible.split())[:MAX_CHARS].rstrip()


def select_boxes(boxes: Iterable[TextBox]) -> tuple[TextBox, ...]:
    """The boxes that have a text, at most MAX_BOXES of them, from top to bottom and left to right."""
    found = sorted((box for box in boxes if box.text), key=lambda box: -box.score)[:MAX_BOXES]
    return tuple(sorted(found, key=lambda box: (box.box[1], box.box[0])))
