"""Threads that may be abandoned: the end of a process neither waits for them nor is disturbed by them."""

import subprocess
import sys
import threading
import time

import pytest

from product_vqa.daemon_threads import DaemonExecutor

DECODING = """
import io, sys, time
import pyarrow as pa, pyarrow.parquet as pq
from product_vqa.daemon_threads import DaemonExecutor

file = io.BytesIO()
pq.write_table(pa.table({"image": [bytes(1000)] * 2000}), file)

def decode(number):
    return pq.ParquetFile(io.BytesIO(file.getvalue())).read_row_group(0, use_threads=False).to_pylist()[0]

executor = DaemonExecutor(4)
values = executor.map(decode, range(10_000))
next(values)
sys.exit(2)
"""

WAITING = """
import sys, time
from product_vqa.daemon_threads import DaemonExecutor, waiting

def read(number):
    with waiting():
        time.sleep(0 if number == 0 else 600)
    raise ValueError("the first one")

executor = DaemonExecutor(2)
next(executor.map(read, range(5)))
"""


@pytest.mark.parametrize("attempt", range(2))
def test_a_process_that_ends_while_threads_decode_keeps_its_exit_code(attempt: int) -> None:
    done = subprocess.run([sys.executable, "-c", DECODING], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "")


def test_a_process_does_not_wait_for_threads_that_wait_for_the_hub() -> None:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", WAITING], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "ValueError: the first one" in done.stderr
    assert time.monotonic() - began < 20


def test_results_are_in_order_and_an_error_cancels_what_has_not_begun() -> None:
    executor = DaemonExecutor(3)
    assert list(executor.map(lambda number: number * 2, range(100))) == list(range(0, 200, 2))
    begun = []

    def fail(number: int) -> None:
        begun.append(number)
        if number:
            time.sleep(0.1)
        raise ValueError(number)

    with pytest.raises(ValueError, match=r"^0$"):
        list(executor.map(fail, range(100)))
    executor.shutdown()
    assert len(begun) < 50


def test_its_threads_end_when_it_is_shut_down_and_pending_calls_are_cancelled() -> None:
    before = set(threading.enumerate())
    executor = DaemonExecutor(2)
    gate = threading.Event()
    futures = [executor.submit(gate.wait, 20) for _ in range(5)]
    executor.shutdown()
    gate.set()
    assert futures[0].result(20) is True
    assert futures[4].cancelled()
    until = time.monotonic() + 20
    while set(threading.enumerate()) - before:
        assert time.monotonic() < until
        time.sleep(0.01)
