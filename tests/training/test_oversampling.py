"""Oversampling by the distribution of attributes in another split."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from training.oversampling import repeat_rows

COUNTS = st.dictionaries(st.sampled_from(["width", "voltage", "depth", "wattage"]), st.integers(0, 40), min_size=1)


def make_entities(counts: dict[str, int]) -> list[str]:
    return [entity for entity, number in counts.items() for _ in range(number)]


def test_rows_of_a_rarer_attribute_are_repeated_up_to_its_share() -> None:
    repeated, added = repeat_rows(make_entities({"width": 90, "voltage": 10}), {"width": 50, "voltage": 50}, seed=0)
    assert added == {"voltage": 40}
    assert Counter(repeated) == dict.fromkeys(range(90, 100), 4)


@settings(max_examples=60)
@given(COUNTS.filter(lambda counts: sum(counts.values())), COUNTS.filter(lambda counts: sum(counts.values())))
def test_rows_of_an_attribute_are_repeated_equally(counts: dict[str, int], like: dict[str, int]) -> None:
    entities = make_entities(counts)
    repeated, added = repeat_rows(entities, like, seed=1)
    assert len(repeated) == sum(added.values())
    shares = Counter(entities) + Counter(entities[position] for position in repeated)
    for entity, number in counts.items():
        wanted = round(len(entities) * like.get(entity, 0) / sum(like.values()))
        assert shares[entity] == (max(number, wanted) if number else 0)
    uses = Counter(repeated)
    times: dict[str, list[int]] = {}
    for position, entity in enumerate(entities):
        times.setdefault(entity, []).append(uses[position])
    assert all(max(one) - min(one) <= 1 for one in times.values())


def test_the_seed_chooses_the_repeated_rows() -> None:
    like = {"width": 1, "voltage": 1}
    entities = make_entities({"width": 50, "voltage": 20})
    drawn = [repeat_rows(entities, like, seed=seed)[0] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
