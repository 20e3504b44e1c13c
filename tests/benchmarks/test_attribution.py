"""How the benchmark compares heat maps with boxes, by values that are computed by hand."""

import numpy as np
import pytest

from benchmarks.attribution import area, compare, compare_everywhere, compare_region
from benchmarks.attribution_methods import METHODS
from product_vqa.modeling.attribute_reader import AttributeReader
from product_vqa.modeling.attribution import image_grid
from quickstart.rendering.drawing import SIZE
from tests.tiny import make_rows

# 4 x 5 cells of 56 x 44.8 px: the top 10 % are two cells, in the second row.
HEAT = np.array([[0, 0, 0, 0, 0], [0, 5, 9, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 2]], dtype=float)


@pytest.mark.parametrize(
    ("box", "in_top", "touches", "has_maximum"),
    [
        ((50, 60, 130, 110), 1, 1, 1),  # inside of both
        ((90, 112, 134, 168), 0, 0, 0),  # below them
        ((45, 56, 89, 168), 1, 1, 0),  # exactly half
        ((45, 56, 89, 170), 0, 1, 0),  # a little less
        ((113, 56, 130, 112), 1, 1, 0),  # right of the middle of the hottest one, at 112 px
    ],
)
def test_a_box_is_compared_with_the_hottest_tenth(
    box: tuple[int, int, int, int], in_top: int, touches: int, has_maximum: int
) -> None:
    assert compare(HEAT, box) == {
        "box_in_top": in_top, "box_touches_top": touches, "maximum_in_box": has_maximum,
    }  # fmt: skip


def test_chance_is_the_mean_over_all_positions() -> None:
    box = (10, 20, 190, 170)  # with few positions
    expected = [
        list(compare(HEAT, (left, top, left + 180, top + 150)).values())
        for top in range(SIZE - 149)
        for left in range(SIZE - 179)
    ]
    assert list(compare_everywhere(HEAT, box).values()) == pytest.approx(np.mean(expected, axis=0))


def test_a_region_is_compared_with_the_values_box() -> None:
    assert area((0, 0, 10, 20)) == 200
    assert compare_region((0, 0, 10, 20), (5, 10, 15, 30)) == {
        "overlap": 50 / 350, "box_in_region": 0.25, "has_box": 0, "region_area": 200 / SIZE**2,
    }  # fmt: skip
    assert compare_region((0, 0, 10, 10), (20, 20, 30, 30))["overlap"] == 0
    assert compare_region((0, 0, 10, 10), (0, 5, 10, 15))["has_box"] == 1


@pytest.fixture(scope="module")
def reader(tiny_base: object) -> AttributeReader:
    return AttributeReader.from_pretrained(None, base_model=str(tiny_base), dtype="float32")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_a_value_for_each_image_token(reader: AttributeReader, name: str) -> None:
    (row,) = make_rows(1)
    grid, _ = image_grid(reader.model)
    heat = METHODS[name](reader, row)
    assert heat.shape == (grid, grid) and np.isfinite(heat).all() and len(np.unique(heat)) > 1
