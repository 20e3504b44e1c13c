"""Which of the processes that `accelerate launch` started this is, before any of them has imported torch."""

import os


def is_first_process() -> bool:
    """Return whether this is the first of the processes of a launch, without connecting with the others."""
    return int(os.environ.get("RANK", "0")) == 0


def num_processes() -> int:
    """Return how many processes a launch has, without connecting with the others."""
    return int(os.environ.get("WORLD_SIZE", "1"))
