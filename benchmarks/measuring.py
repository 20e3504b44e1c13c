"""A command's time and memory, and the servers and environments that it needs."""

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLE_S = 0.5


@contextmanager
def printing_to_stderr() -> Iterator[None]:
    """For what libraries print, like a trainer its losses: stdout holds the result alone."""
    with redirect_stdout(sys.stderr):
        yield


def alternate(ways: dict[str, Callable[[], float]], *, repeats: int) -> dict[str, float]:
    """The median of what each way returns (a time, a rate), all in turn; every second round backwards."""
    figures: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats):
        for name, way in list(ways.items())[:: -1 if repeat % 2 else 1]:
            figures[name].append(way())
    return {name: statistics.median(values) for name, values in figures.items()}


@dataclass(frozen=True)
class Measured:
    seconds: float
    peak_pss_mb: float  # of the process and all its children together, sampled twice a second
    cpu_seconds: float


def measure(command: list[str | Path], *, environment: dict[str, str] | None = None, cwd: Path) -> Measured:
    """Run a command to its end. Raises RuntimeError with the end of its output if it fails."""
    log = cwd / "log.txt"
    start, cpu_start = time.perf_counter(), os.times()
    with log.open("w") as stream:
        process = subprocess.Popen(
            [str(word) for word in command],
            env=os.environ | (environment or {}),
            cwd=cwd,
            stdout=stream,
            stderr=stream,
        )
        peak = [0.0]
        sampler = threading.Thread(target=_sample, args=(process, peak), daemon=True)
        sampler.start()
        code = process.wait()
    seconds, cpu_end = time.perf_counter() - start, os.times()
    sampler.join()
    if code:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {code}: {log.read_text()[-3000:]}")
    cpu_seconds = cpu_end.children_user + cpu_end.children_system - cpu_start.children_user - cpu_start.children_system
    return Measured(round(seconds, 1), round(peak[0], 1), round(cpu_seconds, 1))


def _sample(process: subprocess.Popen, peak: list[float]) -> None:
    while process.poll() is None:
        total = 0
        try:
            root = psutil.Process(process.pid)
            family = [root, *root.children(recursive=True)]
        except psutil.Error:
            return
        for member in family:
            try:
                total += member.memory_full_info().pss
            except psutil.Error:
                continue  # it has just ended
        peak[0] = max(peak[0], total / 1024**2)
        time.sleep(SAMPLE_S)


@contextmanager
def picture_server(*arguments: str | Path) -> Iterator[str]:
    """`benchmarks.picture_server` in a process of its own; gives its URL."""
    command = [sys.executable, "-m", "benchmarks.picture_server", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.wait()


def make_environment(folder: Path, *requirements: str) -> Path:
    """The Python of a virtual environment with these packages, made if it is not there yet."""
    python = folder / "bin" / "python"
    if not (folder / ".complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements], check=True
        )
        (folder / ".complete").touch()
    return python
