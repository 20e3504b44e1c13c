"""Fetched pictures: files named by their content, and a SQLite table that says which link gave which, or why none."""

import csv
import hashlib
import os
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from product_vqa.command import InputError, writable_folder

_TABLE = """
CREATE TABLE IF NOT EXISTS pictures (
  link TEXT PRIMARY KEY,
  sha256 TEXT,       -- of the picture; NULL where there is none
  num_bytes INTEGER,
  failure TEXT       -- why there is none; NULL where there is one
) WITHOUT ROWID
"""


class ImageStore:
    """A folder that survives being killed at any moment: a file gets its name, and then its row, when it is whole.

    One thread records; any number of threads may `save`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = writable_folder(folder, flag="--image_store")
        try:
            self._state = sqlite3.connect(self.folder / "state.sqlite", isolation_level=None)
            # A row survives a killed process, and perhaps not a power cut: then its picture is fetched again.
            self._state.execute("PRAGMA journal_mode = WAL")
            self._state.execute("PRAGMA synchronous = NORMAL")
            self._state.execute(_TABLE)
        except sqlite3.DatabaseError as error:
            raise InputError(
                f"--image_store {folder}: state.sqlite cannot be used ({error}); choose another folder, "
                "or remove that file to fetch everything again"
            ) from error

    @contextmanager
    def filling(self) -> Iterator[None]:
        """Hold the store for one process that fetches. Raises InputError if another does."""
        try:
            with FileLock(self.folder / "filling.lock", timeout=0):
                for leftover in self.folder.glob("files/*/*.part"):
                    leftover.unlink()
                yield
        except Timeout as error:
            raise InputError(f"--image_store {self.folder}: another process is filling it; wait for it") from error

    def save(self, data: bytes) -> str:
        """Write a picture and return its sha256, under which the file is found."""
        sha256 = hashlib.sha256(data).hexdigest()
        file = self._file(sha256)
        if not self._is_whole(sha256, len(data)):
            file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as part:
                part.write(data)
            os.replace(part.name, file)
        return sha256

    def record(
        self, link: str, *, sha256: str | None = None, num_bytes: int | None = None, failure: str | None = None
    ):
        """Note what came of a link: a picture that is saved, or the reason why there is none."""
        assert (sha256 is None) != (failure is None)
        self._state.execute("REPLACE INTO pictures VALUES (?, ?, ?, ?)", (link, sha256, num_bytes, failure))

    def failures(self, links: Iterable[str]) -> dict[str, str]:
        """The reason for each link that has no picture here; a picture was decoded in full before it was recorded."""
        reasons = {}
        for link in links:
            sha256, num_bytes, failure = self._row(link)
            if failure is not None:
                reasons[link] = failure
            elif not self._is_whole(sha256, num_bytes):
                reasons[link] = "not_fetched"
        return reasons

    def pending(self, links: Iterable[str], *, retry_failed: bool) -> list[str]:
        """The links still to be fetched: never tried, or their file is gone, or failed and `retry_failed`."""
        return [link for link, reason in self.failures(links).items() if reason == "not_fetched" or retry_failed]

    def read(self, link: str) -> bytes:
        return self._file(self._row(link)[0]).read_bytes()

    def fingerprint(self) -> str:
        """Changes when a link's picture does."""
        digest = hashlib.sha256()
        for row in self._state.execute("SELECT link, sha256, failure FROM pictures ORDER BY link"):
            digest.update(f"{row}\n".encode())
        return digest.hexdigest()

    def write_failures(self) -> Path:
        """Write `failed.csv`: every link without a picture, and its reason."""
        file = self.folder / "failed.csv"
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["image_link", "reason"])
            writer.writerows(self._state.execute("SELECT link, failure FROM pictures WHERE failure IS NOT NULL"))
        return file

    def _row(self, link: str) -> tuple[str | None, int | None, str | None]:
        query = "SELECT sha256, num_bytes, failure FROM pictures WHERE link = ?"
        return self._state.execute(query, (link,)).fetchone() or (None, None, None)

    def _file(self, sha256: str) -> Path:
        return self.folder / "files" / sha256[:2] / sha256

    def _is_whole(self, sha256: str | None, num_bytes: int | None) -> bool:
        try:
            return sha256 is not None and self._file(sha256).stat().st_size == num_bytes
        except FileNotFoundError:
            return False


def count_reasons(reasons: Iterable[str]) -> Counter[str]:
    """How often each reason occurs, without its detail: `image_unreadable: OSError: ...` is `image_unreadable`."""
    return Counter(reason.partition(":")[0] for reason in reasons)
