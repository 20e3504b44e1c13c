import pytest

from quickstart.pretraining.options import PretrainOptions


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"minutes": 0.0}, "`minutes` must be positive, got 0.0"),
        ({"hidden_size": 96}, "`hidden_size` must be a positive multiple of 64, got 96"),
        ({"image_size": 100}, "`image_size` must be a positive multiple of 8, got 100"),
        ({"layers": 0}, "`layers` must be a positive multiple of 1, got 0"),
    ],
)
def test_sizes_that_cannot_work_are_refused(changed: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PretrainOptions(**changed)  # type: ignore[arg-type]
