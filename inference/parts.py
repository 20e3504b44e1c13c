"""Finished batches on disk: a prediction that was cut off goes on where it was, whatever processes it had."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from inference.answers import ANSWERS
from product_vqa.command import InputError
from product_vqa.files import written_whole

_RUN_FILE = "run.json"


class Parts:
    """The folder `X.parts` beside `X.csv`: one Parquet file a batch, whole or absent.

    The unit of work is a batch, fixed by row order and batch size; so its rows depend neither on the number of
    processes nor on restarts.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def earlier_run(self) -> dict[str, Any]:
        """What made the parts that lie here; empty where there are none."""
        file = self.folder / _RUN_FILE
        return json.loads(file.read_text()) if file.is_file() else {}

    def open(self, run: dict[str, Any]) -> None:
        """Make the folder, or take up what lies in it. Raises InputError if another run made it."""
        self.folder.mkdir(exist_ok=True)
        before = self.earlier_run()
        if not before:
            with written_whole(self.folder / _RUN_FILE) as temporary:
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

    def has(self, batch: int) -> bool:
        return self._file(batch).is_file()

    def save(self, batch: int, rows: pa.Table) -> None:
        with written_whole(self._file(batch)) as temporary:
            pq.write_table(rows, temporary)

    def load(self, batches: int) -> pa.Table:
        """All of them, in order."""
        return pa.concat_tables([pq.read_table(self._file(batch), schema=ANSWERS) for batch in range(batches)])

    def remove(self) -> None:
        shutil.rmtree(self.folder)

    def _file(self, batch: int) -> Path:
        return self.folder / f"{batch:06d}.parquet"
