"""Opens a table: a CSV, JSON Lines, a Parquet file, or a split of a dataset. CSV and JSON Lines may be compressed."""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import product_vqa.tables.records as table_records
from product_vqa.csv_files import BROKEN_ARCHIVE, CsvStream, compression_name, open_csv
from product_vqa.errors import InputError
from product_vqa.hub import Location, locate
from product_vqa.paths import open_regular
from product_vqa.quoting import one_line
from product_vqa.tables.records import CsvRecords, JsonRecords, Records

_SUFFIXES = (".csv", ".gz", ".bz2", ".xz", ".zip", ".jsonl", ".ndjson", ".parquet")
_PARQUET = b"PAR1"


class OpenTable(NamedTuple):
    records: Records
    name: str  # as it is published: without the folder
    sha256: Callable[[], str]  # to be called after everything was read


@contextmanager
def open_table(path: str | Path) -> Iterator[OpenTable]:
    """Open a table; its format is recognized by content. Raises InputError for anything else, here and while reading.

    `user/name[@revision]:split` and `folder:split` are a split of a dataset.
    """
    name = str(path)
    if split := split_of(name):
        files, shown = table_records.download_split(*split)
        yield OpenTable(table_records.ParquetRecords(files, file=name), shown, lambda: _digest(files))
        return
    if not Path(name).name.isprintable():
        raise InputError(f"{name!r}: the name of the file, which is published, must be printable; rename it")
    with open_regular(path) as file:
        is_parquet = file.read(len(_PARQUET)) == _PARQUET
    if is_parquet:
        yield OpenTable(
            table_records.ParquetRecords([Path(path)], file=name), Path(path).name, lambda: _digest([Path(path)])
        )
        return
    with open_csv(path) as stream, _damage_explained(stream, name):
        start = stream.peek(64).removeprefix(b"\xef\xbb\xbf").lstrip()
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        is_json = start.startswith(b"{")
        records = JsonRecords(text, _keys(path), file=name) if is_json else CsvRecords(text, file=name)
        yield OpenTable(records, Path(path).name, stream.sha256)


@contextmanager
def _damage_explained(stream: CsvStream, name: str) -> Iterator[None]:
    try:
        yield
    except BROKEN_ARCHIVE as error:
        reason = one_line(str(error))
        raise InputError(f"{name}: broken {compression_name(stream)} ({reason}); download it again") from error


def split_of(name: str) -> tuple[Location, str] | None:
    """The dataset and the split that a name means; None if it means a file."""
    source, colon, split = name.rpartition(":")
    if not colon or Path(name).exists() or name.lower().endswith(_SUFFIXES):
        return None
    return locate(source, repo_type="dataset"), split


def _keys(path: str | Path) -> list[str]:
    """Every key of a file with JSON Lines, in the order of their first lines."""
    with open_csv(path) as stream, _damage_explained(stream, str(path)):
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        return list(dict.fromkeys(key for row in JsonRecords(text, [], file=str(path)).objects() for key in row))


def _digest(files: Sequence[Path]) -> str:
    digests = []
    for file in files:
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()
