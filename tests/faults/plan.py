"""Which kinds of faults a scenario can meet, and at how many points of each."""

import os
import random
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

from tests.faults.damage import Damage
from tests.faults.hub_scenario import LocalHubSession
from tests.faults.kinds import BadAnswer, FullDisk, KilledWorker, Kind
from tests.faults.scenarios import (
    Build,
    Calibrate,
    Predict,
    PredictCopies,
    PredictFromHub,
    Push,
    Rebuild,
    Scenario,
    Train,
    TrainAndPush,
)
from tests.faults.shard_scenarios import BuildShard, MergeShards

SCENARIOS: list[type[Scenario]] = [
    Build, BuildShard, MergeShards, Rebuild, Push, Train, Predict, Calibrate, LocalHubSession, PredictCopies,
    PredictFromHub, TrainAndPush,
]  # fmt: skip
SERVERS = {"images": ("build",), "hub": ("push", "predict from the Hub", "train and push")}
Point = TypeVar("Point")


def is_possible(kind: Kind, scenario: Scenario) -> bool:
    """Servers can only fail where they are asked. Some scenarios are there for some kinds alone."""
    if isinstance(kind, BadAnswer):
        return scenario.name in SERVERS[kind.server]
    if isinstance(kind, KilledWorker):
        return scenario.name == "predict"
    if isinstance(kind, Damage):
        return scenario.name not in SERVERS["hub"]
    if scenario.name == "local_hub" and kind.name in ("no thread can be started", "open files limit (RLIMIT_NOFILE)"):
        return False  # the client is in the same process, and so is asyncio, which logs every refused connection
    if scenario.name == "predict from the Hub":
        return kind.name.startswith(("SIGKILL", "ENOSPC", "EIO at one file", "short"))
    if scenario.name == "push":
        return kind.name.startswith(("SIG", "two", "no thread", "EMFILE"))
    return scenario.name not in ("predict from copies", "train and push")


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
