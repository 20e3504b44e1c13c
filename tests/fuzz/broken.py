"""Targets that fail in each way that the fuzzer has to notice; only its own tests run them."""

import ctypes
import time

from product_vqa.errors import InputError
from tests.fuzz.target import Target

_kept: list[bytes] = []


def _raise(data: bytes) -> None:
    if b"x" in data:
        raise KeyError("not in the contract")


def _keep_to_the_contract(data: bytes) -> None:
    try:
        raise InputError("refused")
    except InputError:
        pass


def _compute(data: bytes) -> None:
    if b"x" in data:
        started = time.process_time()
        while time.process_time() < started + 1:
            pass


def _wait(data: bytes) -> None:
    if b"x" in data:
        time.sleep(3600)


def _die(data: bytes) -> None:
    if b"x" in data:
        ctypes.string_at(0)


def _leak(data: bytes) -> None:
    _kept.append(bytes(2**20))


def _seeds() -> list[bytes]:
    return [b"good", b"before x after", b"other"]


TARGETS = [
    Target("broken_not", _keep_to_the_contract, _seeds),
    Target("broken_raise", _raise, _seeds),
    Target("broken_compute", _compute, _seeds),
    Target("broken_wait", _wait, _seeds),
    Target("broken_die", _die, _seeds),
    Target("broken_leak", _leak, _seeds),
]
