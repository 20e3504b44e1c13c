"""An answer that the text of an image supports, with what speaks for it."""

from dataclasses import dataclass
from enum import StrEnum

from product_vqa.ocr.image_text import Box


class Evidence(StrEnum):
    """How a candidate was read, from the strongest to the weakest."""

    VALUE = "value"  # all of it in one text: `500 g`
    JOINED = "joined"  # in neighbouring boxes: `500` `g`
    AXIS = "axis"  # one of several numbers with a unit for all of them: `30 x 20 x 10 cm`
    NUMBER = "number"  # a number without a unit, with a unit that the image shows elsewhere
    ALL = "all"  # all values of a choice of several that the image shows, wherever they are


@dataclass(frozen=True)
class Candidate:
    """A possible answer: canonical, and valid for its attribute."""

    answer: str
    evidence: Evidence
    box: Box  # around the text that supports it, as fractions of the image
    score: float  # the OCR engine's, 0 to 1
    rank_score: float  # what the rules of `ranking` give it; larger is better, comparable within one question only
