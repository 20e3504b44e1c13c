"""One injection: run with the fault, look at what is left, rerun, and compare with an undisturbed run."""

import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.commands import Ended
from tests.faults.damage import Damage
from tests.faults.kinds import Kind, Trial
from tests.faults.scenarios import COMPLETED, ENDED, KILLED, MISSED, REFUSED


@dataclass(frozen=True)
class Outcome:
    scenario: str
    kind: str
    point: str
    outcome: str  # how the run with the fault ended
    fault: str | None  # what was wrong, if anything
    seconds: float


def outcome_of(ended: Ended) -> str:
    """One of the words of `kinds`, or what a user must never see."""
    lines = ended.stderr.splitlines()
    errors = [line for line in lines if line.startswith(("error: ", "local_hub: "))]
    if ended.hung:
        return "HUNG"
    if "Traceback" in ended.stderr:
        return "TRACEBACK"
    if ended.code == 0:
        return COMPLETED
    if ended.code == -signal.SIGKILL:
        return KILLED
    if ended.code in (130, 143, -signal.SIGTERM, -signal.SIGINT):
        return ENDED
    if ended.code in (1, 2) and len(errors) == 1:
        return REFUSED
    return f"EXIT {ended.code} with {len(errors)} error lines"


def undisturbed(trial: Trial) -> dict[str, str]:
    """The result without a fault; also imports what the command imports, and measures its time."""
    trial.reset()
    learned = trial.commands.learn(trial.command, folder=trial.folder)
    assert learned.code == 0, learned.stderr
    results = []
    for _ in range(2):
        trial.reset()
        ended = trial.start().wait()
        assert ended.code == 0, ended.stderr
        results.append(trial.scenario.result(trial.folder))
    assert results[0] == results[1] != {}, f"{trial.scenario.name} is not reproducible"
    trial.seconds = ended.seconds
    return results[0]


def inject(trial: Trial, kind: Kind, point: Any, expected: dict[str, str], *, kept: Path) -> Outcome:
    trial.reset()
    ends = kind.inject(trial, point)
    outcomes = [outcome_of(ended) for ended in ends]
    is_missed = kind.is_missed(ends)
    allowed = kind.allowed | trial.scenario.also_allowed | ({COMPLETED} if is_missed else set())
    unexpected = [one for one in outcomes if one not in allowed]
    fault = f"{unexpected[0]}, allowed: {', '.join(sorted(allowed))}" if unexpected else None
    fault = fault or find_fault(trial, kind, point, expected, is_completed=COMPLETED in outcomes)
    at = "".join(line for ended in ends for line in ended.trace[-1:]) if not isinstance(kind, Damage) else ""
    label = f"{point} {at.replace(str(trial.folder), '')}".strip()
    if fault:
        where = kept / f"{trial.scenario.name}-{kind.name}-{point}".replace("/", "_").replace(" ", "_")[:150]
        shutil.rmtree(where, ignore_errors=True)
        shutil.copytree(trial.folder, where / "folder", symlinks=True, ignore_dangling_symlinks=True)
        for number, ended in enumerate(ends):
            (where / f"{number}.txt").write_text(
                f"{fault}\nexit {ended.code}\n{label}\n{ended.stdout}\n{ended.stderr}"
            )
    worst = next((one for one in outcomes if one != COMPLETED), MISSED if is_missed else COMPLETED)
    return Outcome(trial.scenario.name, kind.name, label, worst, fault, sum(ended.seconds for ended in ends))


def find_fault(trial: Trial, kind: Kind, point: Any, expected: dict[str, str], *, is_completed: bool) -> str | None:
    """What is wrong with what was left, or with a rerun; None if all is well."""
    scenario = trial.scenario
    is_input = isinstance(kind, Damage) and scenario.is_input(point.file)
    found = scenario.result(trial.folder)
    if is_completed:
        if found != expected and not is_input:
            return f"WRONG: exit 0, but not the undisturbed result: {differences(found, expected)}"
    elif not isinstance(kind, Damage) and not scenario.is_partial_allowed(found, expected):
        return f"LOOKS COMPLETE, but is not: {differences(found, expected)}"
    if trial.restored is not None:
        if is_completed:
            return None
        file, content = trial.restored
        file = scenario.find_now(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    memory = scenario.remember(trial.folder)
    again = trial.start().wait()
    if again.code or again.hung:
        return f"LOST: the rerun ended with {again.code}: {again.stderr[-600:]}"
    if (found := scenario.result(trial.folder)) != expected:
        return f"LOST: the rerun gives another result: {differences(found, expected)}"
    if trial.restored is None and (lost := scenario.check_rerun(trial.folder, memory, again)):
        return f"LOST: {lost}"
    if leftovers := list(find_leftovers(trial)):
        return f"LEFT BEHIND: {leftovers[:3]}"
    return None


def find_leftovers(trial: Trial) -> Iterator[str]:
    for path in trial.folder.rglob("*"):
        is_hidden = path.name.startswith(".") and path.name not in (".lock", ".gitattributes")
        if is_hidden or path.suffix in (".part", ".tmp"):
            yield path.relative_to(trial.folder).as_posix()


def differences(found: dict[str, str], expected: dict[str, str]) -> str:
    lines = []
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            lines.append(
                f"{name} {'is missing' if name not in found else 'differs' if name in expected else 'is new'}"
            )
    return ", ".join(lines[:4])
