"""Finished batches on disk: a prediction that was cut off goes on where it was, whatever processes it had."""

import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from inference.predictions import ANSWERS
from product_vqa.atomic_io import atomic_write
from product_vqa.errors import InputError, first_line

logger = logging.getLogger(__name__)

_RUN_FILE = "run.json"
_DIGEST_KEY = b"product_vqa.digest"


class Parts:
    """The folder `X.parts` next to `X.csv`: one Parquet file (a shard) a batch, complete or absent.

    The unit of work is a batch, fixed by row order and batch size; so its rows depend neither on the number of
    processes nor on restarts. A shard is believed only where it holds the rows that it must hold, as this run wrote
    them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._run: dict[str, Any] = {}

    def earlier_run(self) -> dict[str, Any]:
        """What made the shards that lie here; empty where there are none. Raises InputError for a broken record."""
        file = self.folder / _RUN_FILE
        try:
            run = json.loads(file.read_text()) if file.is_file() else {}
        except (OSError, ValueError) as error:
            raise InputError(
                f"{file} cannot be read ({first_line(error)}): delete the folder, or choose another --output"
            ) from error
        if not isinstance(run, dict):
            raise InputError(f"{file} is not what predict wrote: delete the folder, or choose another --output")
        return run

    def open(self, run: dict[str, Any]) -> None:
        """Make the folder, or resume with what lies in it. Raises InputError, naming what differs, if another run made
        it. Every process must call this, the first one before the others."""
        self.folder.mkdir(exist_ok=True)
        self._run = run
        before = self.earlier_run()
        if not before:
            with atomic_write(self.folder / _RUN_FILE) as temporary:
                temporary.write_text(json.dumps(run, indent=2))
            return
        changed = [
            f"{key}: {before.get(key)} -> {run.get(key)}"
            for key in sorted(before.keys() | run.keys())
            if before.get(key) != run.get(key)
        ]
        if changed:
            raise InputError(
                f"{self.folder} holds a prediction of other settings ({'; '.join(changed)}): "
                "delete the folder, or choose another --output"
            )

    def has(self, batch: int, indexes: Sequence[int]) -> bool:
        """Whether the batch of these rows is finished. A shard that is not as it was written is computed again."""
        if not self._file(batch).exists():
            return False
        if self._read(batch, indexes) is not None:
            return True
        logger.warning("%s is not as this prediction wrote it: its rows are computed again", self._file(batch))
        return False

    def save(self, batch: int, rows: pa.Table) -> None:
        with atomic_write(self._file(batch)) as temporary:
            pq.write_table(rows.replace_schema_metadata({_DIGEST_KEY: self._digest(rows)}), temporary)

    def load(self, batches: Sequence[Sequence[int]]) -> pa.Table:
        """The rows of all batches, each given by its indexes, in order. Raises InputError for one that is damaged."""
        tables = []
        for batch, indexes in enumerate(batches):
            table = self._read(batch, indexes)
            if table is None:
                raise InputError(
                    f"{self._file(batch)} was changed while the prediction ran: rerun, and its rows are computed again"
                )
            tables.append(table)
        return pa.concat_tables(tables) if tables else ANSWERS.empty_table()

    def remove(self) -> None:
        shutil.rmtree(self.folder)

    def _read(self, batch: int, indexes: Sequence[int]) -> pa.Table | None:
        """The shard's rows; None where they are not what this run wrote for these indexes."""
        try:
            # Opened here: a reader of a dataset would take a folder of this name for one as well.
            with self._file(batch).open("rb") as stream:
                table = pq.read_table(stream)
        except (OSError, ValueError, pa.ArrowException):
            return None
        digest = (table.schema.metadata or {}).get(_DIGEST_KEY)
        table = table.replace_schema_metadata(None)
        if table.schema != ANSWERS or table["index"].to_pylist() != list(indexes) or self._digest(table) != digest:
            return None
        return table

    def _digest(self, rows: pa.Table) -> bytes:
        """Of the rows and of what made them."""
        content = json.dumps([self._run, rows.to_pylist()], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest().encode()

    def _file(self, batch: int) -> Path:
        return self.folder / f"{batch:06d}.parquet"
