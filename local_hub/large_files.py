"""Large files, each under the sha256 of its content; git holds a pointer to it, as Git LFS writes it.

Every repo has a store of its own: to know the sha256 of a file in a private repo is not to have the file.
"""

import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local_hub.errors import HubError

POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d{1,19})\n")
POINTER_SIZE_MAX = 200
OID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Pointer:
    oid: str  # sha256 of the content
    size: int

    def format(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.oid}\nsize {self.size}\n".encode()


def parse_pointer(content: bytes) -> Pointer | None:
    match = POINTER.fullmatch(content)
    return Pointer(match[1].decode(), int(match[2])) if match else None


class LargeFiles:
    def __init__(self, folder: Path, *, arrivals: Path) -> None:
        self.folder = folder
        self._arrivals = arrivals  # in the same file system, so that a finished file appears by renaming

    def find(self, oid: object) -> Path | None:
        if not isinstance(oid, str) or not OID.fullmatch(oid):
            return None
        path = self.folder / oid[:2] / oid
        # A link would lead out of the store.
        return path if path.is_file() and path.resolve() == path else None

    @contextmanager
    def receive(self, pointer: Pointer) -> Iterator[Callable[[bytes], None]]:
        """Take in the content of `pointer`, through the function that this gives.

        A mismatch, an error or a kill leaves nothing in the store.
        """
        path = self._arrivals / secrets.token_hex(16)
        sha256, size = hashlib.sha256(), 0

        def write(chunk: bytes) -> None:
            nonlocal size
            size += len(chunk)
            if size > pointer.size:
                raise HubError(400, f"large file {pointer.oid}: more than the {pointer.size} bytes announced")
            sha256.update(chunk)
            file.write(chunk)

        try:
            with path.open("xb") as file:
                yield write
            if size != pointer.size:
                raise HubError(400, f"large file {pointer.oid}: expected {pointer.size} bytes, got {size}")
            if sha256.hexdigest() != pointer.oid:
                raise HubError(400, f"large file {pointer.oid}: the sha256 of what arrived is {sha256.hexdigest()}")
            folder = self.folder / pointer.oid[:2]
            folder.mkdir(exist_ok=True)  # not its parents: the repo may have been deleted meanwhile
            os.replace(path, folder / pointer.oid)
        finally:
            path.unlink(missing_ok=True)
