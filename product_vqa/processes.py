"""The processes that `accelerate launch` started, and what they compute on."""

import os

import torch
from accelerate import PartialState


def runs_on_cpu() -> bool:
    """Whether the launch asked for the CPU, or there is nothing else.

    For two processes on a CPU accelerate must be told in every process: its launcher passes `use_cpu` on to a single
    one only, and without it two processes would each believe that they are alone.
    """
    return os.environ.get("ACCELERATE_USE_CPU", "false").lower() == "true" or not torch.accelerator.is_available()


def join_processes() -> PartialState:
    """This process's place among all, joined with the others."""
    return PartialState(cpu=runs_on_cpu())
