from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from product_vqa.errors import InputError
from training.limits import LIMITS
from training.options import DatasetOptions, ModelOptions, TrainingOptions

OWNERS: dict[str, Any] = {
    option.name: kind for kind in (TrainingOptions, ModelOptions, DatasetOptions) for option in fields(kind)
}
NEEDED: dict[Any, dict[str, Any]] = {DatasetOptions: {"dataset_name": "user/data"}}


def test_every_limit_is_of_an_option() -> None:
    assert LIMITS.keys() < OWNERS.keys()


@pytest.mark.parametrize("name", LIMITS)
def test_a_number_outside_its_range_is_refused(tmp_path: Path, name: str) -> None:
    kind = OWNERS[name]
    needed = NEEDED.get(kind, {}) | ({"output_dir": str(tmp_path)} if kind is TrainingOptions else {})
    low, high = LIMITS[name]
    for value in (low - 1, high + max(1, high), float("nan"), float("inf"), float("-inf"), True, "text"):
        with pytest.raises(InputError, match=f"`{name}` must be (a number|at least|at most)"):
            kind(**needed, **{name: value})


def test_a_step_of_too_many_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must be at most 1048576"):
        TrainingOptions(output_dir=str(tmp_path), per_device_train_batch_size=2**11, gradient_accumulation_steps=2**10)
