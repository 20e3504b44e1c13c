"""Worker processes that decode images ahead of the model: how batches reach it, how many wait, how workers fail.

torch hands tensors from process to process through /dev/shm. A container has 64 MB of it unless `--shm-size` says
otherwise, and where it is full torch's workers wait forever. Arrays go through a pipe, which needs none of it.
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

QUEUE_BYTES = 2**30  # of batches that wait for the model of one process
TIMEOUT_S = 900  # for one batch, the first of which waits for the workers' start; longer means that they hang


def to_arrays(batch: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """A batch as a worker process hands it over."""
    return {name: tensor.numpy() for name, tensor in batch.items()}


def to_tensors(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    """What `to_arrays` made, as tensors again; tensors stay as they are."""
    return {name: torch.as_tensor(values) for name, values in batch.items()}


def is_worker() -> bool:
    return torch.utils.data.get_worker_info() is not None


def limit_queue(num_workers: int, *, batch_bytes: int) -> tuple[int, int | None]:
    """(workers, batches that each keeps ready): as many as asked for, unless more than QUEUE_BYTES would wait."""
    if num_workers == 0:
        return 0, None
    fitting = max(1, QUEUE_BYTES // max(1, batch_bytes))
    if fitting < num_workers:
        logger.info(
            "%d worker processes in place of %d: batches of %.0f MB would wait for the model in memory",
            fitting, num_workers, batch_bytes / 1e6,
        )  # fmt: skip
    return min(num_workers, fitting), 2 if 2 * num_workers <= fitting else 1


@contextmanager
def explained_workers(*, name: str = "dataloader_num_workers") -> Iterator[None]:
    """Turn the end of a worker process, whenever it is noticed, into an InputError that says what to do.

    `name` is the caller's argument for the number of workers.
    """
    try:
        yield
    except InputError as error:
        if "in DataLoader worker process" not in str(error):
            raise
        # torch puts the worker's whole traceback into the message.
        raise InputError(str(error).strip().splitlines()[-1].rpartition("InputError: ")[2]) from error
    except RuntimeError as error:
        if "DataLoader timed out" in str(error):
            raise InputError(
                f"the worker processes that decode images made no batch in {TIMEOUT_S} s: `{name}` 0 decodes them in "
                "the main process; rerun to resume"
            ) from error
        if not (dead := re.search(r"DataLoader worker \(.*?\d\) (.*?)(?:\.|$)", str(error))):
            raise
        raise InputError(
            f"a worker process that decodes images {dead[1]}: if it was killed, the machine is out of memory. Take a "
            f"smaller `{name}` (0 decodes in the main process) or a smaller batch size; rerun to resume"
        ) from error
    except OSError as error:
        frames = traceback.extract_tb(error.__traceback__)
        if not any(frame.filename.endswith("multiprocessing/synchronize.py") for frame in frames):
            raise
        raise InputError(
            f"worker processes cannot be started ({error.strerror}; their semaphores are files in /dev/shm): make "
            f"room there (docker run --shm-size 1g), or `{name}` 0, which needs none"
        ) from error
