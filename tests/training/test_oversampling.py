"""Oversampling by the distribution of attributes in another split."""

from collections import Counter

from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from training.oversampling import oversample

COUNTS = st.dictionaries(st.sampled_from(["width", "voltage", "depth", "wattage"]), st.integers(0, 40), min_size=1)


def make_rows(counts: dict[str, int]) -> Dataset:
    entities = [entity for entity, number in counts.items() for _ in range(number)]
    return Dataset.from_dict({"index": [*range(len(entities))], "entity_name": entities})


def test_rows_of_a_rarer_attribute_are_repeated_up_to_its_share() -> None:
    rows, added = oversample(make_rows({"width": 90, "voltage": 10}), {"width": 50, "voltage": 50}, seed=0)
    assert Counter(rows["entity_name"]) == {"width": 90, "voltage": 50}
    assert added == {"voltage": 40}
    assert rows["index"][:100] == [*range(100)]
    assert set(Counter(rows["index"][100:]).values()) == {4}


@settings(max_examples=60)
@given(COUNTS.filter(lambda counts: sum(counts.values())), COUNTS.filter(lambda counts: sum(counts.values())))
def test_no_row_is_dropped_and_those_of_an_attribute_are_repeated_equally(
    counts: dict[str, int], like: dict[str, int]
) -> None:
    source = make_rows(counts)
    rows, added = oversample(source, like, seed=1)
    assert rows["index"][: len(source)] == source["index"][:]
    assert len(rows) == len(source) + sum(added.values())
    shares = Counter(rows["entity_name"][:])
    for entity, number in counts.items():
        wanted = round(len(source) * like.get(entity, 0) / sum(like.values()))
        assert shares[entity] == (max(number, wanted) if number else 0)
    uses = Counter(rows["index"][:])
    times: dict[str, list[int]] = {}
    for index, entity in zip(source["index"], source["entity_name"], strict=True):
        times.setdefault(entity, []).append(uses[index])
    assert all(max(one) - min(one) <= 1 for one in times.values())


def test_the_seed_chooses_the_repeated_rows() -> None:
    like = {"width": 1, "voltage": 1}
    rows = make_rows({"width": 50, "voltage": 20})
    drawn = [oversample(rows, like, seed=seed)[0]["index"][70:] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
