"""Row groups are read once each, by threads, ahead of their rows; an error is raised where a row of it is taken."""

import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from product_vqa.errors import InputError
from training import read_ahead
from training.read_ahead import ReadAhead

SIZE = 5  # rows per row group


class Source:
    """Row groups of five rows; counts what is read, and how many rows of the reader are in memory then."""

    def __init__(self, *, bad_group: int = -1) -> None:
        self.reads: list[int] = []
        self.threads: set[str] = set()
        self._bad_group = bad_group

    def read(self, group: int) -> Mapping[int, dict[str, Any]]:
        self.reads.append(group)
        self.threads.add(threading.current_thread().name)
        if group == self._bad_group:
            raise InputError("row group 3 is damaged")
        rows = range(group * SIZE, (group + 1) * SIZE)
        return {row: {"index": row, "image": {"bytes": b"x" * 100, "path": None}} for row in rows}

    def ahead(self, upcoming: list[int], *, max_rows: int = 20) -> ReadAhead:
        return ReadAhead(
            self.read, lambda rows: rows // SIZE, upcoming=np.array(upcoming, dtype=np.int64), max_rows=max_rows
        )


def indexes(rows: list[Any]) -> list[int]:
    return [row["index"] for row in rows]


@settings(max_examples=50)
@given(st.permutations(range(40)), st.integers(1, 40), st.integers(1, 6))
def test_rows_are_taken_in_any_order_and_each_row_group_is_read_once(
    order: list[int], max_rows: int, batch: int
) -> None:
    source = Source()
    reader = source.ahead(order, max_rows=max_rows)
    taken = [row for start in range(0, 40, batch) for row in indexes(reader.take(order[start : start + batch]))]
    assert taken == order
    assert sorted(source.reads) == list(range(8))
    assert not reader._rows and not reader._groups and reader._num_rows == reader._num_bytes == 0
    reader.close()


def test_the_next_row_groups_are_read_by_other_threads_within_the_limit_of_rows() -> None:
    source = Source()
    reader = source.ahead(list(range(100)), max_rows=20)
    reader.take([0])
    wait_until(lambda: len(source.reads) == 4)
    time.sleep(0.05)
    assert sorted(source.reads) == [0, 1, 2, 3]
    assert threading.current_thread().name not in source.threads
    reader.take([1, 2, 3, 4])
    wait_until(lambda: len(source.reads) == 5)
    reader.close()


def test_a_row_that_is_taken_twice_is_held_until_then() -> None:
    source = Source()
    reader = source.ahead([0, 7, 0, 8])
    assert indexes(reader.take([0, 7])) == [0, 7]
    assert set(reader._rows) == {0, 8}  # of the others of their row groups, nothing is held
    assert indexes(reader.take([0, 8])) == [0, 8]
    assert source.reads == [0, 1] or source.reads == [1, 0]
    reader.close()


def test_any_other_row_can_be_taken_too() -> None:
    source = Source()
    reader = source.ahead([0, 1])
    assert indexes(reader.take([33, 34, 0, 1, 0])) == [33, 34, 0, 1, 0]
    assert source.reads.count(6) == 1
    reader.close()


def test_what_reading_raises_is_raised_where_a_row_of_it_is_taken() -> None:
    source = Source(bad_group=3)
    reader = source.ahead(list(range(40)), max_rows=40)
    for row in range(15):
        reader.take([row])
    for _ in range(2):
        with pytest.raises(InputError, match="row group 3 is damaged"):
            reader.take([15])
    reader.close()


def test_a_row_group_that_could_not_be_read_ahead_is_read_again_when_a_row_of_it_is_taken() -> None:
    """The Hub may have failed long before: a buffer of 10,000 rows lasts for half an hour on a slow machine."""
    source = Source(bad_group=3)
    reader = source.ahead(list(range(40)), max_rows=40)
    reader.take([0])
    wait_until(lambda: len(source.reads) == 8)
    source._bad_group = -1
    assert indexes(reader.take(list(range(1, 40)))) == list(range(1, 40))
    assert sorted(source.reads) == [0, 1, 2, 3, 3, 4, 5, 6, 7]
    assert not reader._rows and not reader._groups and reader._num_rows == reader._num_bytes == 0
    reader.close()


def test_a_thread_that_waits_for_a_row_does_not_wait_for_ever_when_the_reader_is_closed() -> None:
    source, gate = Source(), threading.Event()
    reader = source.ahead(list(range(100)), max_rows=100)
    read = source.read

    def read_slowly(group: int) -> Mapping[int, dict[str, Any]]:
        gate.wait(20)
        return read(group)

    reader._read = read_slowly
    ended: list[BaseException] = []

    def take(row: int) -> None:
        try:
            reader.take([row])
        except BaseException as error:
            ended.append(error)

    threads = [threading.Thread(target=take, args=(row,)) for row in (0, 90)]  # row 90 is far back in the queue
    for thread in threads:
        thread.start()
    wait_until(lambda: len(reader._groups) == 20)
    time.sleep(0.05)
    reader.close()
    gate.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert [type(error).__name__ for error in ended] in (["CancelledError"], [])


def test_rows_beyond_the_limit_of_memory_end_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "MAX_HELD_BYTES", 1_200)
    reader = Source().ahead(list(range(40)), max_rows=40)
    with pytest.raises(InputError, match="wait for their step take more than 1200 bytes of memory; lower `shuffle_b"):
        reader.take(list(range(40)))
    reader.close()


def test_several_threads_take_rows_at_once() -> None:
    source = Source()
    order = np.random.default_rng(0).permutation(500).tolist()
    reader = source.ahead(order, max_rows=60)
    taken: list[int] = []

    def take(part: list[int]) -> None:
        for row in part:
            taken.extend(indexes(reader.take([row])))

    threads = [threading.Thread(target=take, args=(order[number::3],)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(taken) == list(range(500))
    assert len(source.reads) == 100
    reader.close()


def test_its_threads_end_when_it_is_closed_and_nothing_more_is_read() -> None:
    before = set(threading.enumerate())
    source = Source()
    reader = source.ahead(list(range(500)), max_rows=10)
    reader.take([0])
    assert set(threading.enumerate()) - before
    reader.close()
    wait_until(lambda: not set(threading.enumerate()) - before)
    read = len(source.reads)
    assert read < 10


def wait_until(is_so: Any) -> None:
    until = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.005)
