"""The store of downloaded images: files named by their content, and a SQLite table with the outcome for each URL."""

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

from dataset_builder.image_preparation import PreparedImage
from dataset_builder.options import ImageOptions
from product_vqa.errors import InputError, argument
from product_vqa.paths import writable_folder

FAILURES_FILE = "failed.csv"
STATE_FILE = "state.sqlite"
_VERSION = 2  # of the tables
_TABLES = f"""
CREATE TABLE IF NOT EXISTS links (
  link TEXT PRIMARY KEY,   -- the URL
  status TEXT NOT NULL,    -- stored | failed (another run could succeed) | refused (it could not)
  reason TEXT NOT NULL,    -- why there is no image, `token` or `token: detail`; '' if there is one
  http_status INTEGER,     -- of the last response; NULL if there was none
  tries INTEGER NOT NULL,
  seconds REAL NOT NULL,   -- fetching, waiting and preparing
  finished_at TEXT NOT NULL,
  num_bytes INTEGER, width INTEGER, height INTEGER,  -- from here on: of the stored image
  sha256 TEXT,
  phash INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS settings (image_size INTEGER NOT NULL);
PRAGMA user_version = {_VERSION};
"""
NOT_FETCHED = "not_fetched"


class Status(StrEnum):
    STORED = "stored"
    FAILED = "failed"  # another run could succeed, with retry_failed
    REFUSED = "refused"  # it could not


class StoredImage(NamedTuple):
    """What is known about an image without reading its file."""

    num_bytes: int
    width: int
    height: int
    sha256: str
    phash: int  # 64 bits, signed


class UrlState(NamedTuple):
    """The outcome for a URL, in the order of the table's columns."""

    url: str
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

    @property
    def image(self) -> StoredImage | None:
        if self.status != Status.STORED:
            return None
        values = (self.num_bytes, self.width, self.height, self.sha256, self.phash)
        return StoredImage(*values)  # type: ignore[arg-type]  # of a stored image all are known


class ImageStore:
    """A folder of images that survives a kill at any moment: a file gets its name, and then its row, once complete.

    One thread records; any number of threads may `save`. All images of a store have one `image_size`, set when the
    store is created. None means that size, or the default for a new store. InputError is raised for any other size.
    A store that cannot be written can still be read (`is_read_only`).
    """

    def __init__(self, folder: str | Path, *, image_size: int | None = None) -> None:
        self.folder = Path(folder)
        state_file = self.folder / STATE_FILE
        # On a read-only disk (Kaggle's inputs, for instance), or owned by somebody else.
        self.is_read_only = state_file.is_file() and not (
            os.access(self.folder, os.W_OK | os.X_OK) and os.access(state_file, os.W_OK)
        )
        if not self.is_read_only:
            with argument("image_store"):
                writable_folder(folder)
        try:
            self._state = self._connect(state_file)
        except (sqlite3.DatabaseError, OSError) as error:
            raise InputError(
                f"`image_store` {folder}: {STATE_FILE} cannot be used ({error}); choose another folder, "
                "or remove that file to download everything again"
            ) from error
        self.image_size = self._settle_image_size(image_size)

    @classmethod
    def temporary(cls, parent: str | Path, *, image_size: int) -> "ImageStore":
        """A store in a new folder in `parent`. The folder is removed together with the object."""
        Path(parent).mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=parent, prefix="images-")
        store = cls(folder.name, image_size=image_size)
        store._folder_to_remove = folder
        return store

    def _connect(self, state_file: Path) -> sqlite3.Connection:
        if self.is_read_only:
            state = self._connect_read_only(state_file)
        else:
            state = sqlite3.connect(state_file, isolation_level=None)
            # A row survives a killed process, but perhaps not a power cut: then its image is downloaded again.
            state.execute("PRAGMA journal_mode = WAL")
            state.execute("PRAGMA synchronous = NORMAL")
        version = state.execute("PRAGMA user_version").fetchone()[0]
        is_empty = not state.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if version != _VERSION and not is_empty:
            raise sqlite3.DatabaseError(f"made by another version of this command: tables {version}")
        if not self.is_read_only:
            state.executescript(_TABLES)
        elif is_empty:
            raise sqlite3.DatabaseError("it is empty, and cannot be written")
        return state

    def _connect_read_only(self, state_file: Path) -> sqlite3.Connection:
        """Connect without writing to the folder.

        SQLite creates files next to a database even to read it. `immutable` prevents that, but ignores the log that a
        killed process left, so a database with a log is copied first.
        """
        log = state_file.with_name(f"{STATE_FILE}-wal")
        if not log.is_file() or not log.stat().st_size:
            return sqlite3.connect(
                f"{state_file.resolve().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None
            )
        self._folder_to_remove = tempfile.TemporaryDirectory(prefix="image-store-")
        copied = Path(self._folder_to_remove.name)
        for file in (state_file, log):
            shutil.copyfile(file, copied / file.name)
        return sqlite3.connect(copied / STATE_FILE, isolation_level=None)

    def _settle_image_size(self, wanted: int | None) -> int:
        found = self._state.execute("SELECT image_size FROM settings").fetchone()
        if found is None:
            found = (ImageOptions().image_size if wanted is None else wanted,)
            self._state.execute("INSERT INTO settings VALUES (?)", found)
        image_size: int = found[0]
        if wanted not in (None, image_size):
            raise InputError(
                f"`image_store` {self.folder}: its images were stored with `image_size` {image_size}, not {wanted}; "
                "use the same size, or choose another folder"
            )
        return image_size

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the store for one process that adds images. Raises InputError if another process holds it."""
        try:
            with FileLock(self.folder / "filling.lock", timeout=0):
                for leftover in self.folder.glob("files/*/*.part"):
                    leftover.unlink()
                yield
                # Whoever copies the store then copies one database file.
                self._state.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except Timeout as error:
            raise InputError(
                f"`image_store` {self.folder}: another process is downloading into it; wait until it ends"
            ) from error

    def save(self, image: PreparedImage) -> None:
        """Write an image to the file that is named by its sha256."""
        if not self._is_complete(image.sha256, len(image.data)):
            file = self._file(image.sha256)
            part = f"{file}.{threading.get_ident()}.part"
            os.makedirs(os.path.dirname(file), exist_ok=True)
            with open(part, "wb") as stream:
                stream.write(image.data)
            os.replace(part, file)

    def record(self, state: UrlState) -> None:
        """Record the outcome for a URL. Its image must be saved before."""
        assert (state.status == Status.STORED) == (state.sha256 is not None)
        self._state.execute(f"REPLACE INTO links VALUES ({', '.join('?' * len(state))})", state)

    def state(self, url: str) -> UrlState:
        """The recorded outcome for a URL. If the file of its image is missing, the URL counts as not fetched."""
        row = self._state.execute("SELECT * FROM links WHERE link = ?", (url,)).fetchone()
        state = UrlState(*row) if row else UrlState(url, Status.FAILED, NOT_FETCHED)
        if state.status == Status.STORED and not self._is_complete(state.sha256, state.num_bytes):
            return UrlState(url, Status.FAILED, NOT_FETCHED)
        return state

    def find(self, urls: Iterable[str]) -> tuple[dict[str, StoredImage], dict[str, str]]:
        """The images of these URLs, and for each URL without an image the reason."""
        images: dict[str, StoredImage] = {}
        failures: dict[str, str] = {}
        for state in map(self.state, urls):
            image = state.image
            if image is None:
                failures[state.url] = state.reason
            else:
                images[state.url] = image
        return images, failures

    def failures(self, urls: Iterable[str]) -> dict[str, str]:
        """For each URL without an image the reason."""
        states = map(self.state, urls)
        return {state.url: state.reason for state in states if state.status != Status.STORED}

    def failed(self) -> list[tuple[str, str]]:
        """Every URL that failed and could succeed in another run, with the reason."""
        return self._state.execute("SELECT link, reason FROM links WHERE status = ?", (Status.FAILED,)).fetchall()

    def pending(self, urls: Iterable[str], *, retry: Callable[[UrlState], bool]) -> list[str]:
        """The URLs that still have to be fetched.

        These are URLs that were never tried, or whose file is missing, or that failed, could succeed, and for which
        `retry` is true.
        """
        return [
            state.url
            for state in map(self.state, urls)
            if state.reason == NOT_FETCHED or (state.status == Status.FAILED and retry(state))
        ]

    def mean_bytes(self) -> tuple[int, float]:
        """How many URLs have an image, and the mean size of these images."""
        num_images, mean = self._state.execute(
            "SELECT count(*), avg(num_bytes) FROM links WHERE status = ?", (Status.STORED,)
        ).fetchone()
        return num_images, mean or 0.0

    def sizes(self) -> dict[str, int]:
        """The size in bytes of every URL's image."""
        return dict(self._state.execute("SELECT link, num_bytes FROM links WHERE status = ?", (Status.STORED,)))

    def read(self, url: str) -> bytes:
        """The file of a URL's image, which must be stored."""
        sha256 = self.state(url).sha256
        assert sha256 is not None, url
        with open(self._file(sha256), "rb") as stream:
            return stream.read()

    def fingerprint(self) -> str:
        """A digest that changes when the image of a URL does."""
        digest = hashlib.sha256()
        for row in self._state.execute("SELECT link, sha256, phash, reason FROM links ORDER BY link"):
            digest.update(f"{row}\n".encode(errors="surrogatepass"))
        return digest.hexdigest()

    def write_failures(self) -> None:
        """Write FAILURES_FILE: every URL without an image, and what is known about it."""
        file = self.folder / FAILURES_FILE
        columns = ("link", "reason", "status", "http_status", "tries", "seconds", "finished_at")
        query = f"SELECT {', '.join(columns)} FROM links WHERE status != ? ORDER BY link"
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["image_link", *columns[1:]])
            writer.writerows(self._state.execute(query, (Status.STORED,)))

    def _file(self, sha256: str) -> str:
        return f"{self.folder}/files/{sha256[:2]}/{sha256}"  # called five times per image, and a Path is slow

    def _is_complete(self, sha256: str | None, num_bytes: int | None) -> bool:
        try:
            return sha256 is not None and os.stat(self._file(sha256)).st_size == num_bytes
        except FileNotFoundError:
            return False


def count_reasons(reasons: Iterable[str]) -> Counter[str]:
    """Count reasons without their details: `image_unreadable: OSError: ...` counts as `image_unreadable`."""
    return Counter(reason.partition(":")[0] for reason in reasons)
