"""The finished batches of a prediction on disk, with which an interrupted run resumes."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from product_vqa.atomic_io import atomic_write
from product_vqa.documents import DocumentError, read_bytes, read_json
from product_vqa.errors import InputError, first_line
from product_vqa.machine_errors import machine_errors
from product_vqa.paths import writable_folder
from product_vqa.provenance import list_changes

logger = logging.getLogger(__name__)

_RUN_FILE = "run.json"
_DIGEST_KEY = b"product_vqa.digest"
_MAX_FILE_BYTES = 1024**3
_REMEDY = "delete the folder, or choose another `output`"


def check_output(output: str | Path) -> Path:
    """`output` as a Path. Creates its folder. Raises InputError if X.csv or X.parquet cannot be written there."""
    file = Path(output)
    writable_folder(file.parent)
    for taken in (file, file.with_suffix(".parquet")):
        if taken.is_dir():
            raise InputError(f"{taken} is a folder, but predictions are written to a file of that name")
    return file


class BatchFiles:
    """The folder `X.parts` next to `X.csv`: one Parquet file per batch, complete or absent.

    The unit of work is a batch. It is fixed by the order of rows and the batch size, so its file depends neither on
    the number of processes nor on restarts. A file counts only if it holds the rows of its batch as this run wrote
    them.
    """

    def __init__(self, folder: Path, *, schema: pa.Schema) -> None:
        """`schema` is that of the tables, whose column `index` numbers the rows."""
        self.folder = folder
        self._schema = schema
        self._run: dict[str, Any] = {}
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is a file, but batches are written to a folder of that name: delete it")

    def recorded_batch_size(self) -> int | None:
        """The batch size of the run that is resumed; None if there is none. Raises InputError if it is invalid."""
        run = self._recorded_run()
        if run is None:
            return None
        batch_size = run.get("batch_size")
        if type(batch_size) is not int or batch_size < 1:
            raise InputError(f"{self.folder / _RUN_FILE} has the invalid batch_size {batch_size!r}: {_REMEDY}")
        return batch_size

    def open(self, run: dict[str, Any]) -> None:
        """Create the folder, or resume the run that created it. Raises InputError if that run differs from `run`.

        Every process must call this, the first one before the others.
        """
        with machine_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
        self._run = run
        before = self._recorded_run()
        if before is None:
            with atomic_write(self.folder / _RUN_FILE) as temporary:
                temporary.write_text(json.dumps(run, indent=2))
            return
        if changes := list_changes(before, run):
            raise InputError(f"{self.folder} holds batches of a prediction with other settings ({changes}): {_REMEDY}")

    def _recorded_run(self) -> dict[str, Any] | None:
        file = self.folder / _RUN_FILE
        try:
            run = read_json(file)
        except FileNotFoundError:
            return None
        except (OSError, DocumentError) as error:
            raise InputError(f"{file} cannot be read ({first_line(error)}): {_REMEDY}") from error
        if not isinstance(run, dict):
            raise InputError(f"{file} was not written by predict: {_REMEDY}")
        return run

    def has(self, number: int, indexes: Sequence[int]) -> bool:
        """Whether there is an intact file of the batch `number`, whose rows have these indexes."""
        if not os.path.lexists(self._file(number)):
            return False
        if self._read(number, indexes) is not None:
            return True
        logger.warning("%s is damaged or was not written by this run: its rows are computed again", self._file(number))
        return False

    def save(self, number: int, rows: pa.Table) -> None:
        with atomic_write(self._file(number)) as temporary:
            pq.write_table(rows.replace_schema_metadata({_DIGEST_KEY: self._digest(rows.to_pylist())}), temporary)

    def load(self, batches: Mapping[int, Sequence[int]]) -> pa.Table:
        """The rows of these batches (number -> indexes), in order. Raises InputError for a damaged file."""
        tables = []
        for number, indexes in sorted(batches.items()):
            table = self._read(number, indexes)
            if table is None:
                raise InputError(
                    f"{self._file(number)} was changed while the prediction ran: rerun to compute its rows again"
                )
            tables.append(table)
        return pa.concat_tables(tables) if tables else self._schema.empty_table()

    def remove(self) -> None:
        shutil.rmtree(self.folder)

    def _read(self, number: int, indexes: Sequence[int]) -> pa.Table | None:
        """The file's rows; None if they are not what this run wrote for these indexes."""
        try:
            # As bytes: given the path, pyarrow would also read a folder of this name, and wait for a pipe.
            content = read_bytes(self._file(number), max_bytes=_MAX_FILE_BYTES)
            table = pq.read_table(pa.BufferReader(content), use_threads=False)
            table.validate(full=True)
            rows = table.to_pylist()
        except (OSError, ValueError, OverflowError, MemoryError, pa.ArrowException):
            return None
        digest = (table.schema.metadata or {}).get(_DIGEST_KEY)
        table = table.replace_schema_metadata(None)
        is_batch = table.schema == self._schema and [row["index"] for row in rows] == list(indexes)
        return table if is_batch and self._digest(rows) == digest else None

    def _digest(self, rows: list[dict[str, Any]]) -> bytes:
        """A hash of the rows and of the run that made them."""
        content = json.dumps([self._run, rows], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest().encode()

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:06d}.parquet"
