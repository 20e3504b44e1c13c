"""The processes that `accelerate launch` started, and what they compute on."""

import os
from datetime import timedelta

import torch
from accelerate import PartialState


def runs_on_cpu() -> bool:
    """Whether the launch asked for the CPU, or there is nothing else.

    For two processes on a CPU accelerate must be told in every process: its launcher passes `use_cpu` on to a single
    one only, and without it two processes would each believe that they are alone.
    """
    return os.environ.get("ACCELERATE_USE_CPU", "false").lower() == "true" or not torch.accelerator.is_available()


def join_processes() -> PartialState:
    """This process's place among all, joined with the others.

    They wait for each other for hours if need be: NCCL's own limit is ten minutes, in which the first one has to
    fetch a dataset and a base model of 12 GB each.
    """
    return PartialState(cpu=runs_on_cpu(), timeout=timedelta(hours=12))
