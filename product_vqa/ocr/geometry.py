"""Where the lines of text are in an image: sizes, directions and neighbours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from product_vqa.ocr.image_text import Box, ImageText, TextBox

UPRIGHT_DEGREES, VERTICAL_DEGREES = 20.0, 70.0  # between them, a line of text is diagonal


@dataclass(frozen=True)
class Line:
    """A box of text, measured in px of the image."""

    text: str
    score: float
    box: Box  # as fractions of the image
    pixels: Box
    size: float  # of the characters, in px: the shorter side of the box
    degrees: float  # of the line against the horizontal, 0 to 90

    @property
    def is_vertical(self) -> bool:
        return self.degrees > VERTICAL_DEGREES

    @property
    def is_diagonal(self) -> bool:
        return UPRIGHT_DEGREES < self.degrees <= VERTICAL_DEGREES


def measure_lines(text: ImageText) -> list[Line]:
    return [_measure(box, text.width, text.height) for box in text.boxes]


def _measure(box: TextBox, width: int, height: int) -> Line:
    corners = [(x * width, y * height) for x, y in box.corners]
    top, right = (math.dist(corners[0], corners[1]), math.dist(corners[1], corners[2]))
    if top >= right or len(box.text) < 2:
        (x, y), (end_x, end_y) = corners[0], corners[1]
    else:  # vertical text: it is read along its longer side
        (x, y), (end_x, end_y) = corners[1], corners[2]
    degrees = math.degrees(math.atan2(abs(end_y - y), abs(end_x - x))) if (x, y) != (end_x, end_y) else 0.0
    left, up, to_right, down = box.box
    pixels = (left * width, up * height, to_right * width, down * height)
    return Line(box.text, box.score, box.box, pixels, min(top, right), degrees)


def union(one: Box, other: Box) -> Box:
    return min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3])


def is_next_to(line: Line, other: Line) -> bool:
    """Whether the other one continues this line, on its right."""
    gap = other.pixels[0] - line.pixels[2]
    return -0.5 * line.size <= gap <= 1.5 * line.size and _overlap(line, other, 1) > 0.5


def is_below(line: Line, other: Line) -> bool:
    """Whether the other one is a line right below, of about the same place: `500` over `g`."""
    gap = other.pixels[1] - line.pixels[3]
    return -0.3 * line.size <= gap <= 0.7 * line.size and _overlap(line, other, 0) > 0.5


def group_neighbours(lines: Sequence[Line]) -> list[list[Line]]:
    """The lines in groups: each is next to or below another one of its group, or alone."""
    groups = []
    left = dict.fromkeys(lines)
    while left:
        group = [next(iter(left))]
        del left[group[0]]
        for line in group:  # which grows
            near = [other for other in left if _is_neighbour(line, other)]
            group += near
            for other in near:
                del left[other]
        groups.append(group)
    return groups


def _is_neighbour(line: Line, other: Line) -> bool:
    return any(is_next_to(*pair) or is_below(*pair) for pair in ((line, other), (other, line)))


def _overlap(line: Line, other: Line, axis: int) -> float:
    """The share of the shorter one's extent, along x (0) or y (1), that both cover."""
    common = min(line.pixels[axis + 2], other.pixels[axis + 2]) - max(line.pixels[axis], other.pixels[axis])
    shorter = min(line.pixels[axis + 2] - line.pixels[axis], other.pixels[axis + 2] - other.pixels[axis])
    return common / shorter if shorter > 0 else 0.0
