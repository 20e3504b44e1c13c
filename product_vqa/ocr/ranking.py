"""Which of several candidates is the one that is asked for: rules, without anything learned from images.

What a candidate gets is a sum of points. The rules for lengths take the direction and the place of a text into
account: a height is written along a vertical line, a width along a horizontal one.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property

from product_vqa.ocr.candidate import Candidate, Evidence
from product_vqa.ocr.geometry import Line
from product_vqa.ocr.image_text import Box
from product_vqa.ocr.quantities import TextQuantity
from product_vqa.task.attributes import Attribute
from product_vqa.task.kinds import SEPARATOR, MultiChoiceKind

_POINTS = {Evidence.VALUE: 3.0, Evidence.JOINED: 2.5, Evidence.AXIS: 2.5, Evidence.NUMBER: 0.0, Evidence.ALL: 2.0}
_MORE = 1.0  # for each further value of a choice of several that is read next to the others
_KEY, _OTHER_KEY = 2.0, -2.5  # a word next to it says so, or that it is another attribute's
_NEAR_KEY_SHARE = 0.6  # of the points, for a word in the box above or on the left
_SIZE = 1.5  # for the largest text of all candidates
_UNIT = 0.7  # for each power of ten of the unit's share of the labels
_RANGE, _SECOND_END = -1.0, 0.3
_DOUBT = 2.0  # for an OCR score of 0
_AXIS_LETTER, _DIRECTION, _ORDER = 4.0, 1.5, 1.0
# Words that stand for an attribute on packs, next to those of its name.
_KEYS = {
    "item_weight": ("weight", "wt", "net", "netto", "peso", "poids", "gewicht", "contents"),
    "maximum_weight_recommendation": (
        "max", "maximum", "capacity", "load", "up to", "upto", "supports", "holds", "bearing", "limit", "weight limit",
    ),
    "item_volume": ("volume", "vol", "net", "contents", "capacity", "fl"),
    "voltage": ("voltage", "input", "rated", "volt", "ac", "dc"),
    "wattage": ("wattage", "power", "watt", "watts", "rated"),
    "height": ("height", "tall", "high", "h"),
    "width": ("width", "wide", "w"),
    "depth": ("depth", "deep", "length", "long", "thickness", "thick", "l", "d"),
}  # fmt: skip
# Words that say that a quantity is not the product's own.
_NOT_OWN = {
    "item_weight": (
        "protein", "sugar", "sugars", "fat", "carb", "carbs", "carbohydrate", "carbohydrates", "fiber", "fibre",
        "sodium", "salt", "serving", "servings", "calcium", "vitamin", "per", "max", "capacity", "load", "up to",
        "cholesterol", "potassium", "iron", "caffeine", "saturated", "trans",
    ),
    "item_volume": ("serving", "per", "water"),
    "voltage": ("output", "usb"),
    "wattage": ("equivalent", "equal", "replaces"),
}  # fmt: skip
_AXES = {"height": "h", "width": "w", "depth": "dl"}
# In `30 x 20 x 10 cm` and `30 x 20 cm` without letters, which number is asked for.
_ORDERS = {3: {"depth": 0, "width": 1, "height": 2}, 2: {"width": 0, "height": 1}}


@dataclass(frozen=True)
class Context:
    """The question, and all that the image shows."""

    attribute: Attribute
    lines: Sequence[Line]
    unit_shares: Mapping[str, float] = field(default_factory=dict)
    _key_points: dict[tuple[str, Box], float] = field(default_factory=dict, init=False, repr=False)

    def key_points(self, line: Line) -> float:
        """For words in the line, or else in those that lead to it. The quantities of a line share them."""
        place = (line.text, line.pixels)
        if place not in self._key_points:
            self._key_points[place] = _count_key_points(line, self)
        return self._key_points[place]

    @cached_property
    def leading(self) -> list[Line]:
        """The lines with such words that may lead to others, because they have no number of their own."""
        return [line for line in self.lines if not re.search("[0-9]", line.text) and self._has_words(line.text)]

    def _has_words(self, text: str) -> bool:
        return any(pattern is not None and pattern.search(text) for pattern in (self.keys, self.not_own))

    @cached_property
    def largest(self) -> float:
        """The size of the largest characters that have a digit among them, in px."""
        return max((line.size for line in self.lines if re.search("[0-9]", line.text)), default=1.0) or 1.0

    @cached_property
    def keys(self) -> re.Pattern[str]:
        name = self.attribute.name
        words = _KEYS.get(name) or tuple(word for word in name.split("_") if len(word) > 2) or (name,)
        return _pattern(words)

    @cached_property
    def not_own(self) -> re.Pattern[str] | None:
        words = _NOT_OWN.get(self.attribute.name)
        return _pattern(words) if words else None


def rank(candidate: Candidate, line: Line, quantity: TextQuantity | None, context: Context) -> float:
    """The points of a candidate that was read in a line; `quantity` is None for one without a number and a unit."""
    points = (
        _POINTS[candidate.evidence] - _DOUBT * (1 - candidate.score) + _SIZE * min(1.0, line.size / context.largest)
    )
    points += context.key_points(line)
    if isinstance(context.attribute.kind, MultiChoiceKind) and candidate.evidence != Evidence.ALL:
        points += _MORE * candidate.answer.count(SEPARATOR)
    if quantity is None:
        return points
    unit = candidate.answer.partition(" ")[2]
    if context.unit_shares:
        points += _UNIT * math.log10(max(1e-4, context.unit_shares.get(unit, 0.0)))
    if quantity.in_range:
        points += _RANGE + (_SECOND_END if quantity.has_own_unit else 0.0)
    if context.attribute.name in _AXES:
        points += _axis_points(line, quantity, context)
    return points


@cache
def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(map(re.escape, words), key=len, reverse=True)
    return re.compile(rf"(?<![^\W\d_])(?:{'|'.join(longest_first)})(?![^\W\d_])", re.IGNORECASE)


def _count_key_points(line: Line, context: Context) -> float:
    near = [(line.text, 1.0)]
    near += [(other.text, _NEAR_KEY_SHARE) for other in context.leading if _leads_to(other, line)]
    points = max((_KEY * share for text, share in near if context.keys.search(text)), default=0.0)
    if context.not_own is not None:
        points += next((_OTHER_KEY * share for text, share in near if context.not_own.search(text)), 0.0)
    return points


def _leads_to(other: Line, line: Line) -> bool:
    """Whether the other line is right above this one, or on its left."""
    if other is line:
        return False
    left, top, right, bottom = other.pixels
    own_left, own_top, own_right, own_bottom = line.pixels
    size = max(other.size, line.size)
    is_left = 0 <= own_left - right < 3 * size and min(bottom, own_bottom) - max(top, own_top) > 0.4 * other.size
    is_above = 0 <= own_top - bottom + 0.3 * size < 1.3 * size and min(right, own_right) - max(left, own_left) > 0
    return is_left or is_above


def _axis_points(line: Line, quantity: TextQuantity, context: Context) -> float:
    name = context.attribute.name
    if quantity.axis:
        return _AXIS_LETTER if quantity.axis in _AXES[name] else -_AXIS_LETTER
    words = {other: _pattern(_KEYS[other]).search(line.text) for other in _AXES if other != name}
    if any(words.values()) and not context.keys.search(line.text):
        return -_AXIS_LETTER
    if quantity.count > 1:
        order = _ORDERS.get(quantity.count, {})
        return _ORDER if order.get(name) == quantity.position else -_ORDER
    left, top, right, bottom = line.box
    at_side, at_end = abs(left + right - 1), abs(top + bottom - 1)  # the product is in the middle
    match name:
        case "height":
            return _DIRECTION * (line.is_vertical + 0.7 * (at_side - at_end) - line.is_diagonal)
        case "width":
            return _DIRECTION * (0.7 * (at_end - at_side) - line.is_vertical - line.is_diagonal)
        case _:
            return _DIRECTION * (line.is_diagonal - line.is_vertical)
