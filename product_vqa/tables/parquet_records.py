"""The records of Parquet files, which a dataset has too."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from product_vqa.dataset import DAMAGED, download_splits, find_rows
from product_vqa.errors import InputError, first_line
from product_vqa.hub import Location
from product_vqa.parquet_files import ParquetError, check_parquet
from product_vqa.tables.cells import cell_text

_TYPES = ("BYTE_ARRAY", "INT32", "INT64", "FLOAT", "DOUBLE", "BOOLEAN")  # of a column
_BATCH_ROWS = 1024


def download_split(location: Location, split: str) -> tuple[list[Path], str]:
    """The files of a dataset's split, and the name that is published for it. Raises InputError if it has none."""
    files = download_splits(location, find_rows(location, split))[split]
    source = Path(location.name).resolve().name if location.revision is None else location
    return files, f"{source}:{split}"


class ParquetRecords:
    """The rows of Parquet files, one after the other, counted from 0. Columns that nobody asks for are not read."""

    word = "row"
    length = sys.maxsize  # not known: every cell is measured

    def __init__(self, files: Sequence[Path], *, file: str) -> None:
        self.number = -1
        self._files = files
        self._file = file
        self.names = list(dict.fromkeys(path.partition(".")[0] for path in self._check(files[0], ())))

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
        wanted = list(dict.fromkeys(names))
        for path in self._files:
            present = self._check(path, wanted)
            if missing := [name for name in wanted if name not in present]:
                raise InputError(
                    f"{self._file}: {path.name} has no column {', '.join(missing)}, unlike the first file"
                )
            for columns in self._batches(path, wanted):
                for cells in zip(*(columns[wanted.index(name)] for name in names), strict=True):
                    self.number += 1
                    yield tuple(
                        cell_text(cell, where=f"{self._file}, row {self.number}: {name}")
                        for name, cell in zip(names, cells, strict=True)
                    )

    def _check(self, path: Path, names: Sequence[str]) -> list[str]:
        try:
            present = check_parquet(path, dict.fromkeys(names, _TYPES))
        except (ParquetError, OSError) as error:
            raise InputError(
                f"{self._file}: is a Parquet file that cannot be read ({first_line(error)}); save it again"
            ) from error
        for name in names:
            if ".list." in name or (name not in present and any(one.startswith(f"{name}.") for one in present)):
                raise InputError(f"{self._file}: column {name} of {path.name} has lists or structs; save it as text")
        return present

    def _batches(self, path: Path, names: list[str]) -> Iterator[list[list[Any]]]:
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(_BATCH_ROWS, columns=names):
                    yield [_values(batch.column(name)) for name in names]
        except InputError:
            raise
        except DAMAGED as error:
            raise InputError(f"{self._file}: damaged ({first_line(error)}); download or save it again") from error


def _values(column: pa.Array) -> list[Any]:
    values: list[Any] = column.to_pylist()
    if pa.types.is_float32(column.type):  # 0.1 is 0.10000000149011612 as a float of Python
        return [None if value is None else float(str(np.float32(value))) for value in values]
    return values
