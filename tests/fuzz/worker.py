"""One process that runs the cases of one target. Its parent (`runner`) watches it: `python -m tests.fuzz.worker`.

A finding is one JSON line on standard output at once, and the summary is the last line.
"""

import argparse
import contextlib
import faulthandler
import json
import logging
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from benchmarks.memory import peak_bytes
from tests.fuzz.cases import case_maker
from tests.fuzz.slot import Slot
from tests.fuzz.targets import load_target

ROOT = Path(__file__).parents[2]
HUNG = 3  # exit code after a case that took too long: its threads may still be running


class HangError(BaseException):
    """Raised in a case that takes longer than the limit; a BaseException, so that no `except Exception` hides it."""


class SlowError(BaseException):
    """Raised after a case that took more CPU time than the limit."""


@dataclass
class Finding:
    kind: str  # crash, hang
    number: int
    data: str  # the case, as latin-1
    place: str  # where it was raised: one finding for each place is enough
    detail: str


def silence() -> None:
    """Let no case ask a server, print progress or log. Call it before a target, and so its libraries, are imported."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1")
    logging.disable(logging.WARNING)


def place_of(error: BaseException) -> str:
    """The type of an error, and the last line of this repository that it passed on its way."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if str(ROOT) in frame.filename]
    frames = [frame for frame in frames if ".venv" not in frame.filename and "fuzz/worker" not in frame.filename]
    where = f"{Path(frames[-1].filename).relative_to(ROOT)}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} at {where}"


def find(fuzz: Callable[[bytes], None], number: int, data: bytes, *, limit_s: float) -> Finding | None:
    """Run one case. KeyboardInterrupt ends the run."""
    started = time.process_time()  # other processes of the machine do not count
    try:
        fuzz(data)
        if time.process_time() - started > limit_s:
            raise SlowError(f"{time.process_time() - started:.1f} s of CPU time")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        kind = "hang" if isinstance(error, HangError | SlowError) else "crash"
        detail = "".join(traceback.format_exception(error))[-6000:]
        return Finding(kind, number, data.decode("latin-1"), place_of(error), detail)
    return None


def smaller_cases(data: bytes) -> Iterator[bytes]:
    size = len(data) // 2
    while size:
        for start in range(0, len(data), size):
            yield data[:start] + data[start + size :]
        size //= 2


def minimize(fuzz: Callable[[bytes], None], finding: Finding, *, limit_s: float, seconds: float = 3) -> Finding:
    """The smallest case found within `seconds` that fails at the same place."""
    deadline = time.monotonic() + seconds
    best = finding
    while True:
        for data in smaller_cases(best.data.encode("latin-1")):
            if time.monotonic() > deadline:
                return best
            found = find(fuzz, finding.number, data, limit_s=limit_s)
            if found and found.place == finding.place:
                best = found
                break
        else:
            return best


def limit_memory(extra_mb: int) -> None:
    """Let the address space grow by at most `extra_mb` from here on; more is a MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + extra_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("--slot", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--start", type=int, required=True)
    parser.add_argument("--end", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--memory_mb", type=int, required=True)
    parser.add_argument("--limit", type=float, required=True)
    options = parser.parse_args()

    output = os.fdopen(os.dup(1), "w")  # whatever a library prints goes elsewhere
    os.dup2(2, 1)

    def on_alarm(signum: int, frame: FrameType | None) -> NoReturn:
        faulthandler.dump_traceback(all_threads=True)
        raise HangError

    silence()
    target = load_target(options.target)
    make = case_maker(target, seed=options.seed)
    with contextlib.suppress(BaseException):
        target.fuzz(make(0))  # imports what it needs; a fault is reported below
    slot = Slot(options.slot)
    base_mb = peak_bytes() // 2**20
    limit_memory(options.memory_mb)
    signal.signal(signal.SIGALRM, on_alarm)
    known: set[str] = set()
    started = last = time.monotonic()
    slowest_s, slowest, number, hung = 0.0, -1, options.start, False
    while number < options.end and last - started < options.seconds and not hung:
        data = make(number)
        slot.write(number - options.start + 1, number, data)
        finding = find(target.fuzz, number, data, limit_s=options.limit)
        now = time.monotonic()
        if now - last > slowest_s:
            slowest_s, slowest = now - last, number
        last = now
        if finding and finding.place not in known:
            known.add(finding.place)
            hung = "HangError" in finding.place
            if not hung:
                finding = minimize(target.fuzz, finding, limit_s=options.limit)
            print(json.dumps(asdict(finding)), file=output, flush=True)
            last = time.monotonic()
        number += 1
    slot.write(-1, number, b"")
    summary = {
        "next": number, "seconds": last - started, "peak_mb": peak_bytes() // 2**20, "base_mb": base_mb,
        "slowest_s": slowest_s, "slowest": slowest,
    }  # fmt: skip
    print(json.dumps(summary), file=output, flush=True)
    output.close()
    os._exit(HUNG if hung else 0)  # threads of a hung case would keep the process alive


if __name__ == "__main__":
    sys.exit(main())
