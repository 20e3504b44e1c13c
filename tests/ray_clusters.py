"""Commands that run while workers and machines of a Ray cluster are lost."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.ray_nodes import RayNodes
from tests.commands import ROOT


def start(module: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """`python -m module arguments`, in the background."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)], cwd=ROOT, env=os.environ | environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a process; returns its exit code and all that it printed."""
    out, errors = process.communicate(timeout=900)
    return process.returncode, out + errors


def run(module: str, *arguments: object, **environment: str) -> tuple[int, str]:
    return finish(start(module, *arguments, **environment))


def wait_until(is_so: Callable[[], object], *, process: subprocess.Popen[str], timeout_s: float = 600) -> None:
    """Wait while a process works. Raises AssertionError if it ends before."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert process.poll() is None, f"it ended too early: {finish(process)}"
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


def lose_a_worker_and_a_node(nodes: RayNodes, *, process: subprocess.Popen[str]) -> None:
    """SIGKILL a worker of the head that is at work, remove the other node, and add one."""
    wait_until(lambda: nodes.kill_worker(0), process=process)
    nodes.remove(1)
    nodes.add()


def grep(text: str, folder: Path) -> list[Path]:
    """The files in a folder that hold a text."""
    files = [file for file in folder.rglob("*") if file.is_file() and not file.is_symlink()]
    assert len(files) > 5
    return [file for file in files if text.encode() in file.read_bytes()]
