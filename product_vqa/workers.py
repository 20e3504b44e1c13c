"""Pass batches from worker processes that decode images to the model, bound the queue, and explain failures.

torch passes tensors between processes through /dev/shm. A container has 64 MB of it unless `--shm-size` sets another
size, and when it is full, torch's workers wait forever. Arrays go through a pipe, which does not use /dev/shm.
"""

import logging
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from product_vqa.errors import InputError

logger = logging.getLogger(__name__)

QUEUE_BYTES = 2**30  # batches that wait for the model, per process
TIMEOUT_S = 900  # for one batch, including the workers' start; a longer wait means that they hang


def to_arrays(batch: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Convert a batch for the pipe from a worker process."""
    return {name: tensor.numpy() for name, tensor in batch.items()}


def to_tensors(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Undo `to_arrays`. Tensors are kept as they are."""
    return {name: torch.as_tensor(values) for name, values in batch.items()}


def is_worker() -> bool:
    return torch.utils.data.get_worker_info() is not None


def limit_queue(num_workers: int, *, batch_bytes: int) -> tuple[int, int | None]:
    """Reduce the number of workers if more than QUEUE_BYTES would wait for the model.

    Returns the number of workers, and how many batches each of them prefetches (None without workers).
    """
    if num_workers == 0:
        return 0, None
    fitting = max(1, QUEUE_BYTES // max(1, batch_bytes))
    if fitting < num_workers:
        logger.info(
            "Using %d worker processes instead of %d to save memory: each batch takes %.0f MB",
            fitting,
            num_workers,
            batch_bytes / 1e6,
        )
    return min(num_workers, fitting), 2 if 2 * num_workers <= fitting else 1


@contextmanager
def worker_errors(*, name: str = "dataloader_num_workers") -> Iterator[None]:
    """Convert failures of worker processes into an InputError that says what to do.

    `name` is the caller's argument for the number of workers.
    """
    try:
        yield
    except InputError as error:
        if "in DataLoader worker process" not in str(error):
            raise
        # torch puts the worker's traceback into the message.
        raise InputError(str(error).strip().splitlines()[-1].rpartition("InputError: ")[2]) from error
    except RuntimeError as error:
        if "DataLoader timed out" in str(error):
            raise InputError(
                f"the worker processes that decode images made no batch in {TIMEOUT_S} s. Rerun to resume, with "
                f"`{name}` 0 to decode in the main process"
            ) from error
        match = re.search(r"DataLoader worker \(.*?\d\) (.*?)(?:\.|$)", str(error))  # "is killed by signal: Killed"
        if match is None:
            raise
        raise InputError(
            f"a worker process that decodes images {match[1]}. If it was killed, the machine ran out of memory: rerun "
            f"to resume, with a smaller `{name}` (0 decodes in the main process) or a smaller batch size"
        ) from error
    except OSError as error:
        frames = traceback.extract_tb(error.__traceback__)
        if not any(frame.filename.endswith("multiprocessing/synchronize.py") for frame in frames):
            raise
        raise InputError(
            f"worker processes could not be started ({error.strerror}): their semaphores need space in /dev/shm. Add "
            f"space (docker run --shm-size 1g), or use `{name}` 0, which needs none"
        ) from error
