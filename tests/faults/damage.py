"""Truncated and garbled files: every file that a command finds, at several offsets."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.faults import commands as shim
from tests.faults.commands import CHANGES, Ended, Fault
from tests.faults.kinds import Kind, Trial
from tests.faults.scenarios import Scenario


def truncated(content: bytes, share: float) -> bytes:
    return content[: min(int(share * len(content)), len(content) - 1)]


def garbled(content: bytes, share: float) -> bytes:
    at = min(int(share * len(content)), len(content) - 1)
    return content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :]


def zeroed(content: bytes, share: float) -> bytes:
    """As a file may be after a power cut: as long as it was, but without its last blocks."""
    kept = int(share * len(content))
    return content[:kept] + bytes(len(content) - kept)


class Damaged(NamedTuple):
    state: str
    file: str
    share: float


class Damage(Kind):
    """Files in the folder of a finished run, and of one that was killed midway."""

    def __init__(self, name: str, damage: Callable[[bytes, float], bytes], shares: list[float]) -> None:
        super().__init__(name)
        self.damage, self.shares = damage, shares

    def points(self, scenario: Scenario, trial: Trial) -> list[Damaged]:
        return [
            Damaged(state, file.relative_to(folder).as_posix(), share)
            for state, folder in save_states(trial).items()
            for file in sorted(folder.rglob("*"))
            if file.is_file() and file.stat().st_size and scenario.is_read_back(file.relative_to(folder).as_posix())
            for share in self.shares
        ]

    def inject(self, trial: Trial, point: Damaged) -> list[Ended]:
        shutil.rmtree(trial.folder)
        shutil.copytree(save_states(trial)[point.state], trial.folder, symlinks=True)
        file = trial.folder / point.file
        trial.restored = file, file.read_bytes()
        file.write_bytes(self.damage(file.read_bytes(), point.share))
        return [trial.start().wait()]


def save_states(trial: Trial) -> dict[str, Path]:
    """Copies of the folder as a finished run leaves it, and as one does that was killed after half of its changes."""
    states = {state: trial.folder.with_name(f"{trial.folder.name}-{state}") for state in ("finished", "midway")}
    if not states["midway"].exists():
        trial.reset()
        ended = trial.start(fault=Fault(CHANGES)).wait()
        assert ended.code == 0, ended.stderr
        shutil.copytree(trial.folder, states["finished"], symlinks=True)
        trial.reset()
        trial.start(fault=Fault(CHANGES, shim.KILL, len(ended.trace) // 2)).wait()
        shutil.copytree(trial.folder, states["midway"], symlinks=True)
    return states


def make_damages() -> list[Damage]:
    return [
        Damage("truncated file", truncated, [0, 0.3, 0.7, 1]),
        Damage("garbled file", garbled, [0, 0.1, 0.5, 0.9, 1]),
        Damage("file that ends in zeros", zeroed, [0, 0.5, 0.95]),
    ]
