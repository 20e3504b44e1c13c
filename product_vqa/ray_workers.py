"""What runs in a worker that Ray started. Without Ray itself: any process can call it.

A worker does one item after the other, and answers each with results or with an error, which the command raises.
"""

import hashlib
import os
import platform
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

import product_vqa
from product_vqa.errors import InputError
from product_vqa.machine_errors import explain_machine_error
from product_vqa.provenance import list_changes
from product_vqa.redaction import HIDDEN, hide_secrets

_PACKAGES = ("product_vqa", "dataset_builder", "inference")
# With another version of these, a worker could answer otherwise than this machine.
_LIBRARIES = (
    "pillow", "cykooz-resizer", "imagehash", "numpy", "pyarrow", "datasets", "torch", "transformers", "tokenizers",
    "peft", "huggingface_hub", "urllib3",
)  # fmt: skip
ITEM = "item"  # the column with the number of an item
MAX_ATTEMPTS = 6  # at an item: its image may be what kills workers
RESULTS = pa.schema(
    [
        pa.field("number", pa.int64()),  # of the item or a part of it, as the work numbers them
        pa.field("content", pa.binary()),
        pa.field("error", pa.string()),  # what an InputError says, and then nothing else; null without an error
        pa.field("traceback", pa.string()),  # of another error
        pa.field("node", pa.string()),
    ]
)


class Work(Protocol):
    """What a worker does. It is sent to every worker once."""

    def open(self) -> Callable[[Mapping[str, Any]], Iterable[tuple[int, bytes]]]:
        """Load what all items need; returns the function that does an item: numbers, and what is known of each."""


class Token:
    """The Hub's token on its way to the workers. As an environment variable of them it would be in Ray's logs."""

    def __init__(self, value: str | None) -> None:
        self._value = value

    def __repr__(self) -> str:
        return f"Token({HIDDEN})"

    def use(self) -> None:
        """Make it the token of this process."""
        if self._value is not None:
            os.environ["HF_TOKEN"] = self._value


class Attempts:
    """How often each item was begun."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, item: int) -> int:
        self._counts[item] += 1
        return self._counts[item]


@dataclass
class Worker:
    """A worker: checks once that it has the code of the command, and then does what it is given, an item a call.

    Ray Data creates one in each worker process and calls it with a table of one row.
    """

    work: Work
    environment: dict[str, str | None]  # of the command
    token: Token
    count_attempt: Callable[[int], int]  # gives how often an item was begun, with this time

    def __post_init__(self) -> None:
        self._do: Callable[[Mapping[str, Any]], Iterable[tuple[int, bytes]]] | None = None

    def __call__(self, items: pa.Table) -> pa.Table:
        try:
            if self._do is None:
                check_environment(self.environment)
                self.token.use()
                self._do = self.work.open()
            results = [result for item in items.to_pylist() for result in self._attempt(item)]
        except Exception as error:
            return self._failed(error)
        return self._table([{"number": number, "content": content} for number, content in results])

    def _attempt(self, item: dict[str, Any]) -> Iterable[tuple[int, bytes]]:
        assert self._do is not None
        if self.count_attempt(item.pop(ITEM)) > MAX_ATTEMPTS:
            raise InputError(
                f"workers died {MAX_ATTEMPTS} times at the same item. If their machines ran out of memory, rerun to "
                "resume with fewer `ray_workers`"
            )
        return self._do(item)

    def _failed(self, error: Exception) -> pa.Table:
        """The error as a result: raised, Ray would log it and hide it in pages of its own."""
        text = str(error) if isinstance(error, InputError) else explain_machine_error(error)
        if text is not None:
            return self._table([{"error": hide_secrets(text)}])
        return self._table([{"traceback": hide_secrets("".join(traceback.format_exception(error)))}])

    def _table(self, rows: list[dict[str, Any]]) -> pa.Table:
        return pa.Table.from_pylist([{"node": platform.node(), **row} for row in rows], schema=RESULTS)


def check_environment(expected: Mapping[str, str | None]) -> None:
    """Raise InputError unless this process has the code and the libraries that `expected` describes."""
    if changes := list_changes(expected, describe_environment()):
        raise InputError(
            f"`ray_address`: a machine of the cluster has other versions than this one ({changes}); install the same "
            "ones on all of them"
        )


@cache
def describe_environment() -> dict[str, str | None]:
    """The versions of Python, of this package, by content, and of the libraries that decide what a worker answers."""
    versions: dict[str, str | None] = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    versions["product-vqa"] = f"{product_vqa.__version__} ({_code_digest()})"
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name).partition("+")[0]  # torch's builds for a CPU and for CUDA
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _code_digest() -> str:
    root = Path(product_vqa.__file__).parents[1]
    digest = hashlib.sha256()
    for package in _PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            digest.update(f"{file.relative_to(root).as_posix()}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:8]
