"""The largest batch: halved until it fits, and an error that is not about memory is not hidden."""

import pytest
import torch

from product_vqa.modeling.batch_size import find_largest


@pytest.mark.parametrize(("fitting", "expected", "tried"), [
    (512, 512, [512]), (200, 128, [512, 256, 128]), (1, 1, [512, 256, 128, 64, 32, 16, 8, 4, 2]),
])  # fmt: skip
def test_sizes_are_halved_until_one_fits(fitting: int, expected: int, tried: list[int]) -> None:
    attempts = []

    def attempt(size: int) -> None:
        attempts.append(size)
        if size > fitting:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    assert find_largest(attempt, 512) == expected
    assert attempts == tried


def test_another_error_is_raised() -> None:
    def attempt(size: int) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        find_largest(attempt, 512)
