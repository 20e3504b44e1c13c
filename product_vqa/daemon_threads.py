"""Threads that read from the Hub: they do not keep a process from ending, and do not disturb its end.

A thread may wait for the Hub for minutes. An error or Ctrl-C should not wait with it, so these threads are daemons.
But a daemon that is in the C++ code of Arrow while the interpreter ends aborts the process, or hangs it. Therefore the
process waits at its end for threads that are `protected`, which takes milliseconds, and not for those that are
`waiting`.
"""

import atexit
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_MAX_WAIT_S = 30.0  # at the end of the process


class DaemonExecutor(Executor):
    """An executor whose threads are daemons. They are `protected` while they call a function."""

    def __init__(self, max_workers: int) -> None:
        self._max_workers = max_workers
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            self._tasks.put((future, partial(function, *arguments, **options)))
            if not self._threads:
                self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self._max_workers)]
                for thread in self._threads:
                    thread.start()
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = True) -> None:
        """Cancel the calls that have not begun, and end each thread after the call that it makes."""
        assert cancel_futures and not wait
        with self._lock:
            for future in self._pending():
                future.cancel()
            for _ in self._threads:
                self._tasks.put(None)

    def _pending(self) -> Iterator[Future[Any]]:
        while True:
            try:
                task = self._tasks.get_nowait()
            except Empty:
                return
            if task is not None:
                yield task[0]

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            complete(*task)
            del task  # its result would be in memory until the next one


def complete(future: Future[T], function: Callable[[], T]) -> None:
    """Call a function, `protected`, and give its result or its error to a future, unless that was cancelled."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        with protected():
            result = function()
    except BaseException as error:  # raised where the result is asked for
        future.set_exception(error)
    else:
        future.set_result(result)


_num_protected = 0
_is_ending = False
_changed = threading.Condition()
_thread = threading.local()


@contextmanager
def protected() -> Iterator[None]:
    """Keep the process from ending meanwhile. A thread that enters when it is ending never gets further."""
    if getattr(_thread, "is_protected", False):
        yield
        return
    _enter()
    try:
        yield
    finally:
        _leave()


@contextmanager
def waiting() -> Iterator[None]:
    """Within `protected`: let the process end meanwhile."""
    if not getattr(_thread, "is_protected", False):
        yield
        return
    _leave()
    try:
        yield
    finally:
        _enter()


def _enter() -> None:
    global _num_protected
    with _changed:
        _changed.wait_for(lambda: not _is_ending)
        _num_protected += 1
    _thread.is_protected = True


def _leave() -> None:
    global _num_protected
    _thread.is_protected = False
    with _changed:
        _num_protected -= 1
        _changed.notify_all()


@atexit.register
def _wait_for_protected() -> None:
    global _is_ending
    with _changed:
        _is_ending = True
        _changed.wait_for(lambda: not _num_protected, timeout=_MAX_WAIT_S)
