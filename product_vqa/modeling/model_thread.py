"""One thread for the model, whichever threads ask: each of them would keep memory of its own for the activations."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class ModelThread:
    """Runs functions one at a time, in a thread that starts with the first of them.

    glibc gives each thread an arena, which keeps what was once allocated in it: eight threads that ran the same model
    in turns held eight times the activations of a batch. OpenMP would also start workers for each of them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def run(self, function: Callable[[], T]) -> T:
        """What the function returns or raises. It must not call `run` itself."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, thread_name_prefix="product-vqa-model")
        return self._pool.submit(function).result()
