"""LFS files: the patterns that select them, the pointers that git holds, and the store of their contents.

A store holds each content once, under its sha256. Every repo has a store of its own, so that the sha256 of a file in
a private repo is not enough to get the file.
"""

import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local_hub.errors import HubError
from local_hub.patterns import PatternList

FREE_SPACE_MIN = 100_000_000  # bytes of disk that an upload must leave
REGULAR_SIZE_MAX = 10_000_000  # bytes; a larger file is an LFS file whatever its name
# The Hub writes these patterns into the .gitattributes of a new repo.
_PATTERNS = """
*.7z *.arrow *.avro *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lz4 *.mlmodel *.model *.msgpack *.npy *.npz *.onnx
*.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors saved_model/**/* *.tar.* *.tar *.tflite *.tgz *.wasm
*.xz *.zip *.zst *tfevents* *.bmp *.gif *.jpeg *.jpg *.png *.tiff *.webp *.flac *.mp3 *.ogg *.wav *.mp4 *.webm
"""
LFS_PATTERNS = _PATTERNS.split()

# The format: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d{1,19})\n")
POINTER_SIZE_MAX = 200
SHA256 = re.compile(r"[0-9a-f]{64}")


def is_lfs_file(path: str, *, size: int, patterns: PatternList) -> bool:
    """Whether a file is uploaded as an LFS file, given the patterns of the repo's .gitattributes."""
    return size > REGULAR_SIZE_MAX or patterns.is_matched(path)


def format_attributes(patterns: Iterable[str]) -> str:
    return "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in patterns)


def parse_attributes(text: str) -> list[str]:
    """The patterns of the LFS files in a .gitattributes."""
    return [line.split()[0] for line in text.splitlines() if "filter=lfs" in line.split()[1:]]


def parse_gitignore(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def is_matched(path: str, *, patterns: Sequence[str]) -> bool:
    """Whether `path` or a folder above it matches the patterns of a .gitattributes or .gitignore."""
    return PatternList(patterns).is_matched(path)


@dataclass(frozen=True)
class Pointer:
    oid: str  # sha256 of the content
    size: int  # bytes

    def format(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.oid}\nsize {self.size}\n".encode()


def parse_pointer(content: bytes) -> Pointer | None:
    match = POINTER.fullmatch(content)
    return Pointer(match[1].decode(), int(match[2])) if match else None


_intact: set[tuple[int, ...]] = set()  # the files that this process has written, or checked


def _identity(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class LfsStore:
    """The contents of one repo's LFS files, in `folder`."""

    def __init__(self, folder: Path, *, tmp_dir: Path) -> None:
        self.folder = folder
        self._tmp_dir = tmp_dir  # on the same file system, so that a rename moves a complete file into the store

    def find(self, oid: object) -> Path | None:
        """The file with this sha256; None if there is none, or if the disk has damaged it: an upload replaces it then.

        Each process reads a file once to check it. That takes about a second per GB.
        """
        if not isinstance(oid, str) or not SHA256.fullmatch(oid):
            return None
        path = self.folder / oid[:2] / oid
        # A symbolic link could lead out of the store.
        if not path.is_file() or path.resolve() != path:
            return None
        if _identity(path) not in _intact:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != oid:
                    return None
            _intact.add(_identity(path))
        return path

    def holds(self, pointer: Pointer) -> bool:
        """Whether the content of `pointer` is stored, with its size."""
        path = self.find(pointer.oid)
        return path is not None and path.stat().st_size == pointer.size

    @contextmanager
    def receive(self, pointer: Pointer) -> Iterator[Callable[[bytes], None]]:
        """Yield the function that takes the content of `pointer`, chunk by chunk.

        The file is stored when the block ends. A mismatch, an error or a kill leaves nothing in the store. Until
        `mark_committed`, it is writable: this is how the next start of the hub knows what no commit refers to.
        """
        if shutil.disk_usage(self._tmp_dir).free < pointer.size + FREE_SPACE_MIN:
            raise HubError(507, f"LFS file {pointer.oid}: no space left for {pointer.size} bytes")
        path = self._tmp_dir / secrets.token_hex(16)
        sha256 = hashlib.sha256()
        size = 0

        def write(chunk: bytes) -> None:
            nonlocal size
            size += len(chunk)
            sha256.update(chunk)
            file.write(chunk)

        try:
            with path.open("xb") as file:
                yield write
            if size != pointer.size:
                raise HubError(400, f"LFS file {pointer.oid}: expected {pointer.size} bytes, got {size}")
            if sha256.hexdigest() != pointer.oid:
                raise HubError(400, f"LFS file {pointer.oid}: the sha256 of the content is {sha256.hexdigest()}")
            folder = self.folder / pointer.oid[:2]
            folder.mkdir(exist_ok=True)  # without its parents: the repo may have been deleted during the upload
            os.replace(path, folder / pointer.oid)
            _intact.add(_identity(folder / pointer.oid))
        finally:
            path.unlink(missing_ok=True)

    def mark_committed(self, oid: str) -> None:
        path = self.find(oid)
        if path is not None:
            path.chmod(0o444)

    def list_uncommitted(self, *, older_than_s: float) -> list[Path]:
        """The files that no commit refers to, as far as is known, and that were uploaded so many seconds ago."""
        newest = time.time() - older_than_s
        found = []
        for path in self.folder.glob("*/*"):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IWUSR and status.st_mtime <= newest:
                found.append(path)
        return found
