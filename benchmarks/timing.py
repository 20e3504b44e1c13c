"""Timing: the seconds, memory and CPU time of a command, and alternating runs of functions."""

import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLE_S = 0.5


def alternate(variants: Mapping[str, Callable[[], float]], *, repeats: int) -> dict[str, float]:
    """The median of what each variant returns (a time, a rate).

    The variants take turns, in reverse order in every second round.
    """
    measured: dict[str, list[float]] = {name: [] for name in variants}
    for repeat in range(repeats):
        names = list(variants) if repeat % 2 == 0 else list(variants)[::-1]
        for name in names:
            measured[name].append(variants[name]())
    return {name: statistics.median(values) for name, values in measured.items()}


@dataclass(frozen=True)
class CommandStats:
    seconds: float
    peak_pss_mb: float  # of the process and all its children together, sampled twice per second
    peak_anonymous_mb: float  # without the pages of files, such as weights, which the system may drop and read again
    cpu_seconds: float


def time_command(
    command: Sequence[str | Path | int], *, cwd: Path, environment: Mapping[str, str] | None = None
) -> CommandStats:
    """Run a command to its end. Raises RuntimeError with the end of its output if it fails."""
    log = cwd / "log.txt"
    start = time.perf_counter()
    cpu_start = _children_cpu_seconds()
    with log.open("w") as stream:
        process = subprocess.Popen(
            [str(word) for word in command],
            env=os.environ | dict(environment or {}),
            cwd=cwd,
            stdout=stream,
            stderr=stream,
        )
        sampler = MemorySampler(process)
        sampler.start()
        exit_code = process.wait()
    seconds = time.perf_counter() - start
    cpu_seconds = _children_cpu_seconds() - cpu_start
    sampler.join()
    if exit_code:
        raise RuntimeError(
            f"{' '.join(map(str, command))} failed with exit code {exit_code}: {log.read_text()[-3000:]}"
        )
    return CommandStats(
        seconds=round(seconds, 1),
        peak_pss_mb=round(sampler.peak_mb, 1),
        peak_anonymous_mb=round(sampler.peak_anonymous_mb, 1),
        cpu_seconds=round(cpu_seconds, 1),
    )


def _children_cpu_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


class MemorySampler(threading.Thread):
    """Samples the memory of a process and its children until the process ends. `peak_mb` is that of their PSS."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__(daemon=True)
        self.process = process
        self.peak_mb = self.peak_anonymous_mb = 0.0

    def run(self) -> None:
        while True:
            try:  # not process.poll(), which would take the exit code and the usage from whoever waits for the process
                root = psutil.Process(self.process.pid)
                if root.status() == psutil.STATUS_ZOMBIE:
                    return
                processes = [root, *root.children(recursive=True)]
            except psutil.Error:
                return
            self.peak_mb = max(self.peak_mb, sum(map(pss_bytes, processes)) / 1024**2)
            self.peak_anonymous_mb = max(self.peak_anonymous_mb, sum(map(_anonymous_bytes, processes)) / 1024**2)
            time.sleep(SAMPLE_S)


def pss_bytes(process: psutil.Process) -> int:
    try:
        return process.memory_full_info().pss
    except psutil.Error:  # it has just ended
        return 0


def _anonymous_bytes(process: psutil.Process) -> int:
    try:
        memory = process.memory_info()
    except psutil.Error:
        return 0
    return int(memory.rss - getattr(memory, "shared", 0))
