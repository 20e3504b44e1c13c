import math

import pytest
from PIL import Image

from benchmarks.build import psnr


def test_psnr_is_the_peak_relative_to_the_mean_squared_error_in_db() -> None:
    black, grey = (Image.new("RGB", (4, 4), (value,) * 3) for value in (0, 16))
    assert psnr(black, grey) == pytest.approx(20 * math.log10(255 / 16))
    assert psnr(black, black) > 70
