"""The SQLite file of an image store, opened as a file that a stranger may have written or a disk may have damaged."""

import re
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from product_vqa.errors import InputError
from product_vqa.machine_errors import find_machine_error

STATE_FILE = "state.sqlite"
_VERSION = 2  # of the tables
_TABLES = {
    "links": """CREATE TABLE links (
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
) WITHOUT ROWID""",
    "settings": "CREATE TABLE settings (image_size INTEGER NOT NULL)",
}
_MAX_CELL_BYTES = 1024**2
_ROLLBACK_OF_SEVERAL_FILES = bytes.fromhex("d9d505f920a163d7")  # the end of a journal that names another file
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DISK = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)


@dataclass(frozen=True)
class DatabaseFile:
    """Which tables a file has, which option its folder comes from, and what helps if it cannot be used."""

    name: str
    version: int
    tables: Mapping[str, str]
    remedy: str  # if it is damaged
    kept: str  # if it cannot be written
    argument: str = "image_store"


STATE = DatabaseFile(
    STATE_FILE,
    _VERSION,
    _TABLES,
    f"choose another folder, or remove {STATE_FILE}* there to download everything again",
    kept="downloaded images are kept",
)


class StateDatabase:
    """The tables of a store. Raises InputError for a file that is damaged, or that this command did not write.

    Nothing but these tables may be in it: a view or a trigger is a program. What is in the rows is for the caller
    to check. `is_read_only`: nothing is written, neither to the file nor next to it.
    """

    def __init__(self, folder: Path, *, is_read_only: bool, file: DatabaseFile = STATE) -> None:
        self.folder, self._file = folder, file
        with self._explained():
            for suffix in ("", "-wal", "-shm", "-journal"):
                _check_file(folder / f"{file.name}{suffix}")
            self._connection = self._connect(is_read_only=is_read_only)
            self._set_up(is_read_only=is_read_only)

    def rows(self, query: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        with self._explained():
            yield from self._connection.execute(query, values)

    def row(self, query: str, values: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        with self._explained():
            row: tuple[Any, ...] | None = self._connection.execute(query, values).fetchone()
            return row

    def execute(self, statement: str, values: Sequence[Any] = ()) -> None:
        with self._explained():
            self._connection.execute(statement, values)

    def _connect(self, *, is_read_only: bool) -> sqlite3.Connection:
        file = self.folder / self._file.name
        if not is_read_only:
            return sqlite3.connect(file, isolation_level=None)
        # SQLite creates files next to a database even to read it. `immutable` prevents that, but ignores the log that
        # a killed process left, so a database with a log is copied first.
        log = file.with_name(f"{file.name}-wal")
        if not log.is_file() or not log.stat().st_size:
            return sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None)
        self._copy = tempfile.TemporaryDirectory(prefix="image-store-")  # removed together with this object
        copied = Path(self._copy.name)
        for source in (file, log):
            shutil.copyfile(source, copied / source.name)
        return sqlite3.connect(copied / file.name, isolation_level=None)

    def _set_up(self, *, is_read_only: bool) -> None:
        connection = self._connection
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_CELL_BYTES)
        for setting in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0"):
            connection.execute(f"PRAGMA {setting}")
        found = dict(connection.execute("SELECT name, sql FROM sqlite_master"))
        if found:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version != self._file.version:
                raise sqlite3.DatabaseError(f"made by another version of this command: tables {version}")
            if {name: _plain(sql) for name, sql in found.items()} != {
                name: _plain(sql) for name, sql in self._file.tables.items()
            }:
                raise sqlite3.DatabaseError("it holds other tables, views or triggers than this command writes")
            # Also bounds every later query: in a forged file, a page may be the child of many pages.
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(f"damaged: {' '.join(str(verdict).split())}")
        elif is_read_only:
            raise sqlite3.DatabaseError("it is empty, and cannot be written")
        if not is_read_only:
            # A row survives a killed process, but perhaps not a power cut: then its image is downloaded again.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
        if not found:
            tables = ";\n".join(self._file.tables.values()).replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS")
            version = self._file.version
            connection.executescript(f"BEGIN IMMEDIATE;\n{tables};\nPRAGMA user_version = {version};\nCOMMIT;")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise InputError for what SQLite and the system report."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            folder = f"`{self._file.argument}` {self.folder}"
            where = f"{folder}: {self._file.name}"
            detailed = getattr(error, "sqlite_errorcode", None) or 0
            code = detailed & 0xFF  # without the details
            if code in _BUSY:
                raise InputError(f"{where} is in use by another process; wait until it ends") from error
            if detailed == sqlite3.SQLITE_IOERR_SHORT_READ:  # an error of the disk by its text and by its code
                raise InputError(
                    f"{where} cannot be used (it or its log is truncated); {self._file.remedy}"
                ) from error
            if code in _DISK or find_machine_error(error):
                raise InputError(
                    f"{folder}: cannot be written ({error}: {self._file.name}); free some space there and rerun the "
                    f"command: {self._file.kept}"
                ) from error
            raise InputError(f"{where} cannot be used ({error}); {self._file.remedy}") from error


def _check_file(file: Path) -> None:
    """Raise DatabaseError unless the file is a regular one or absent: SQLite would wait for a pipe."""
    with suppress(FileNotFoundError):  # or another process has just removed its journal
        _check_existing(file)


def _check_existing(file: Path) -> None:
    status = file.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise sqlite3.DatabaseError(f"{file.name} is not a regular file")
    if file.name.endswith("-journal") and status.st_size >= len(_ROLLBACK_OF_SEVERAL_FILES):
        with file.open("rb") as stream:
            stream.seek(-len(_ROLLBACK_OF_SEVERAL_FILES), 2)
            # SQLite would delete the file of that name.
            if stream.read() == _ROLLBACK_OF_SEVERAL_FILES:
                raise sqlite3.DatabaseError(f"{file.name} is not of this command")


def _plain(sql: object) -> str:
    """The statement without its comments and its layout, which are not the same in all versions."""
    return re.sub(r"\s+", " ", re.sub(r"--[^\n]*", "", str(sql))).strip()
