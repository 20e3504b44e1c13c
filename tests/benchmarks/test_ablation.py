"""The datasets of the ablation, and how its ways are compared."""

import random

import pandas as pd

from benchmarks.ablation import RARE_ENTITIES, compare, drop_rare, format_table, shuffle_labels


def make_rows(*entities: str) -> list[dict[str, str]]:
    names = [entities[number % len(entities)] for number in range(200)]
    return [
        {"image_link": f"{number}.jpg", "entity_name": name, "entity_value": f"{number} inch"}
        for number, name in enumerate(names)
    ]


def test_labels_are_shuffled_within_their_entity() -> None:
    rows, shuffled = make_rows("width", "height"), shuffle_labels(make_rows("width", "height"), random.Random(0))
    assert [(row["image_link"], row["entity_name"]) for row in shuffled] == [
        (row["image_link"], row["entity_name"]) for row in rows
    ]
    for entity in ("width", "height"):
        before, after = (
            [row["entity_value"] for row in some if row["entity_name"] == entity] for some in (rows, shuffled)
        )
        assert sorted(after) == sorted(before) and after != before


def test_a_tenth_of_the_rare_attributes_rows_is_left() -> None:
    left = drop_rare(make_rows("width", RARE_ENTITIES[0]), random.Random(0))
    assert sum(row["entity_name"] == "width" for row in left) == 100
    assert 4 <= len(left) - 100 <= 18


def answers(*, right: int) -> pd.DataFrame:
    """A hundred answers about fifty images; the first `right` are right. Every other one is about a rare attribute."""
    numbers = range(100)
    return pd.DataFrame(
        {
            "index": numbers,
            "image_link": [f"{number // 2}.jpg" for number in numbers],
            "entity_name": ["width" if number % 2 else RARE_ENTITIES[0] for number in numbers],
            "reference": "2.0 kilogram",
            "prediction": ["2 kilogram" if number < right else "3.0 kilogram" for number in numbers],
        }
    )


def test_ways_are_compared_on_the_same_questions_with_an_interval() -> None:
    tables = {"lora": answers(right=60), "rare": answers(right=60), "rare_oversampled": answers(right=80)}
    base, _, _, way, rare = compare(tables, dict.fromkeys(tables, 10.0))
    assert (base.f1, base.exact, base.difference, base.difference_interval) == (0.75, 0.6, 0.0, (0.0, 0.0))
    assert base.f1_interval[0] < 0.75 < base.f1_interval[1]
    assert (way.questions, way.compared_with, way.exact, way.f1) == ("all", "rare", 0.8, 0.8889)
    assert way.difference == 0.1389 and 0 < way.difference_interval[0] < 0.1389 < way.difference_interval[1]
    assert (rare.questions, rare.exact) == ("rare attributes", 0.8)
    assert "| lora | all | 0.750 (0." in format_table([base]) and "from" not in format_table([base])
    assert "| +0.139 (+0." in format_table([way])
