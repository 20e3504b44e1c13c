from collections.abc import Callable

import pytest

from dataset_builder.options import FetchOptions, ImageOptions, ImageSourceOptions, SelectionOptions, TableOptions
from product_vqa.errors import InputError

REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: TableOptions(), "no rows: give `train_csv`, `test_csv`, or both"),
    (lambda: ImageSourceOptions(), "give exactly one source of images: `image_dir` or `image_store`"),
    (lambda: ImageSourceOptions("images", "store"), "give exactly one source of images: `image_dir` or `image_store`"),
    (lambda: ImageOptions(31), "`image_size` must be 0 or between 32 and 8192, got 31"),
    (lambda: ImageOptions(8193), "`image_size` must be 0 or between 32 and 8192, got 8193"),
    (lambda: FetchOptions(connections=0), "`connections` must be between 1 and 256, got 0"),
    (lambda: FetchOptions(connections=257), "`connections` must be between 1 and 256, got 257"),
    (lambda: SelectionOptions(ranges="middle"), "`ranges` must be one of leave_out, first, last, got middle"),
    (lambda: SelectionOptions(validation_size=1), "`validation_size` must be at least 0 and less than 1, got 1"),
    (lambda: SelectionOptions(validation_size=-0.1), "`validation_size` must be at least 0 and less than 1, got -0.1"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_a_value_out_of_range_is_refused_by_the_name_of_its_argument(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError) as refusal:
        make()
    assert message in str(refusal.value)


def test_the_bounds_themselves_are_allowed() -> None:
    assert [ImageOptions(size).image_size for size in (0, 32, 8192)] == [0, 32, 8192]
    assert [FetchOptions(connections=number).connections for number in (1, 256)] == [1, 256]
    assert SelectionOptions(validation_size=0).validation_size == 0
