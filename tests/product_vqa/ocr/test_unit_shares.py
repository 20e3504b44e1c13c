from pathlib import Path

import pytest

from product_vqa.errors import InputError
from product_vqa.hub import locate
from product_vqa.ocr.unit_shares import count_shares, load_shares
from product_vqa.task.schema import CHALLENGE
from tests.example_schemas import SCHEMAS
from tests.tiny import save_dataset


def test_shares_are_of_the_labels_with_a_unit_of_their_attribute() -> None:
    labels = [
        ("item_weight", "500.0 gram", 5),
        ("item_weight", "1.0 kilogram", 2),
        ("item_weight", "2.0 gram", 1),
        ("item_weight", "2.0 volt", 7),
        ("item_weight", "[1.0, 2.0] gram", 7),
        ("item_weight", "", 7),
        ("item_weight", None, 7),
        ("voltage", "12.0 volt", 1),
        ("colour", "1.0 gram", 7),
    ]
    assert count_shares(labels, CHALLENGE) == {
        "item_weight": {"gram": 6 / 8, "kilogram": 2 / 8}, "voltage": {"volt": 1.0}
    }  # fmt: skip
    assert count_shares([], CHALLENGE) == {}


def test_other_kinds_have_no_units() -> None:
    labels = [("colour", "navy blue", 3), ("waist", "80 centimetre", 1)]
    assert count_shares(labels, SCHEMAS["clothes"]) == {"waist": {"centimetre": 1.0}}


def test_those_of_a_dataset_are_counted_in_its_split_train(tmp_path: Path) -> None:
    folder = save_dataset(tmp_path / "dataset")
    assert load_shares(locate(str(folder)), CHALLENGE) == {
        "item_weight": {"gram": 1.0},
        "maximum_weight_recommendation": {"kilogram": 1.0},
        "voltage": {"volt": 1.0},
        "width": {"inch": 1.0},
    }
    (train,) = (folder / "data").glob("train-*")
    train.write_bytes(b"x")
    with pytest.raises(InputError, match=r"train-00000-of-00001.parquet: "):
        load_shares(locate(str(folder)), CHALLENGE)
    train.unlink()
    assert load_shares(locate(str(folder)), CHALLENGE) == {}
