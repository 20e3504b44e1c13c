"""Preemption: how a run ends when its machine is taken away or its launcher dies, and one run per output folder.

Clusters send SIGTERM before they take a machine away. During training `training.callbacks.SaveOnSigterm` handles it;
before and after, it ends the process at once, because nothing has to be saved.
"""

import ctypes
import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from product_vqa.errors import InputError

logger = logging.getLogger(__name__)

EXIT_CODE = 128 + signal.SIGTERM  # 143, as if the signal had ended the process
WAIT_FOR_OTHER_RUN_S = 15  # a run that is stopping may still be saving when its successor starts

_PR_SET_PDEATHSIG = 1
_LAUNCHED = "ACCELERATE_DYNAMO_BACKEND"  # set by every launcher of accelerate, and unlikely to be set by hand
_LAUNCHERS = (b"accelerate", b"product_vqa.launch", b"torchrun", b"torch.distributed", b"deepspeed")


def exit_on_sigterm() -> None:
    """Make a SIGTERM end the process at once with exit code 143, even where Python would first finish a long call."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(EXIT_CODE))


def end_with_launcher() -> None:
    """Ask the kernel for a SIGTERM when the process that launched this one dies.

    A SIGTERM ends `accelerate launch` of one process without reaching that process, which would train on alone. This
    applies under a launcher only: a run started with nohup outlives its shell.
    """
    if not sys.platform.startswith("linux") or _LAUNCHED not in os.environ:
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent or not _is_launcher(parent):
        os._exit(EXIT_CODE)


def _is_launcher(process: int) -> bool:
    """Whether it is a launcher or was launched by one, rather than the process that inherits orphans."""
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes()
        environment = Path(f"/proc/{process}/environ").read_bytes()
    except OSError:  # it belongs to another user
        return False
    return any(name in command for name in _LAUNCHERS) or _LAUNCHED.encode() in environment


@contextmanager
def only_run_in(output_dir: Path) -> Iterator[None]:
    """Lock `output_dir` for this run, in the first process. The kernel releases the lock however the process ends.

    Raises InputError if another run still holds it after WAIT_FOR_OTHER_RUN_S.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    # A record lock is not inherited by data loader workers, which may outlive a killed run by some seconds.
    with (output_dir / ".lock").open("a+") as file:
        deadline = time.monotonic() + WAIT_FOR_OTHER_RUN_S
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError):
                if time.monotonic() > deadline:
                    file.seek(0)
                    raise InputError(
                        f"`output_dir` {output_dir} is in use by another run (process "
                        f"{file.read().strip() or 'unknown'}); wait until it has ended, or choose another folder"
                    ) from None
                time.sleep(0.2)
            except OSError as error:
                logger.warning(
                    "`output_dir` %s cannot be locked, so a second run is not noticed (%s)", output_dir, error
                )
                break
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
