from collections import Counter

from datasets import Dataset

from product_vqa.schema import FEATURES
from tests.tiny import make_rows
from training.evaluation import sample_rows


def test_the_sample_is_always_the_same_and_each_entity_has_its_share() -> None:
    rows = make_rows(40) + [row | {"entity_name": "wattage"} for row in make_rows(40, start=40)]
    dataset = Dataset.from_list(rows, features=FEATURES)  # 10 each of four entities, 40 of one
    sample = sample_rows(dataset, 16, seed=1)
    assert Counter(sample["entity_name"]) == {
        "wattage": 8, "item_weight": 2, "voltage": 2, "width": 2, "maximum_weight_recommendation": 2,
    }  # fmt: skip
    assert sample["index"][:] == sample_rows(dataset, 16, seed=1)["index"][:]
    assert sample["index"][:] != sample_rows(dataset, 16, seed=2)["index"][:]
    assert len(sample_rows(dataset, 1000, seed=1)) == 80
