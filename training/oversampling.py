"""Oversampling: training rows of the attributes that are more frequent in another split are repeated."""

import random
from collections.abc import Mapping

from datasets import Dataset


def oversample(rows: Dataset, like: Mapping[str, int], *, seed: int) -> tuple[Dataset, dict[str, int]]:
    """Repeat rows of each entity until it has at least its share in `like` (rows by entity) of `len(rows)`.

    Returns all rows followed by the repeated ones, and how many were added of each entity. Of an entity, no row is
    repeated once more often than another. An entity without training rows is not among them.
    """
    positions: dict[str, list[int]] = {}
    for position, entity in enumerate(rows.select_columns("entity_name")["entity_name"][:]):
        positions.setdefault(entity, []).append(position)
    rng = random.Random(seed)
    total = sum(like.values())
    repeated: list[int] = []
    added: dict[str, int] = {}
    for entity, own in positions.items():
        missing = round(len(rows) * like.get(entity, 0) / total) - len(own)
        if missing > 0:
            copies, rest = divmod(missing, len(own))
            repeated += own * copies + rng.sample(own, rest)
            added[entity] = missing
    return rows.select([*range(len(rows)), *repeated]), added
