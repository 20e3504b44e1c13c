from collections import Counter

import pytest
from datasets import Dataset

from product_vqa.schema import FEATURES
from tests.tiny import make_rows
from training.evaluation import Answered, sample_rows, score, split_rows


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


def test_the_other_rows_are_all_that_are_not_in_the_sample() -> None:
    dataset = Dataset.from_list(make_rows(40), features=FEATURES)
    chosen, others = split_rows(dataset, 12, seed=1)
    assert chosen["index"][:] == sample_rows(dataset, 12, seed=1)["index"][:]
    assert sorted([*chosen["index"], *others["index"]]) == list(range(40))


def test_scores_and_their_intervals_by_hand() -> None:
    # Twenty images, each asked twice: on half of them both predictions are right as quantities, one of them exactly.
    answered = [
        Answered(
            row, f"image {row // 2}", "width", "1.0 inch" if row < 20 else "", "1.0 inch" if row % 2 else "1 inch"
        )
        for row in range(40)
    ]
    scores = score(answered)
    # 20 predictions, all right, and 20 missing: precision 1, recall 0.5. Exactly right: precision 0.5, recall 1/3.
    assert scores["f1_quantity"] == pytest.approx(2 / 3)
    assert scores["f1"] == pytest.approx(0.4)
    assert (scores["exact_width"], scores["samples"]) == (0.5, 40)
    # Images answered: binomial(20, 1/2), 95 % of them 6 to 14; F1 of a share s is 2 s / (1 + s).
    assert scores["f1_quantity_low"] == pytest.approx(2 * 0.3 / 1.3, abs=0.04)
    assert scores["f1_quantity_high"] == pytest.approx(2 * 0.7 / 1.7, abs=0.04)
