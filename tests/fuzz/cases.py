"""The cases of a target: case `number` of a seed is always the same bytes."""

import random
from collections.abc import Callable

from tests.fuzz.mutation import mutate
from tests.fuzz.target import Target


def case_maker(target: Target, *, seed: int) -> Callable[[int], bytes]:
    """A function that makes the case of a number. The first cases are the seeds themselves."""
    seeds = target.seeds()
    assert seeds, f"{target.name} has no seeds"

    def make(number: int) -> bytes:
        if number < len(seeds):
            return seeds[number]
        rng = random.Random(f"{seed}/{target.name}/{number}")
        kind = rng.randrange(4) if target.generate else 0
        data = target.generate(rng) if target.generate and kind else rng.choice(seeds)
        if kind > 1:
            return data
        return mutate(rng, data, seeds=seeds, words=target.words, max_bytes=target.max_bytes)

    return make
