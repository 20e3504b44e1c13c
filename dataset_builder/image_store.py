"""The store of downloaded images: files named by their content, and a SQLite table with the outcome for each URL.

A store may come from somebody else, or from a damaged disk: a row counts only if all its values are possible, and an
image only if its file has the hash that is its name.
"""

import hashlib
import os
import re
import stat
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from dataset_builder.image_preparation import PreparedImage
from dataset_builder.options import ImageOptions
from dataset_builder.state_database import STATE_FILE, StateDatabase
from dataset_builder.stored_image import StoredImage
from product_vqa.atomic_io import atomic_write, one_writer
from product_vqa.errors import InputError, argument
from product_vqa.images import MAX_BYTES, MAX_SIDE
from product_vqa.machine_errors import find_machine_error
from product_vqa.paths import writable_folder
from product_vqa.quoting import write_cells

FAILURES_FILE = "failed.csv"
LOCK_FILE = "filling.lock"
NOT_FETCHED = "not_fetched"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REASON = re.compile(r"[a-z][a-z0-9_]*(:[^\x00-\x1f\x7f]*)?")
_MAX_REASON = 1000  # characters
IMAGE_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")  # a stored image is a JPEG or a PNG
_PART = re.compile(r"[0-9a-f]{64}\.[0-9]+\.part")
_CLOCK_TICK_NS = 100_000_000  # at most: 10 ms on Linux, and some file systems round times
_BATCH, _NUM_READERS = 512, 16  # URLs whose files are checked together, by so many threads


class Status(StrEnum):
    STORED = "stored"
    FAILED = "failed"  # another run could succeed, with retry_failed
    REFUSED = "refused"  # it could not


class UrlState(NamedTuple):
    """The outcome for a URL, in the order of the table's columns."""

    url: str
    status: str
    reason: str = ""
    http_status: int | None = None
    tries: int = 0
    seconds: float = 0.0
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
        self._folder_to_remove: tempfile.TemporaryDirectory[str] | None = None
        state_file = self.folder / STATE_FILE
        # On a read-only disk (Kaggle's inputs, for instance), or owned by somebody else.
        self.is_read_only = state_file.is_file() and not (
            os.access(self.folder, os.W_OK | os.X_OK) and os.access(state_file, os.W_OK)
        )
        if not self.is_read_only:
            with argument("image_store"):
                writable_folder(folder)
        self._state = StateDatabase(self.folder, is_read_only=self.is_read_only)
        self._verified: set[int] = set()  # files that were read and have the hash that is their name
        self.image_size = self._settle_image_size(image_size)

    @classmethod
    def temporary(cls, parent: str | Path, *, image_size: int) -> "ImageStore":
        """A store in a new folder in `parent`. The folder is removed together with the object."""
        Path(parent).mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=parent, prefix="images-")
        store = cls(folder.name, image_size=image_size)
        store._folder_to_remove = folder
        return store

    def _settle_image_size(self, wanted: int | None) -> int:
        if not self.is_read_only and not self._state.row("SELECT 1 FROM settings"):
            new = ImageOptions().image_size if wanted is None else wanted
            self._state.execute("INSERT INTO settings SELECT ? WHERE NOT EXISTS (SELECT 1 FROM settings)", (new,))
        found = [row[0] for row in self._state.rows("SELECT DISTINCT image_size FROM settings LIMIT 2")]
        if len(found) != 1 or not _is_in(found[0], 0, MAX_SIDE):
            raise InputError(
                f"`image_store` {self.folder}: {STATE_FILE} has no valid image_size (found {found}); choose another "
                f"folder, or remove {STATE_FILE}* there to download everything again"
            )
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
        lock_file = self.folder / LOCK_FILE
        with one_writer(self.folder, argument="image_store", lock_file=lock_file, doing="downloading into it"):
            for leftover in self.folder.glob("files/*/*.part"):
                if _PART.fullmatch(leftover.name):
                    leftover.unlink()
            yield
            # Whoever copies the store then copies one database file.
            self._state.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def save(self, image: PreparedImage) -> None:
        """Write an image to the file that is named by its sha256."""
        if not self._is_verified(image.sha256) and self._read_intact(image.sha256, len(image.data)) is None:
            file = self._file(image.sha256)
            part = f"{file}.{threading.get_ident()}.part"
            os.makedirs(os.path.dirname(file), exist_ok=True)
            with open(part, "wb") as stream:
                stream.write(image.data)
            os.replace(part, file)

    def record(self, state: UrlState) -> None:
        """Record the outcome for a URL. Its image must be saved before."""
        assert (state.status == Status.STORED) == (state.sha256 is not None)
        reason = "".join(char if char.isprintable() else " " for char in state.reason[:_MAX_REASON])
        assert not reason or _REASON.fullmatch(reason), reason
        self._state.execute(
            f"REPLACE INTO links VALUES ({', '.join('?' * len(state))})", state._replace(reason=reason)
        )

    def state(self, url: str) -> UrlState:
        """The recorded outcome for a URL.

        The URL counts as not fetched if the file of its image is missing or is not the image that was stored, and if
        its row is not one that `record` writes.
        """
        (state,) = self.states([url])
        return state

    def states(self, urls: Iterable[str]) -> Iterator[UrlState]:
        """`state` of each URL, in order. Each file is read once, to check its hash, and again if it has changed."""
        urls = iter(urls)
        with ThreadPoolExecutor(_NUM_READERS) as pool:
            while batch := self._recorded(list(islice(urls, _BATCH))):
                unverified = [
                    state for state in batch if state.sha256 is not None and not self._is_verified(state.sha256)
                ]
                share = max(16, -(-len(unverified) // _NUM_READERS))
                shares = [unverified[start : start + share] for start in range(0, len(unverified), share)]
                # For a few files, threads cost more than they save.
                missing = map(self._find_missing, shares) if len(shares) < 2 else pool.map(self._find_missing, shares)
                urls_missing = set().union(*missing)
                for state in batch:
                    yield UrlState(state.url, Status.FAILED, NOT_FETCHED) if state.url in urls_missing else state

    def find(self, urls: Iterable[str]) -> tuple[dict[str, StoredImage], dict[str, str]]:
        """The images of these URLs, and for each URL without an image the reason."""
        images: dict[str, StoredImage] = {}
        failures: dict[str, str] = {}
        for state in self.states(urls):
            image = state.image
            if image is None:
                failures[state.url] = state.reason
            else:
                images[state.url] = image
        return images, failures

    def failures(self, urls: Iterable[str]) -> dict[str, str]:
        """For each URL without an image the reason."""
        return {state.url: state.reason for state in self.states(urls) if state.status != Status.STORED}

    def failed(self) -> list[tuple[str, str]]:
        """Every URL that failed and could succeed in another run, with the reason."""
        rows = self._state.rows("SELECT link, reason FROM links WHERE status = ?", (Status.FAILED,))
        return [(url, reason) for url, reason in rows if isinstance(url, str) and isinstance(reason, str)]

    def pending(self, urls: Iterable[str], *, retry: Callable[[UrlState], bool]) -> list[str]:
        """The URLs that still have to be fetched.

        These are URLs that were never tried, or whose file is missing or damaged, or that failed, could succeed, and
        for which `retry` is true.
        """
        return [
            state.url
            for state in self.states(urls)
            if state.reason == NOT_FETCHED or (state.status == Status.FAILED and retry(state))
        ]

    def mean_bytes(self) -> tuple[int, float]:
        """How many URLs have an image, and the mean size of these images."""
        sizes = self.sizes().values()
        return len(sizes), sum(sizes) / len(sizes) if sizes else 0.0

    def sizes(self) -> dict[str, int]:
        """The size in bytes of every URL's image, as recorded."""
        rows = self._state.rows("SELECT link, num_bytes FROM links WHERE status = ?", (Status.STORED,))
        return {url: size for url, size in rows if _is_in(size, 1, MAX_BYTES)}

    def read(self, url: str) -> bytes:
        """The file of a URL's image, which must be stored."""
        image = self.state(url).image
        assert image is not None, url
        return self.read_image(image)

    def read_image(self, image: StoredImage) -> bytes:
        """The file of an image that `find` returned. Raises InputError if it has changed since."""
        data = self._read_intact(image.sha256, image.num_bytes)
        if data is None:
            raise InputError(
                f"`image_store` {self.folder}: {self._file(image.sha256)} has changed while the command ran; rerun "
                "the command to download this image again"
            )
        return data

    def fingerprint(self, urls: Iterable[str]) -> str:
        """A digest that changes when the image of one of these URLs does."""
        return fingerprint_states(self.states(sorted(urls)))

    def write_failures(self) -> None:
        """Write FAILURES_FILE: every URL without an image, and what is known about it."""
        columns = ("link", "reason", "status", "http_status", "tries", "seconds", "finished_at")
        query = f"SELECT {', '.join(columns)} FROM links WHERE status != ? ORDER BY link"
        with (
            atomic_write(self.folder / FAILURES_FILE) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as stream,
        ):
            write_cells(stream, [("image_link", *columns[1:])])
            write_cells(stream, self._state.rows(query, (Status.STORED,)))

    def _recorded(self, urls: list[str]) -> list[UrlState]:
        """What the table says about these URLs, in order."""
        query = f"SELECT * FROM links WHERE link IN ({', '.join('?' * len(urls))})"
        states = {row[0]: UrlState(*row) for row in self._state.rows(query, urls)}
        return [
            state if (state := states.get(url)) and is_possible(state) else UrlState(url, Status.FAILED, NOT_FETCHED)
            for url in urls
        ]

    def _file(self, sha256: str) -> str:
        return f"{self.folder}/files/{sha256[:2]}/{sha256}"  # called five times per image, and a Path is slow

    def _find_missing(self, states: list[UrlState]) -> set[str]:
        """The URLs whose file is not the image that was stored."""
        images = [(state.url, state.image) for state in states]
        return {url for url, image in images if image and self._read_intact(image.sha256, image.num_bytes) is None}

    def _is_verified(self, sha256: str) -> bool:
        """Whether the file has not changed since its hash was computed."""
        try:
            return _mark(sha256, os.lstat(self._file(sha256))) in self._verified
        except OSError as error:
            _raise_if_refused(error)
            return False

    def _read_intact(self, sha256: str, num_bytes: int) -> bytes | None:
        """A file's content if it is the image that was stored: of this size and hash, and not a link or a pipe.

        The hash of a file that has not changed since is not computed again.
        """
        read_at = time.time_ns()
        try:
            descriptor = os.open(self._file(sha256), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            _raise_if_refused(error)
            return None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size != num_bytes:
                return None
            data = os.read(descriptor, num_bytes)
            status = os.fstat(descriptor)  # after it was read, or it could change before
        finally:
            os.close(descriptor)
        if len(data) != num_bytes:
            return None
        mark = _mark(sha256, status)
        if mark not in self._verified:
            if not data.startswith(IMAGE_STARTS) or hashlib.sha256(data).hexdigest() != sha256:
                return None
            # Another change in the same tick of the system's clock would leave the time of the change as it is.
            if read_at - status.st_ctime_ns > _CLOCK_TICK_NS:
                self._verified.add(mark)
        return data


def _mark(sha256: str, status: os.stat_result) -> int:
    """A number for a file in this state, and not the state itself: there are 350,000 of them."""
    return hash((sha256, status.st_size, status.st_ctime_ns))


def fingerprint_states(states: Iterable[UrlState]) -> str:
    """A digest of these URLs and their images, in this order."""
    digest = hashlib.sha256()
    for state in states:
        row = (state.url, state.sha256, state.phash, state.reason)
        digest.update(f"{row}\n".encode(errors="surrogatepass"))
    return digest.hexdigest()


def is_possible(state: UrlState) -> bool:
    """Whether `record` could have written this row."""
    if not (
        _is_in(state.tries, 0, 10**6)
        and (state.http_status is None or _is_in(state.http_status, 0, 999))
        and isinstance(state.seconds, float)
        and isinstance(state.finished_at, str)
        and isinstance(state.reason, str)
    ):
        return False
    image = (state.num_bytes, state.width, state.height, state.sha256, state.phash)
    if state.status != Status.STORED:
        is_known = state.status in (Status.FAILED, Status.REFUSED)
        return is_known and _is_reason(state.reason) and image == (None,) * len(image)
    return (
        not state.reason
        and _is_in(state.num_bytes, 1, MAX_BYTES)
        and _is_in(state.width, 1, MAX_SIDE)
        and _is_in(state.height, 1, MAX_SIDE)
        and isinstance(state.sha256, str)
        and bool(_SHA256.fullmatch(state.sha256))
        and _is_in(state.phash, -(2**63), 2**63 - 1)
    )


def _raise_if_refused(error: OSError) -> None:
    """Raise where the machine refuses to read: the file may be intact, and no row may be dropped for it."""
    if find_machine_error(error):
        raise error


def _is_reason(text: str) -> bool:
    return len(text) <= _MAX_REASON and bool(_REASON.fullmatch(text))


def _is_in(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def count_reasons(reasons: Iterable[str]) -> Counter[str]:
    """Count reasons without their details: `image_unreadable: OSError: ...` counts as `image_unreadable`."""
    return Counter(reason.partition(":")[0] for reason in reasons)
