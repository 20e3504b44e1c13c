"""Connect the processes that `accelerate launch` started, and choose what they compute on."""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from product_vqa.errors import InputError

T = TypeVar("T")


def runs_on_cpu() -> bool:
    """Return whether the launch asked for the CPU, or the machine has no accelerator.

    accelerate's launcher passes `use_cpu` on only if it starts a single process. Without it, each of two processes on
    a CPU would run as if it were the only one.
    """
    return os.environ.get("ACCELERATE_USE_CPU", "false").lower() == "true" or not torch.accelerator.is_available()


def is_first_process() -> bool:
    """Return whether this is the first of the processes of a launch, without connecting with the others."""
    return int(os.environ.get("RANK", "0")) == 0


def num_processes() -> int:
    """Return how many processes a launch has, without connecting with the others."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def init_distributed() -> PartialState:
    """Connect this process with the others; returns its rank and device.

    The time-out is 12 hours. NCCL's own ten minutes may be too short for the first process to download a dataset and
    a base model of 12 GB each, while the others wait.
    """
    return PartialState(cpu=runs_on_cpu(), timeout=timedelta(hours=12))


def decide_in_first_process(decide: Callable[[], T]) -> T:
    """Call `decide` in the first process. Every process must call this, and returns or raises what it did there.

    The result must be picklable. Only an InputError is raised in all processes.
    """
    outcome: list[Any] = [None]
    if init_distributed().is_main_process:
        try:
            outcome = [decide()]
        except InputError as error:
            outcome = [error]
    (decided,) = broadcast_object_list(outcome)
    if isinstance(decided, InputError):
        raise decided
    return decided


@contextmanager
def process_group() -> Iterator[None]:
    """Disconnect from the other processes at the end of the block, after the objects of the block are freed.

    If DistributedDataParallel is the last to hold the group, it frees it with Python's global lock, and waits for a
    thread of Gloo, which may wait for that lock to free a tensor: such a process never ends.
    """
    yield
    gc.collect()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
