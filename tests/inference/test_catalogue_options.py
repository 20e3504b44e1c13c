"""The options of `predict` for images of one's own, and those that belong to a dataset."""

from pathlib import Path

import pytest

from inference import predict
from inference.catalogue_options import CatalogueOptions
from product_vqa.errors import InputError
from tests.commands import call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"the following arguments are required: --dataset \(or --images, or --table\)"),
        (["--images", "x", "--dataset", "y"], r"--dataset is for a dataset: drop it, or --images and --table"),
        (["--images", "x", "--shard", "1/2", "--batch_size", "3"], "--shard is for a dataset"),
        (["--images", "x", "--max_rows", "3"], "--max_rows is for a dataset"),
        (["--images", "x", "--engine", "ray", "--batch_size", "3"], "--engine is for a dataset"),
        (["--images", "x", "--reader", "ocr"], "--reader ocr is for a dataset"),
        (["--images", "x", "--columns", "key=sku"], "--columns is for --table"),
        (["--table", "x", "--columns", "sku"], "--columns must be image_link=NAME,key=NAME, got sku"),
        (["--table", "x", "--columns", "key=a,key=b"], "--columns must be image_link=NAME,key=NAME"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_together_are_named(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=message):
        call(predict.main, monkeypatch, "--output", tmp_path / "s.csv", *arguments)


def test_the_columns_of_a_table() -> None:
    assert CatalogueOptions(table="t").column_names() == ("image_link", None)
    assert CatalogueOptions(table="t", columns="key=sku, image_link=a b").column_names() == ("a b", "sku")
