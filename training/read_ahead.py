"""Read row groups in threads before their rows are needed, and hold each row until it was taken."""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import numpy as np

from product_vqa.daemon_threads import DaemonExecutor, complete
from product_vqa.errors import InputError
from product_vqa.modeling.collator import Row
from product_vqa.streaming import READERS

MAX_HELD_BYTES = 4 * 1024**3  # of rows, per process


class ReadAhead:
    """The rows that will be taken, in about their order. Any other row can be taken too, with its row group."""

    def __init__(
        self,
        read: Callable[[int], Mapping[int, Row]],
        group_of: Callable[[np.ndarray], np.ndarray],
        *,
        upcoming: np.ndarray,
        max_rows: int,
    ) -> None:
        """`read` reads a row group: its rows by their number. `group_of` finds the row groups of rows.

        `upcoming` names the rows in their order; one that will be taken several times is named several times. At most
        `max_rows` of them are in memory, unless more are needed at once. Reading begins when the first one is taken.
        """
        self._read, self._group_of, self._max_rows = read, group_of, max_rows
        rows, uses = np.unique(upcoming, return_counts=True)
        self._uses_left = dict(zip(rows.tolist(), uses.tolist(), strict=True))
        groups, needed = np.unique(group_of(rows), return_counts=True)
        self._num_needed = dict(zip(groups.tolist(), needed.tolist(), strict=True))  # rows, by row group
        self._next_groups = deque(dict.fromkeys(group_of(upcoming).tolist()))
        self._groups: dict[int, Future[None]] = {}  # that are being read, or of which a row is held
        self._rows: dict[int, Row] = {}
        self._num_rows = self._num_bytes = 0  # held or being read; held
        self._read_last: tuple[int, Mapping[int, Row]] = (-1, {})  # out of turn
        self._lock = threading.Lock()
        self._executor = DaemonExecutor(READERS)

    def take(self, rows: Sequence[int]) -> list[Row]:
        """Return rows, after waiting for them if necessary. Raises what reading them has raised. Thread-safe."""
        self._read_more()
        return [
            self._take(row, group)
            for row, group in zip(rows, self._group_of(np.asarray(rows, dtype=np.int64)).tolist(), strict=True)
        ]

    def close(self) -> None:
        """Read nothing more ahead."""
        with self._lock:
            self._next_groups.clear()
        self._executor.shutdown()

    def _take(self, row: int, group: int) -> Row:
        with self._lock:
            is_upcoming = row in self._uses_left
            own = self._claim(group) if is_upcoming else None
        if not is_upcoming:
            return self._read_out_of_turn(group)[row]
        if own is not None:
            complete(own, partial(self._hold, group))
        self._groups[group].result()
        with self._lock:
            taken = self._rows[row]
            self._uses_left[row] -= 1
            if not self._uses_left[row]:
                self._drop(row, group)
        self._read_more()
        return taken

    def _claim(self, group: int) -> "Future[None] | None":
        """Return a future that the caller must complete, if nobody else reads the row group, or reading it failed.

        The Hub may have failed long before the row is needed, and answer again.
        """
        found = self._groups.get(group)
        if found is None:
            self._num_rows += self._num_needed[group]
        elif not found.done() or (not found.cancelled() and found.exception() is None):
            return None
        self._groups[group] = Future()
        return self._groups[group]

    def _hold(self, group: int) -> None:
        """Read a row group, and hold those of its rows that will be taken."""
        rows = self._read(group)
        with self._lock:
            for row, values in rows.items():
                if row in self._uses_left and row not in self._rows:
                    self._rows[row] = values
                    self._num_bytes += _num_bytes(values)
            if self._num_bytes > MAX_HELD_BYTES:
                raise InputError(
                    f"the {len(self._rows)} rows that wait for their step take more than {MAX_HELD_BYTES} bytes "
                    "of memory; lower `shuffle_buffer_size`"
                )

    def _drop(self, row: int, group: int) -> None:
        self._num_bytes -= _num_bytes(self._rows.pop(row))
        self._num_rows -= 1
        self._num_needed[group] -= 1
        del self._uses_left[row]
        if not self._num_needed[group]:
            del self._groups[group]

    def _read_more(self) -> None:
        """Let the threads read the next row groups for which there is room."""
        with self._lock:
            while self._next_groups:
                group = self._next_groups[0]
                if self._num_rows and self._num_rows + self._num_needed[group] > self._max_rows:
                    break
                self._next_groups.popleft()
                if self._num_needed[group] and group not in self._groups:
                    self._num_rows += self._num_needed[group]
                    self._groups[group] = self._executor.submit(self._hold, group)

    def _read_out_of_turn(self, group: int) -> Mapping[int, Row]:
        number, rows = self._read_last
        if number != group:
            rows = self._read(group)
            self._read_last = group, rows
        return rows


def _num_bytes(row: Row) -> int:
    image: Any = row["image"]
    texts = sum(len(value) for value in row.values() if isinstance(value, str))
    return texts + (0 if image is None else len(image["bytes"]) + len(image["path"] or ""))
