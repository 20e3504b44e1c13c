"""Which kinds of faults a scenario can meet, and at how many points of each."""

import os
import random
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

from tests.faults.hub_scenario import LocalHubSession
from tests.faults.kinds import BadAnswer, FullDisk, Kind
from tests.faults.scenarios import Build, Calibrate, Predict, Push, Rebuild, Scenario, Train

SCENARIOS: list[type[Scenario]] = [Build, Rebuild, Push, Train, Predict, Calibrate, LocalHubSession]
Point = TypeVar("Point")


def is_possible(kind: Kind, scenario: Scenario) -> bool:
    """Servers can only fail where they are asked; what a push builds was built before."""
    if isinstance(kind, BadAnswer):
        return scenario.name == {"images": "build", "hub": "push"}[kind.server]
    return scenario.name != "push" or kind.name.startswith(("SIG", "two", "no thread", "EMFILE"))


def why_skipped(kind: Kind) -> str | None:
    return (
        "no disk can be mounted here" if isinstance(kind, FullDisk) and "FAULTS_NAMESPACE" not in os.environ else None
    )


def choose(points: Sequence[Point], rng: random.Random, limit: int) -> list[Point]:
    """All points, or `limit` of them that are spread evenly, with a seeded one in each interval."""
    if len(points) <= limit:
        return list(points)
    bounds = [round(number * len(points) / limit) for number in range(limit + 1)]
    return [points[rng.randrange(low, high)] for low, high in pairwise(bounds)]
