import math

import pytest

from product_vqa.ocr.geometry import Line, group_neighbours, is_below, is_next_to, measure_lines, union
from product_vqa.ocr.image_text import ImageText, make_box


def line(
    left: float, top: float, right: float, bottom: float, *, text: str = "500", width: int = 200, height: int = 100
) -> Line:
    """A line of upright text at these px of an image."""
    corners = (left, top, right, top, right, bottom, left, bottom)
    fractions = [value / (height if number % 2 else width) for number, value in enumerate(corners)]
    (measured,) = measure_lines(ImageText(width, height, (make_box(text, 1, fractions),)))
    return measured


def test_sizes_are_in_pixels_whatever_the_shape_of_the_image() -> None:
    found = line(20, 40, 80, 60)
    assert found.pixels == pytest.approx((20, 40, 80, 60)) and found.size == pytest.approx(20)
    assert (found.is_vertical, found.is_diagonal) == (False, False)
    assert line(20, 10, 30, 90).is_vertical
    assert not line(20, 10, 24, 30, text="5").is_vertical  # one digit is taller than it is wide


@pytest.mark.parametrize("degrees", [0, 15, 45, 80, 90])
def test_the_direction_of_a_line(degrees: int) -> None:
    along = (60 * math.cos(math.radians(degrees)), 60 * math.sin(math.radians(degrees)))
    across = (-along[1] / 6, along[0] / 6)
    corners = [(80, 20), (80 + along[0], 20 + along[1])]
    corners += [(x + across[0], y + across[1]) for x, y in reversed(corners)]
    fractions = [value / 200 for corner in corners for value in corner]
    (found,) = measure_lines(ImageText(200, 200, (make_box("20 cm", 1, fractions),)))
    assert found.degrees == pytest.approx(degrees, abs=0.5) and found.size == pytest.approx(10, abs=0.1)
    assert (found.is_diagonal, found.is_vertical) == (degrees == 45, degrees > 70)


def test_neighbours() -> None:
    number = line(20, 40, 60, 60)
    assert is_next_to(number, line(65, 42, 80, 60)) and not is_next_to(number, line(120, 42, 140, 60))
    assert not is_next_to(number, line(65, 62, 80, 80)) and not is_next_to(line(65, 42, 80, 60), number)
    assert is_below(number, line(30, 64, 50, 74)) and not is_below(number, line(30, 90, 50, 99))
    assert not is_below(number, line(100, 64, 120, 74))
    assert union((0.1, 0.2, 0.3, 0.4), (0.0, 0.3, 0.2, 0.5)) == (0.0, 0.2, 0.3, 0.5)


def test_neighbours_of_neighbours_are_one_group() -> None:
    first, second, right = line(20, 10, 60, 20), line(20, 22, 60, 32), line(65, 23, 90, 33)
    far = line(150, 80, 190, 90)
    assert group_neighbours([first, far, right, second]) == [[first, second, right], [far]]
    assert group_neighbours([]) == []


def test_a_box_without_extent_has_no_direction() -> None:
    (found,) = measure_lines(ImageText(100, 100, (make_box("12", 1, [0.5] * 8),)))
    assert (found.size, found.degrees) == (0, 0)
