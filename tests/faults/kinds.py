"""The kinds of faults: at which points of a scenario each can happen, and how it is made to happen there."""

import errno
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from tests.dataset_builder import image_server
from tests.faults import commands as shim
from tests.faults.commands import CHANGES, Ended, Fault
from tests.faults.scenarios import COMPLETED, ENDED, KILLED, REFUSED, Scenario
from tests.faulty_hub import FaultyHub, answer, done_but_500, done_but_reset, hang, reset

# Time limits, for servers that hang.
BRIEF = {
    "product_vqa.http.fetching:DEFAULT_LIMITS.read_timeout_s": 0.5,
    "product_vqa.hub.retries:TIMEOUTS_S.read": 1.0,
}
ANY_END = frozenset({REFUSED, COMPLETED})


class Kind:
    """`points` are where it can happen; `inject` runs the command with the fault at one of them."""

    allowed = ANY_END

    def __init__(self, name: str) -> None:
        self.name = name

    def points(self, scenario: Scenario, trial: "Trial") -> list[Any]:
        raise NotImplementedError

    def inject(self, trial: "Trial", point: Any) -> list[Ended]:
        raise NotImplementedError

    def is_missed(self, ends: list[Ended]) -> bool:
        """Whether the command ended before the fault could happen."""
        return False


class Trial:
    """One scenario in one folder, which is the same for all injections: paths are part of some results."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.folder = scenario.lane.folder / "trials" / scenario.name
        self.command = scenario.command(self.folder)
        self.commands = scenario.lane.commands
        self.restored: tuple[Path, bytes] | None = None  # a damaged file, and what it held
        self.seconds = 0.0  # of an undisturbed run
        self.reset()

    def reset(self) -> None:
        """The folder as it is before the command."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.restored = None
        self.scenario.prepare(self.folder)

    def start(self, **options: Any) -> shim.Running:
        options = {"brief_sleeps": self.scenario.brief_sleeps} | options
        return self.commands.start(self.command, folder=self.folder, **options)


class Shim(Kind):
    """The n-th operation of these fails, or kills the process; `where` says below which folders it counts."""

    def __init__(
        self, name: str, operations: int, action: int, *, number: int = 0, jump_s: int = 0, where: str = "work",
        allowed: frozenset[str] = ANY_END,
    ) -> None:  # fmt: skip
        super().__init__(name)
        self.operations, self.action, self.number, self.jump_s = operations, action, number, jump_s
        self.where, self.allowed = where, allowed

    def _below(self, trial: Trial) -> list[Path]:
        folders = [trial.folder, *trial.scenario.caches]
        return folders if self.where == "work" else [*folders, *trial.scenario.inputs]

    def points(self, scenario: Scenario, trial: Trial) -> list[int]:
        ended = trial.start(fault=Fault(self.operations), below=self._below(trial)).wait()
        assert ended.code == 0, ended.stderr
        return list(range(1, len(ended.trace) + 1))

    def inject(self, trial: Trial, point: int) -> list[Ended]:
        fault = Fault(self.operations, self.action, point, self.number, self.jump_s)
        return [trial.start(fault=fault, below=self._below(trial)).wait()]

    def is_missed(self, ends: list[Ended]) -> bool:
        """A server's threads need not make as many writes as in the run that counted them."""
        return not any(ended.trace for ended in ends)


class Moment(Kind):
    """A signal at a random moment."""

    def __init__(self, name: str, number: int, allowed: frozenset[str]) -> None:
        super().__init__(name)
        self.signal_number, self.allowed = number, allowed

    def points(self, scenario: Scenario, trial: Trial) -> list[float]:
        rng = scenario.lane.random(self.name, scenario.name)
        return [rng.uniform(0.1, 1) for _ in range(40)]  # not while Python still imports

    def inject(self, trial: Trial, point: float) -> list[Ended]:
        running = trial.start()
        time.sleep(point * trial.seconds)
        running.signal(self.signal_number)
        return [running.wait()]


class KilledWorker(Kind):
    """A worker process of the data loader is killed, as by a machine that is out of memory."""

    def points(self, scenario: Scenario, trial: Trial) -> list[int]:
        return list(range(6))

    def inject(self, trial: Trial, point: int) -> list[Ended]:
        command = shim.Command(trial.command.module, [*trial.command.arguments, "--dataloader_num_workers", "2"])
        running = trial.commands.start(command, folder=trial.folder)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with suppress(psutil.Error):
                process = psutil.Process(running.pid)
                workers = process.children()
                if len(workers) == 2 or process.status() == psutil.STATUS_ZOMBIE:
                    break
            time.sleep(0.002)
        time.sleep(0.01 * (point // 2))
        for worker in workers[point % 2 : point % 2 + 1]:
            worker.kill()
        return [running.wait()]


class Limit(Kind):
    """A limit of the process: the size of a file, the number of open files."""

    def __init__(self, name: str, limit: str, values: list[int], *, unit: int = 1) -> None:
        super().__init__(name)
        self.limit, self.values, self.unit = limit, values, unit

    def points(self, scenario: Scenario, trial: Trial) -> list[int]:
        return self.values

    def inject(self, trial: Trial, point: int) -> list[Ended]:
        return [trial.start(limits={self.limit: point * self.unit}).wait()]


class FullDisk(Kind):
    """A tmpfs on which only so much is free while the command runs."""

    def points(self, scenario: Scenario, trial: Trial) -> list[int]:
        return [16, 32, 48, 64, 96, 128, 192, 256, 384, 512]  # kB

    def inject(self, trial: Trial, point: int) -> list[Ended]:
        with small_disk(trial.folder, kilobytes=point):
            return [trial.start().wait()]


@contextmanager
def small_disk(folder: Path, *, kilobytes: int) -> Iterator[None]:
    """`folder` on a tmpfs of its own, filled until only so much is free. What is left there is kept."""
    aside = folder.with_name(f"{folder.name}-aside")
    aside.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", aside], check=True)
    try:
        subprocess.run(["cp", "-a", f"{folder}/.", aside], check=True)
        used = int(subprocess.check_output(["du", "-sk", aside]).split()[0])
        subprocess.run(["mount", "-o", f"remount,size={used + kilobytes}k", aside], check=True)
        subprocess.run(["mount", "--bind", aside, folder], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", folder], check=True)
            shutil.rmtree(folder)
            shutil.copytree(aside, folder, symlinks=True)
    finally:
        subprocess.run(["umount", aside], check=True)
        aside.rmdir()


class TwoAtOnce(Kind):
    """A second run of the same command, a moment later."""

    def points(self, scenario: Scenario, trial: Trial) -> list[float]:
        return [0.0, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]

    def inject(self, trial: Trial, point: float) -> list[Ended]:
        first = trial.start()
        time.sleep(point * trial.seconds)
        second = trial.start()
        return [first.wait(), second.wait()]


class BadAnswer(Kind):
    """A server answers one request so, at every request in turn."""

    def __init__(self, name: str, server: str, fault: Callable[..., Any], allowed: frozenset[str] = ANY_END) -> None:
        super().__init__(name)
        self.server, self.fault, self.allowed = server, fault, allowed

    def points(self, scenario: Scenario, trial: Trial) -> list[int]:
        server = getattr(scenario.lane, self.server)
        server.begin()
        assert trial.start().wait().code == 0
        return list(range(server.count))

    def inject(self, trial: Trial, point: int) -> list[Ended]:
        server = getattr(trial.scenario.lane, self.server)
        server.begin(self.fault, at=point)
        try:
            return [trial.start(brief_sleeps=True, patches=BRIEF).wait()]
        finally:
            server.begin()


class KilledAtRequest(BadAnswer):
    """The client is killed while a server answers, at every request in turn."""

    def __init__(self, name: str, server: str) -> None:
        super().__init__(name, server, lambda *_: None, frozenset({KILLED}))

    def inject(self, trial: Trial, point: int) -> list[Ended]:
        server = getattr(trial.scenario.lane, self.server)
        running: list[shim.Running] = []

        def kill(*_: Any) -> None:
            while not running:
                time.sleep(0.001)
            running[0].signal(signal.SIGKILL)

        async def kill_client(hub: FaultyHub, scope: Any, receive: Any, send: Any) -> None:
            kill()
            hub.hang_up(scope)

        server.begin(kill if self.server == "images" else kill_client, at=point)
        try:
            running.append(trial.start())
            return [running[0].wait()]
        finally:
            server.begin()


def _hang(handler: Any) -> None:
    time.sleep(30)


def _no_http(handler: Any) -> None:
    handler.wfile.write(b"\0\xff garbage \r\n\r\n" * 100)
    handler.close_connection = True


def _hang_up(handler: Any) -> None:
    handler.close_connection = True


def make_kinds() -> list[Kind]:
    killed = frozenset({KILLED})
    completed = frozenset({COMPLETED})
    writes = shim.WRITE | shim.OPEN | shim.MKDIR | shim.TRUNCATE | shim.LINK
    return [
        Shim("SIGKILL at a file operation", CHANGES & ~shim.WRITE, shim.KILL, allowed=killed),
        Shim("SIGKILL at a write", shim.WRITE, shim.KILL, allowed=killed),
        Shim("SIGKILL in the middle of a write", shim.WRITE, shim.TORN, allowed=killed),
        Moment("SIGKILL at a random moment", signal.SIGKILL, frozenset({KILLED, COMPLETED})),
        Moment("SIGTERM at a random moment", signal.SIGTERM, frozenset({ENDED, COMPLETED})),
        Moment("SIGINT at a random moment", signal.SIGINT, frozenset({ENDED, COMPLETED})),
        Shim("ENOSPC from a write on", writes, shim.FAIL_FROM, number=errno.ENOSPC),
        Shim("ENOSPC at one write", writes, shim.FAIL, number=errno.ENOSPC),
        Shim("EIO at one file operation", CHANGES, shim.FAIL, number=errno.EIO),
        Shim("EIO at one read", shim.READ | shim.OPEN_READ, shim.FAIL, number=errno.EIO, where="everywhere"),
        Shim("EACCES at one opening", shim.OPEN | shim.OPEN_READ, shim.FAIL, number=errno.EACCES),
        Shim("EROFS from an operation on", CHANGES & ~shim.WRITE, shim.FAIL_FROM, number=errno.EROFS),
        Shim("EMFILE at one opening", shim.OPEN | shim.OPEN_READ, shim.FAIL, number=errno.EMFILE, where="everywhere"),
        Shim("short write", shim.WRITE, shim.SHORT, allowed=completed),
        Shim("no thread can be started", shim.THREAD, shim.FAIL_FROM, number=errno.EAGAIN),
        Shim("clock jumps a year ahead", shim.CLOCK, shim.JUMP, jump_s=365 * 86400, allowed=completed),
        Shim("clock jumps ten years back", shim.CLOCK, shim.JUMP, jump_s=-3650 * 86400, allowed=completed),
        Limit(
            "file size limit (RLIMIT_FSIZE)",
            "file_bytes",
            [5000, 7000, 10_000, 15_000, 20_000, 30_000, 60_000, 100_000],
        ),
        Limit("open files limit (RLIMIT_NOFILE)", "open_files", [14, 16, 18, 20, 24, 28, 32, 48]),
        FullDisk("full disk (tmpfs)"),
        TwoAtOnce("two runs at once"),
        KilledWorker("SIGKILL of a worker process"),
        BadAnswer("image server: 429", "images", image_server.status(429, Retry_After="1"), completed),
        BadAnswer("image server: 500", "images", image_server.status(500), completed),
        BadAnswer("image server: cut", "images", image_server.cut, completed),
        BadAnswer("image server: no HTTP", "images", _no_http, completed),
        BadAnswer("image server: hangs up", "images", _hang_up, completed),
        BadAnswer("image server: hangs", "images", _hang, completed),
        KilledAtRequest("SIGKILL at a request for an image", "images"),
        BadAnswer("Hub: 429", "hub", answer(429, retry_after="1"), completed),
        BadAnswer("Hub: 500", "hub", answer(500), completed),
        BadAnswer(
            "Hub: 502 of a proxy", "hub", answer(502, b"<html>Bad gateway", content_type="text/html"), completed
        ),
        BadAnswer("Hub: garbage", "hub", answer(200, b"\0\xffgarbage", content_type="text/html")),
        BadAnswer("Hub: connection reset", "hub", reset, completed),
        BadAnswer("Hub: done, but 500", "hub", done_but_500, completed),
        BadAnswer("Hub: done, but connection reset", "hub", done_but_reset, completed),
        BadAnswer("Hub: hangs", "hub", hang, completed),
        KilledAtRequest("SIGKILL at a request to the Hub", "hub"),
    ]
