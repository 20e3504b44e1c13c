"""Runs targets in worker processes, two at a time, and watches them: time, memory, death."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.slot import Slot
from tests.fuzz.worker import HUNG, ROOT, Finding

_POLL_S = 0.1
_WALL = (
    10  # a case may wait for other processes of the machine: its real time is limited to so many times its CPU time
)
_GRACE_S = 10  # from the signal that asks a case to end, to the kill
# One thread for each worker, and small files in memory: a case writes some.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
if os.access("/dev/shm", os.W_OK):
    ENVIRONMENT["TMPDIR"] = "/dev/shm"


@dataclass(frozen=True)
class Limits:
    seed: int
    seconds: float  # for each target
    case_s: float  # CPU time of one case
    memory_mb: int  # on top of what a worker needs before its first case


@dataclass
class Result:
    target: str
    cases: int = 0
    seconds: float = 0
    peak_mb: int = 0
    base_mb: int = 0
    slowest_s: float = 0
    findings: list[Finding] = field(default_factory=list)

    def count(self, kind: str) -> int:
        return sum(finding.kind == kind for finding in self.findings)


class _Worker:
    """A process at some of the cases of a target, and a new one after each that died."""

    def __init__(self, target: str, *, cases: int, limits: Limits, folder: Path) -> None:
        self.result = Result(target)
        self._cases, self._limits, self._folder = cases, limits, folder
        self._start = 0
        self._launch()

    def _launch(self) -> None:
        name, limits = self.result.target, self._limits
        (self._folder / name).mkdir(exist_ok=True)
        slot_file = self._folder / name / f"slot{self._start}"
        self._slot = Slot(slot_file)
        self._begun, self._since, self._is_asked = 0, time.monotonic(), False
        self._output = (self._folder / name / "output").open("w+")
        self._errors = (self._folder / name / "errors").open("w+")
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "tests.fuzz.worker", name, "--slot", str(slot_file),
                "--seed", str(limits.seed), "--start", str(self._start), "--end", str(self._cases),
                "--seconds", str(limits.seconds - self.result.seconds), "--memory_mb", str(limits.memory_mb),
                "--limit", str(limits.case_s),
            ],
            env=ENVIRONMENT, cwd=ROOT,
            stdin=subprocess.DEVNULL, stdout=self._output, stderr=self._errors,
        )  # fmt: skip

    def poll(self) -> bool:
        """Whether the target is done. Ends a case that takes too long."""
        if self._process.poll() is None:
            begun, _, _ = self._slot.read()
            if begun != self._begun:
                self._begun, self._since, self._is_asked = begun, time.monotonic(), False
            elif begun > 0 and time.monotonic() - self._since > _WALL * self._limits.case_s:
                if not self._is_asked:
                    self._process.send_signal(signal.SIGALRM)
                    self._is_asked = True
                elif time.monotonic() - self._since > _WALL * self._limits.case_s + _GRACE_S:
                    self._process.kill()
            return False
        return self._collect()

    def _collect(self) -> bool:
        self._output.seek(0)
        lines: list[dict[str, Any]] = [json.loads(line) for line in self._output]
        self._errors.seek(0)
        errors = self._errors.read()[-6000:]
        self._output.close()
        self._errors.close()
        result, code = self.result, self._process.returncode
        for line in lines:
            if "kind" in line:
                self._add(Finding(**line))
        if lines and "next" in lines[-1]:
            summary = lines[-1]
            result.cases += summary["next"] - self._start
            result.seconds += summary["seconds"]
            result.peak_mb = max(result.peak_mb, summary["peak_mb"])
            result.base_mb = summary["base_mb"]
            result.slowest_s = max(result.slowest_s, summary["slowest_s"])
            self._start = summary["next"]
        else:  # dead
            begun, number, data = self._slot.read()
            assert begun > 0, f"{result.target} did not start:\n{errors}"
            kind = "hang" if self._is_asked else "crash"
            self._add(Finding(kind, number, data.decode("latin-1"), f"exit code {code} at {number}", errors))
            result.cases += number + 1 - self._start
            result.seconds += max(1.0, time.monotonic() - self._since)
            self._start = number + 1
        is_done = code == 0 and bool(lines)
        if (
            is_done
            or self._start >= self._cases
            or len(result.findings) >= 20
            or result.seconds > self._limits.seconds
        ):
            return True
        assert code == HUNG or code != 0
        self._launch()
        return False

    def _add(self, finding: Finding) -> None:
        if finding.place not in {known.place for known in self.result.findings}:
            self.result.findings.append(finding)

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def run_targets(cases: dict[str, int], *, limits: Limits, jobs: int) -> Iterator[Result]:
    """Run `cases` of each target, `jobs` targets at once; yields each result as soon as it is there."""
    waiting = list(cases.items())
    running: list[_Worker] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    name, number = waiting.pop(0)
                    running.append(_Worker(name, cases=number, limits=limits, folder=Path(folder)))
                time.sleep(_POLL_S)
                for worker in list(running):
                    if worker.poll():
                        running.remove(worker)
                        yield worker.result
        finally:
            for worker in running:
                worker.kill()
