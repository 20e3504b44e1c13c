import pytest

from dataset_builder.options import FetchOptions, ImageOptions, ImageSourceOptions, SelectionOptions, TableOptions
from product_vqa.errors import InputError


def test_one_csv_and_one_source_of_images_are_enough() -> None:
    assert TableOptions(test_csv="test.csv").train_csv is None
    assert ImageSourceOptions(image_dir="images").image_store is None


@pytest.mark.parametrize(
    ("options", "values", "message"),
    [
        (TableOptions, {}, "give `train_csv`, `test_csv`, or both"),
        (ImageSourceOptions, {}, "give `image_dir` or `image_store`"),
        (ImageSourceOptions, {"image_dir": "images", "image_store": "store"}, "one of the two"),
        (ImageOptions, {"image_size": 31}, "`image_size` must be 0 or between 32 and 8192, got 31"),
        (FetchOptions, {"connections": 257}, "`connections` must be between 1 and 256, got 257"),
        (SelectionOptions, {"ranges": "middle"}, "`ranges` must be one of .*, got middle"),
        (SelectionOptions, {"validation_size": 1}, "`validation_size` must be at least 0 and less than 1, got 1"),
    ],
)
def test_a_value_out_of_bounds_is_named_with_its_bounds(
    options: type, values: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        options(**values)


@pytest.mark.parametrize("image_size", [0, 32, 8192])
def test_the_bounds_themselves_are_allowed(image_size: int) -> None:
    assert ImageOptions(image_size=image_size).image_size == image_size
