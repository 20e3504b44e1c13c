"""Oversampling: training rows of the attributes that are more frequent in another split are repeated."""

import random
from collections.abc import Mapping, Sequence


def repeat_rows(entities: Sequence[str], like: Mapping[str, int], *, seed: int) -> tuple[list[int], dict[str, int]]:
    """Choose rows to repeat, until each entity has at least its share in `like` (rows by entity) of `len(entities)`.

    Returns their positions, and how many were added of each entity. Of an entity, no row is repeated once more often
    than another. An entity without training rows is not among them.
    """
    positions: dict[str, list[int]] = {}
    for position, entity in enumerate(entities):
        positions.setdefault(entity, []).append(position)
    rng = random.Random(seed)
    total = sum(like.values())
    repeated: list[int] = []
    added: dict[str, int] = {}
    for entity, own in positions.items():
        missing = round(len(entities) * like.get(entity, 0) / total) - len(own)
        if missing > 0:
            copies, rest = divmod(missing, len(own))
            repeated += own * copies + rng.sample(own, rest)
            added[entity] = missing
    return repeated, added
