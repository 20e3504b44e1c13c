"""What a target of the fuzzer is, and the assertions that several targets share."""

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    name: str
    fuzz: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    max_bytes: int = 16 * 1024  # of almost all cases: small ones are quick, and a few large ones show quadratic time
    words: tuple[bytes, ...] = ()  # that mutations insert
    generate: Callable[[random.Random], bytes] | None = None  # a structured case; it is mutated half of the time


def text_of(data: bytes) -> str:
    """Any bytes as text. What is not UTF-8 becomes lone surrogates, which JSON can hold too."""
    return data.decode("utf-8", "surrogateescape")


def assert_message(error: BaseException, *, names: str = "") -> None:
    """An error says something, and has `names` in it. A command prints it as one line, whatever it quotes."""
    message = str(error)
    assert message.strip(), "an error without a message"
    assert names in message


def assert_one_line(error: BaseException) -> None:
    """The message of an error that is recorded in a file is one line itself."""
    assert_message(error)
    assert len(str(error).splitlines()) == 1, f"an error of several lines: {str(error)[:300]!r}"
