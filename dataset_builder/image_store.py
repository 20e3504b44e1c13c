"""Fetched pictures: files named by their content, and a SQLite table that says what came of each link."""

import csv
import hashlib
import os
import shutil
import sqlite3
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from dataset_builder.image_preparation import Picture
from dataset_builder.options import PictureOptions
from product_vqa.errors import InputError, argument
from product_vqa.paths import writable_folder

FAILURES_FILE = "failed.csv"
_STATE_FILE = "state.sqlite"
_VERSION = 2  # of the tables
_TABLES = f"""
CREATE TABLE IF NOT EXISTS links (
  link TEXT PRIMARY KEY,
  status TEXT NOT NULL,    -- stored | failed (another try could succeed) | refused (it could not)
  reason TEXT NOT NULL,    -- why there is no picture, `token` or `token: detail`; '' where there is one
  http_status INTEGER,     -- of the last answer; NULL where there was none
  tries INTEGER NOT NULL,
  seconds REAL NOT NULL,   -- fetching, waiting and preparing
  finished_at TEXT NOT NULL,
  num_bytes INTEGER, width INTEGER, height INTEGER,  -- of what is stored, as is all that follows
  sha256 TEXT,
  phash INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS settings (image_size INTEGER NOT NULL);
PRAGMA user_version = {_VERSION};
"""
NOT_FETCHED = "not_fetched"


class Status(StrEnum):
    STORED = "stored"
    FAILED = "failed"  # another try could succeed: --retry_failed
    REFUSED = "refused"  # it could not


class LinkState(NamedTuple):
    """What came of a link, in the order of the table's columns."""

    link: str
    status: str
    reason: str = ""
    http_status: int | None = None
    tries: int = 0
    seconds: float = 0
    finished_at: str = ""
    num_bytes: int | None = None
    width: int | None = None
    height: int | None = None
    sha256: str | None = None
    phash: int | None = None


class ImageStore:
    """A folder that survives being killed at any moment: a file gets its name, and then its row, when it is whole.

    One thread records; any number of threads may `save`. All pictures of a store are fitted to one `image_size`, that
    of its first use; None: to that, or to the default in a new one. Where it is another one InputError is raised.
    One that cannot be written is read as it is (`is_read_only`).
    """

    def __init__(self, folder: str | Path, *, image_size: int | None = None) -> None:
        self.folder = Path(folder)
        state_file = self.folder / _STATE_FILE
        # Of a read-only disk (Kaggle's inputs, say) or of somebody else's.
        self.is_read_only = state_file.is_file() and not (
            os.access(self.folder, os.W_OK | os.X_OK) and os.access(state_file, os.W_OK)
        )
        if not self.is_read_only:
            with argument("image_store"):
                writable_folder(folder)
        try:
            if self.is_read_only:
                self._state = self._connect_read_only(state_file)
            else:
                self._state = sqlite3.connect(state_file, isolation_level=None)
                # A row survives a killed process, and perhaps not a power cut: then its picture is fetched again.
                self._state.execute("PRAGMA journal_mode = WAL")
                self._state.execute("PRAGMA synchronous = NORMAL")
            version = self._state.execute("PRAGMA user_version").fetchone()[0]
            is_empty = not self._state.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if version != _VERSION and not is_empty:
                raise sqlite3.DatabaseError(f"made by another version of this command: tables {version}")
            if not self.is_read_only:
                self._state.executescript(_TABLES)
            elif is_empty:
                raise sqlite3.DatabaseError("it holds nothing, and cannot be written")
        except (sqlite3.DatabaseError, OSError) as error:
            raise InputError(
                f"--image_store {folder}: state.sqlite cannot be used ({error}); choose another folder, "
                "or remove that file to fetch everything again"
            ) from error
        self.image_size = self._image_size(image_size)

    def _connect_read_only(self, state_file: Path) -> sqlite3.Connection:
        """SQLite would make files beside the table even to read it: `immutable` says that nobody writes. It leaves out
        what a killed process left in the log, so a table with a log is copied."""
        log = state_file.with_name(f"{_STATE_FILE}-wal")
        if not log.is_file() or not log.stat().st_size:
            return sqlite3.connect(
                f"{state_file.resolve().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None
            )
        self._copy = tempfile.TemporaryDirectory(prefix="image-store-")
        for file in (state_file, log):
            shutil.copyfile(file, Path(self._copy.name, file.name))
        return sqlite3.connect(Path(self._copy.name, _STATE_FILE), isolation_level=None)

    def _image_size(self, asked: int | None) -> int:
        found = self._state.execute("SELECT image_size FROM settings").fetchone()
        if found is None:
            found = (PictureOptions().image_size if asked is None else asked,)
            self._state.execute("INSERT INTO settings VALUES (?)", found)
        if asked not in (None, found[0]):
            raise InputError(
                f"--image_store {self.folder}: its pictures were stored with --image_size {found[0]}, not {asked}; "
                "say the same again, or choose another folder"
            )
        return found[0]

    @contextmanager
    def filling(self) -> Iterator[None]:
        """Hold the store for one process that fetches. Raises InputError if another does."""
        try:
            with FileLock(self.folder / "filling.lock", timeout=0):
                for leftover in self.folder.glob("files/*/*.part"):
                    leftover.unlink()
                yield
                # So that whoever copies the folder copies one file.
                self._state.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except Timeout as error:
            raise InputError(f"--image_store {self.folder}: another process is filling it; wait for it") from error

    def save(self, picture: Picture) -> None:
        """Write a picture's bytes to the file that bears their sha256."""
        if not self._is_whole(picture.sha256, len(picture.data)):
            file = self._file(picture.sha256)
            part = f"{file}.{threading.get_ident()}.part"
            os.makedirs(os.path.dirname(file), exist_ok=True)
            with open(part, "wb") as stream:
                stream.write(picture.data)
            os.replace(part, file)

    def record(self, state: LinkState) -> None:
        """Note what came of a link; a picture is saved before."""
        assert (state.status == Status.STORED) == (state.sha256 is not None)
        self._state.execute(f"REPLACE INTO links VALUES ({', '.join('?' * len(state))})", state)

    def state(self, link: str) -> LinkState:
        """A picture was decoded in full before it was recorded; one whose file is gone counts as never fetched."""
        row = self._state.execute("SELECT * FROM links WHERE link = ?", (link,)).fetchone()
        state = LinkState(*row) if row else LinkState(link, Status.FAILED, NOT_FETCHED)
        if state.status == Status.STORED and not self._is_whole(state.sha256, state.num_bytes):
            return LinkState(link, Status.FAILED, NOT_FETCHED)
        return state

    def failures(self, links: Iterable[str]) -> dict[str, str]:
        """The reason for each link that has no picture here."""
        states = map(self.state, links)
        return {state.link: state.reason for state in states if state.status != Status.STORED}

    def failed(self) -> list[tuple[str, str]]:
        """Every link that failed and could succeed, with the reason."""
        return self._state.execute("SELECT link, reason FROM links WHERE status = ?", (Status.FAILED,)).fetchall()

    def pending(self, links: Iterable[str], *, retry: Callable[[LinkState], bool]) -> list[str]:
        """The links still to be fetched: never tried, or their file is gone, or failed though they could succeed and
        `retry` says so."""
        return [
            state.link
            for state in map(self.state, links)
            if state.reason == NOT_FETCHED or (state.status == Status.FAILED and retry(state))
        ]

    def mean_bytes(self) -> tuple[int, float]:
        """How many links have an image, and the mean size of these."""
        num_images, mean = self._state.execute(
            "SELECT count(*), avg(num_bytes) FROM links WHERE status = ?", (Status.STORED,)
        ).fetchone()
        return num_images, mean or 0.0

    def sizes(self) -> dict[str, int]:
        """The bytes of every link's image."""
        return dict(self._state.execute("SELECT link, num_bytes FROM links WHERE status = ?", (Status.STORED,)))

    def read(self, link: str) -> bytes:
        with open(self._file(self.state(link).sha256), "rb") as stream:
            return stream.read()

    def fingerprint(self) -> str:
        """Changes when a link's picture does."""
        digest = hashlib.sha256()
        for row in self._state.execute("SELECT link, sha256, phash, reason FROM links ORDER BY link"):
            digest.update(f"{row}\n".encode(errors="surrogatepass"))
        return digest.hexdigest()

    def write_failures(self) -> None:
        """Write FAILURES_FILE: every link without a picture, and what is known about it."""
        file = self.folder / FAILURES_FILE
        columns = ("link", "reason", "status", "http_status", "tries", "seconds", "finished_at")
        query = f"SELECT {', '.join(columns)} FROM links WHERE status != ? ORDER BY link"
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["image_link", *columns[1:]])
            writer.writerows(self._state.execute(query, (Status.STORED,)))

    def _file(self, sha256: str) -> str:
        return f"{self.folder}/files/{sha256[:2]}/{sha256}"  # five times a picture, where a Path takes its time

    def _is_whole(self, sha256: str | None, num_bytes: int | None) -> bool:
        try:
            return sha256 is not None and os.stat(self._file(sha256)).st_size == num_bytes
        except FileNotFoundError:
            return False


def count_reasons(reasons: Iterable[str]) -> Counter[str]:
    """How often each reason occurs, without its detail: `image_unreadable: OSError: ...` is `image_unreadable`."""
    return Counter(reason.partition(":")[0] for reason in reasons)
