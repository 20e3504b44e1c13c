"""Work handed to a pool of threads, a little at a time."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_unordered(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], *, in_flight: int
) -> Iterator[Result]:
    """Results as they come; `pool.map` would hold a future (1.5 kB) for each of 350,000 links, and their order."""
    waiting: set[Future[Result]] = set()
    done: SimpleQueue[Future[Result]] = SimpleQueue()  # concurrent.futures.wait would lock every future for every item
    try:
        for item in items:
            if len(waiting) >= in_flight:
                waiting.remove(future := done.get())
                yield future.result()
            waiting.add(future := pool.submit(function, item))
            future.add_done_callback(done.put)
        while waiting:
            waiting.remove(future := done.get())
            yield future.result()
    finally:
        for future in waiting:
            future.cancel()
