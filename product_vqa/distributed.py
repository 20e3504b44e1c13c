"""Connect the processes that `accelerate launch` started, and choose what they compute on."""

import os
from datetime import timedelta

import torch
from accelerate import PartialState


def runs_on_cpu() -> bool:
    """Return whether the launch asked for the CPU, or the machine has no accelerator.

    accelerate's launcher passes `use_cpu` on only if it starts a single process. Without it, each of two processes on
    a CPU would run as if it were the only one.
    """
    return os.environ.get("ACCELERATE_USE_CPU", "false").lower() == "true" or not torch.accelerator.is_available()


def init_distributed() -> PartialState:
    """Connect this process with the others; returns its rank and device.

    The time-out is 12 hours. NCCL's own ten minutes may be too short for the first process to download a dataset and
    a base model of 12 GB each, while the others wait.
    """
    return PartialState(cpu=runs_on_cpu(), timeout=timedelta(hours=12))
