"""The numbers that labels print, and the tenth of them that only test images show.

**Held-out numbers.** A tenth of all numbers (`is_held_out`) is printed on test images only, whatever the numbers mean.
A correct prediction about a test image was therefore read and not remembered. The printed numbers are 10..99 (15
of 90 are held out), 100..999 (94 of 900), 1000..9999 (910 of 9000), 0.1..99.9 (73 of 900) and 0.01..9.99 (93 of 900).
The digits 1..9 are printed on all images: a model that has never seen a lone 3 takes it for the start of a longer
number.
"""

import random
import re
import zlib
from collections.abc import Sequence
from functools import cache

_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def is_held_out(number: str) -> bool:
    """Whether a number, as printed, is in the tenth that only test images show. A single digit never is."""
    return len(number) > 1 and zlib.crc32(number.encode()) % 10 == 1


def may_show(number: str, *, held_out: bool) -> bool:
    """Whether an image may show this number: a test image with `held_out`, any other image without."""
    return len(number) == 1 or is_held_out(number) == held_out


def numbers_in(text: str) -> list[str]:
    """All numbers in a printed text: `AX-340` has one, `16.9 FL OZ (500 mL)` has two."""
    return _NUMBER.findall(text)


@cache
def all_numbers(size: str, held_out: bool) -> tuple[str, ...]:
    """All numbers of a size that an image may show. A size is the largest number of its kind, or `round`."""
    return tuple(number for number in _numbers_of_size(size) if may_show(number, held_out=held_out))


def _numbers_of_size(size: str) -> list[str]:
    match size:
        case "9":
            return [str(number) for number in range(1, 10)]
        case "99":
            return [str(number) for number in range(10, 100)]
        case "999":
            return [str(number) for number in range(100, 1000)]
        case "9999":
            return [str(number) for number in range(1000, 10000)]
        case "round":
            return [str(number) for number in (*range(10, 1000, 10), *range(1000, 10000, 500))]
        case "9.9":
            return [f"{whole}.{tenth}" for whole in range(100) for tenth in range(1, 10)]
        case "9.99":
            return [f"{hundredths // 100}.{hundredths % 100:02}" for hundredths in range(1, 1000) if hundredths % 10]
    raise ValueError(f"no such size of numbers: {size!r}")


def draw_number(rng: random.Random, sizes: Sequence[str], *, held_out: bool) -> str:
    """A random number of one of these sizes. A size that is listed twice is twice as likely."""
    return rng.choice(all_numbers(rng.choice(sizes), held_out))
