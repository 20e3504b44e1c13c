"""Mutations of seeds: bits, numbers, chunks, lines, words of the format, and two seeds spliced."""

import random
import re
from collections.abc import Callable, Sequence

MAX_BYTES = 256 * 1024  # of a case
_BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFF, 0x0A, 0x0D, 0x22, 0x20, 0x2C, 0x3A, 0x5B, 0x5D, 0x7B, 0x7D)
_NUMBERS = (
    b"0", b"-1", b"1", b"255", b"256", b"65535", b"65536", b"2147483647", b"2147483648", b"4294967296",
    b"9223372036854775807", b"9223372036854775808", b"-9223372036854775809", b"1e400", b"1e-400", b"1e9999999999",
    b"NaN", b"Infinity", b"9" * 400, b"9" * 5000, b"0x10", b"1_000", b"0.1", b".5", b"5.", b"\xd9\xa3", b"\xc2\xb2",
)  # fmt: skip
_TEXTS = (
    b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\xe2\x80\xa8", b"\xc2\xa0", b"\xc2\x85", b"\x1b[2J",
    b"\x00", b"../",
    b"/etc/passwd", b"%2f", b"%00", b"{}", b"[]", b'""', b"null", b"true", b"\r\n", b"\n\n", b"'", b"\\", b"\\u0000",
    b"\\ud800", b"=1+1", b"<script>", b"${x}", b"{0.__class__}", b"%s%n", b"!!python/object:os.system", b"&a [*a]",
)  # fmt: skip
_DIGITS = re.compile(rb"[0-9]+")

Mutation = Callable[[random.Random, bytearray, Sequence[bytes], Sequence[bytes]], None]


def _span(rng: random.Random, data: bytearray) -> tuple[int, int]:
    """A chunk of the data; most are short."""
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + int(2 ** (rng.random() * rng.choice((3, 6, 12)))))


def _flip(rng: random.Random, data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice(_BYTES)


def _set_integer(rng: random.Random, data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    """A field of 2, 4 or 8 bytes, as in the headers of images."""
    size = rng.choice((2, 4, 8))
    if len(data) >= size:
        start = rng.randrange(len(data) - size + 1)
        value = rng.choice((0, 1, 2 ** (8 * size) - 1, 2 ** (8 * size - 1), 1000, 20_001, rng.getrandbits(8 * size)))
        data[start : start + size] = value.to_bytes(size, rng.choice(("big", "little")))


def _delete(rng: random.Random, data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    start, end = _span(rng, data)
    del data[start:end]


def _repeat(rng: random.Random, data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    start, end = _span(rng, data)
    times = rng.choice((1, 1, 1, 1, 1, 2, 2, 3, 10, 1000 if rng.random() < 0.2 else 30))
    data[start:start] = bytes(data[start:end]) * times


def _move(rng: random.Random, data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    start, end = _span(rng, data)
    chunk = bytes(data[start:end])
    del data[start:end]
    position = rng.randrange(len(data) + 1)
    data[position:position] = chunk


def _truncate(rng: random.Random, data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _insert_word(rng: random.Random, data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    word = rng.choice(words) if words and rng.random() < 0.7 else rng.choice(_TEXTS)
    start, end = _span(rng, data) if rng.random() < 0.3 else (rng.randrange(len(data) + 1),) * 2
    data[start:end] = word


def _insert_random(rng: random.Random, data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    position = rng.randrange(len(data) + 1)
    data[position:position] = rng.randbytes(rng.randrange(1, 9))


def _replace_number(rng: random.Random, data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    matches = list(_DIGITS.finditer(data[:4096]))
    if matches:
        match = rng.choice(matches)
        data[match.start() : match.end()] = rng.choice(_NUMBERS)


def _swap_lines(rng: random.Random, data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    lines = bytes(data).split(b"\n")
    first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]
    data[:] = b"\n".join(lines)


def _splice(rng: random.Random, data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    other = rng.choice(seeds)
    start = rng.randrange(len(data) + 1)
    data[start:] = other[rng.randrange(len(other) + 1) :]


MUTATIONS: tuple[Mutation, ...] = (
    _flip, _set, _set_integer, _delete, _repeat, _move, _truncate, _insert_word, _insert_word, _insert_random,
    _replace_number, _swap_lines, _splice,
)  # fmt: skip


def mutate(
    rng: random.Random, data: bytes, *, seeds: Sequence[bytes], words: Sequence[bytes], max_bytes: int = MAX_BYTES
) -> bytes:
    """Apply one to eight mutations; few are more likely, so that most of the structure survives.

    One case in 500 may be larger than `max_bytes`, and is then mostly one repeated chunk.
    """
    changed = bytearray(data)
    if rng.random() < 0.002:
        max_bytes = MAX_BYTES
        start, end = _span(rng, changed)
        changed[start:start] = bytes(changed[start:end]) * (rng.randrange(MAX_BYTES) // max(1, end - start))
    for _ in range(1 + int(8 * rng.random() ** 3)):
        rng.choice(MUTATIONS)(rng, changed, seeds, words)
        del changed[max_bytes:]
    return bytes(changed)
