"""SIGTERM, which clusters send before they take a machine away: save a checkpoint, then exit. And one run per folder.

Before the training and after it a SIGTERM ends the process at once: there is nothing to save, or all is saved.
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
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from product_vqa.errors import InputError

logger = logging.getLogger(__name__)

EXIT_CODE = 128 + signal.SIGTERM  # 143, as if the signal had ended the process

_PR_SET_PDEATHSIG = 1
_LAUNCHED = "ACCELERATE_DYNAMO_BACKEND"  # set by every launcher of accelerate, and hardly by hand
_WAIT_FOR_OTHER_RUN_S = 15  # a run that was told to stop may still be saving while its successor starts


class PreemptedError(Exception):
    """SIGTERM came during an evaluation, which is abandoned."""


class SaveOnSigterm(TrainerCallback):
    """After SIGTERM to any process: finish the step, save a checkpoint, end the training. All processes together."""

    def __init__(self) -> None:
        self.is_stopped = False
        self._is_told = False
        self._agreement: tuple[torch.Tensor, torch.cuda.Event] | None = None

    def on_train_begin(self, *_: Any, **kwargs: Any) -> None:
        signal.signal(signal.SIGTERM, self._remember)

    def _remember(self, *_: Any) -> None:
        self._is_told = True

    def is_told(self, device: torch.device) -> bool:
        """Whether any process got a SIGTERM. One of several processes waits here for the others."""
        if not torch.distributed.is_initialized():
            return self._is_told
        told = torch.tensor(float(self._is_told), device=device)
        torch.distributed.all_reduce(told, op=torch.distributed.ReduceOp.MAX)
        return bool(told.item())

    def _was_told(self, device: torch.device) -> bool:
        """As `is_told`, of a step ago: a GPU is not made to wait until its queue is empty."""
        if device.type != "cuda" or not torch.distributed.is_initialized():
            return self.is_told(device)
        before = self._agreement
        told = torch.full((), float(self._is_told), device=device)
        torch.distributed.all_reduce(told, op=torch.distributed.ReduceOp.MAX)
        copy = torch.empty((), pin_memory=True).copy_(told, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        self._agreement = copy, copied
        if before is None:
            return False
        before[1].synchronize()
        return bool(before[0])

    def stop_evaluation(self, device: torch.device) -> None:
        """Raises PreemptedError if any process got a SIGTERM; called by all of them, between two batches."""
        if self.is_told(device):
            raise PreemptedError

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._was_told(args.device):
            self.stop(control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not self.is_stopped and self.is_told(args.device):  # while it was saved: no further step
            self.is_stopped = control.should_training_stop = True

    def stop(self, control: TrainerControl) -> None:
        self.is_stopped = control.should_save = control.should_training_stop = True

    def on_train_end(self, *_: Any, **kwargs: Any) -> None:
        exit_on_sigterm()
        self.is_stopped |= self._is_told  # since the last look


def exit_on_sigterm() -> None:
    """Until the training begins, and after it: 143 at once, also where Python would first finish a long call."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(EXIT_CODE))


def end_with_launcher() -> None:
    """Have the kernel send SIGTERM when the process dies that launched this one.

    `accelerate launch` of one process dies of a SIGTERM and tells nobody: the training would run on without it. Only
    under a launcher: a run that was started with nohup outlives its shell.
    """
    if not sys.platform.startswith("linux") or _LAUNCHED not in os.environ:
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent or not _has_launched(parent):
        os._exit(EXIT_CODE)


def _has_launched(parent: int) -> bool:
    """Whether this is the launcher, or a process that it launched, and not the one that inherits orphans."""
    try:
        command = Path(f"/proc/{parent}/cmdline").read_bytes()
        environment = Path(f"/proc/{parent}/environ").read_bytes()
    except OSError:  # of another user
        return False
    launchers = (b"accelerate", b"product_vqa.launch", b"torchrun", b"torch.distributed", b"deepspeed")
    return any(name in command for name in launchers) or _LAUNCHED.encode() in environment


@contextmanager
def only_run_in(output_dir: Path) -> Iterator[None]:
    """Hold `output_dir` for this run, in the first process; a lock that the kernel releases however a process ends.

    Raises InputError if another run still holds it after some seconds.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    # A record lock: it is not passed on to data loader workers, which may outlive a killed run by some seconds.
    with (output_dir / ".lock").open("a+") as file:
        until = time.monotonic() + _WAIT_FOR_OTHER_RUN_S
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError):
                if time.monotonic() > until:
                    file.seek(0)
                    raise InputError(
                        f"--output_dir {output_dir}: another run (process {file.read().strip() or 'unknown'}) is "
                        "training into it; wait until it has ended, or choose another folder"
                    ) from None
                time.sleep(0.2)
            except OSError as error:
                logger.warning("--output_dir %s: a second run would not be noticed (%s)", output_dir, error)
                break
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
