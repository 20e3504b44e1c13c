"""Runs of the project's commands under the shim: compiled once, forked from one process that has imported them."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SHIM = Path(__file__).with_name("shim.c")
TIME_LIMIT_S = 60.0

# As in shim.c.
OPEN, WRITE, RENAME, UNLINK, MKDIR, SYNC, TRUNCATE, LINK, READ, OPEN_READ, THREAD, FORK, CLOCK = (
    1 << number for number in range(13)
)
CHANGES = OPEN | WRITE | RENAME | UNLINK | MKDIR | SYNC | TRUNCATE | LINK
COUNT, KILL, TORN, FAIL, FAIL_FROM, SHORT, JUMP = range(7)


class NoShimError(Exception):
    """Why no faults can be injected here."""


def compile_shim(folder: Path) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        raise NoShimError("needs Linux and a C compiler")
    library = folder / "shim.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-Wall", "-o", library, SHIM, "-ldl", "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NoShimError(f"the shim was not compiled: {done.stderr[:500]}")
    return library


@dataclass(frozen=True)
class Fault:
    """What the shim does at the `nth` of these operations; `COUNT` only lists them."""

    operations: int
    action: int = COUNT
    nth: int = 0
    errno: int = 0
    jump_s: int = 0


@dataclass(frozen=True)
class Command:
    module: str
    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """How a run ended. `trace`: the operation at which the fault happened, or with COUNT all of them."""

    code: int
    hung: bool
    stdout: str
    stderr: str
    trace: list[str]
    seconds: float


class Running:
    def __init__(self, commands: "Commands", pid: int, log: Path) -> None:
        self.pid = pid
        self._commands = commands
        self._log = log
        self._start = time.monotonic()

    def signal(self, number: int) -> None:
        """Send a signal, but not before the command has begun."""
        deadline = time.monotonic() + 20
        while not self._log.with_suffix(".trace").exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, timeout_s: float = TIME_LIMIT_S) -> Ended:
        how = self._commands.ask({"wait": self.pid, "timeout_s": timeout_s})
        seconds = time.monotonic() - self._start
        out, err, trace = (
            self._log.with_suffix(suffix).read_text(errors="replace") for suffix in (".out", ".err", ".trace")
        )
        return Ended(how["code"], how["hung"], out, err, trace.splitlines(), seconds)


class Commands:
    """The fork server, and where its runs leave their output."""

    def __init__(self, folder: Path, *, environment: dict[str, str]) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self._number = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.fork_server"],
            cwd=ROOT,
            env=os.environ
            | {"PYTHONPATH": str(ROOT), "LD_PRELOAD": str(compile_shim(folder)), "PYTHONWARNINGS": "ignore"}
            | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(
        self,
        command: Command,
        *,
        folder: Path,
        fault: Fault | None = None,
        below: list[Path] | None = None,
        limits: dict[str, int] | None = None,
        modules: Path | None = None,
        brief_sleeps: bool = False,
        patches: dict[str, float] | None = None,
    ) -> Running:
        """Start a command in `folder`; `fault` counts what happens below the folders `below` (default: `folder`)."""
        self._number += 1
        log = self.folder / f"{self._number:05d}"
        faults = None if fault is None else asdict(fault) | {"folders": [str(one) for one in below or [folder]]}
        pid = self.ask(
            {
                "start": {
                    "module": command.module,
                    "arguments": command.arguments,
                    "environment": command.environment,
                    "folder": str(folder),
                    "stdout": str(log.with_suffix(".out")),
                    "stderr": str(log.with_suffix(".err")),
                    "trace": str(log.with_suffix(".trace")),
                    "fault": faults,
                    "limits": limits or {},
                    "modules": None if modules is None else str(modules),
                    "brief_sleeps": brief_sleeps,
                    "patches": patches or {},
                }
            }
        )
        return Running(self, pid, log)

    def run(self, command: Command, **options: Any) -> Ended:
        return self.start(command, **options).wait()

    def learn(self, command: Command, *, folder: Path, prepare: Callable[[], None] = lambda: None) -> Ended:
        """Run a command undisturbed, and import what it imported, so that later runs need not."""
        prepare()
        modules = self.folder / "modules.json"
        ended = self.run(command, folder=folder, modules=modules)
        if ended.code == 0:
            names = json.loads(modules.read_text())
            self.ask({"imports": names})
        return ended

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
