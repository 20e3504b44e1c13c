"""Read a split of a published dataset without a copy on disk: row group by row group, from the Hub or a folder.

Every check that `product_vqa.dataset` makes of all rows at once is made of each row group when it is read.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetInfo
from datasets.table import InMemoryTable, table_cast

from product_vqa.daemon_threads import DaemonExecutor, waiting
from product_vqa.dataset import (
    COLUMNS,
    DAMAGED,
    ENTITY_COLUMN,
    STORED_FEATURES,
    check_columns,
    check_counts,
    check_rows,
    dataset_error,
    find_rows,
    find_splits,
)
from product_vqa.errors import InputError, first_line
from product_vqa.hub import Location, file_sizes, read_range
from product_vqa.parquet_files import ParquetError
from product_vqa.parquet_streams import ParquetStream
from product_vqa.schemas import load_schema
from product_vqa.task.attributes import Schema

READERS = 4  # requests at once, per process
MAX_ROWS = 20_000_000  # of a split: some numbers of each row are held in memory
MAX_ROW_GROUPS = 200_000  # of a split: 100 rows in each
MAX_FOOTER_BYTES = 256 * 1024**2  # of the files of a split, which are held in memory
MAX_LOADED_BYTES = 1024**3  # of what `StreamedSplit.load` returns

T = TypeVar("T")
S = TypeVar("S")


def open_split(location: Location, split: str) -> "StreamedSplit | None":
    """Read the footers of the files of a split; None if the dataset does not have it.

    Raises InputError if there is no dataset, its columns differ, or a file is damaged.
    """
    names = find_splits(location).get(split)
    if not names:
        return None
    streams = _open_streams(location, names, COLUMNS)
    for stream in streams:
        check_columns(stream.paths, location=location, split=split)
    opened = StreamedSplit(location, split, names, streams, schema=load_schema(location))
    if find_rows(location, split)[split] != names:
        opened.entities()  # from a table without images: a few requests, instead of one for each row group
    return opened


def read_entities(location: Location, split: str) -> list[str]:
    """Read the entity of each row of a split, from the table without images if the dataset has it.

    Raises InputError if there is no such split, or a file is damaged. An entity may be unknown.
    """
    names = find_rows(location, split)[split]
    streams = _open_streams(location, names, ENTITY_COLUMN)
    row_groups = [group for group in _list_row_groups(names, streams) if group.num_rows]
    entities: list[str] = []
    for values in _in_threads(partial(_read_entities, location), row_groups):
        entities += values
    return entities


def count_streamed_entities(location: Location, split: str) -> dict[str, int]:
    """Count the rows of each entity in a split, as `product_vqa.dataset.count_entities` does."""
    counts = Counter(read_entities(location, split))
    known = {entity: counts[entity] for entity in load_schema(location).names}
    return check_counts(known, location=location, split=split)


@dataclass(frozen=True)
class _RowGroup:
    name: str  # of its file
    stream: ParquetStream
    number: int  # in its file

    def __str__(self) -> str:
        return f"{self.name}, row group {self.number}"

    @property
    def num_rows(self) -> int:
        return self.stream.num_rows[self.number]


def _list_row_groups(names: Sequence[str], streams: Sequence[ParquetStream]) -> list[_RowGroup]:
    return [
        _RowGroup(name, stream, number)
        for name, stream in zip(names, streams, strict=True)
        for number in range(len(stream.num_rows))
    ]


def _open_streams(
    location: Location, names: Sequence[str], columns: Mapping[str, tuple[str, ...]]
) -> list[ParquetStream]:
    sizes = file_sizes(location, repo_type="dataset")

    def open_stream(name: str) -> ParquetStream:
        if name not in sizes:
            raise dataset_error(location, f"its file {name!r} does not exist")

        def read(length: int, start: int) -> bytes:
            with waiting():
                return read_range(location, name, start=start, length=length, repo_type="dataset")

        try:
            return ParquetStream(read, sizes[name], columns)
        except ParquetError as error:
            raise dataset_error(location, f"{name}: {first_line(error)}") from error

    streams: list[ParquetStream] = []
    totals = [
        (MAX_ROWS, "rows", lambda stream: sum(stream.num_rows)),
        (MAX_ROW_GROUPS, "row groups", lambda stream: len(stream.num_rows)),
        (MAX_FOOTER_BYTES, "bytes of footers", lambda stream: stream.footer_bytes),
    ]
    for stream in _in_threads(open_stream, names):
        streams.append(stream)
        for limit, what, measure in totals:
            if (total := sum(map(measure, streams))) > limit:
                raise dataset_error(
                    location, f"{names[0]} and the other files of its split have {total} {what}, more than {limit}"
                )
    return streams


def _in_threads(function: Callable[[S], T], values: Iterable[S]) -> Iterator[T]:
    """Map `function` over values, in their order; the results of later ones are made meanwhile."""
    executor = DaemonExecutor(READERS)
    try:
        yield from executor.map(function, values)
    finally:
        executor.shutdown()


def _read_table(location: Location, row_group: _RowGroup) -> pa.Table:
    try:
        return row_group.stream.read_row_group(row_group.number)
    except InputError:  # of the Hub
        raise
    except DAMAGED as error:
        raise dataset_error(location, f"{row_group.name}: {first_line(error)}") from error


def _read_entities(location: Location, row_group: _RowGroup) -> list[str]:
    column = _read_table(location, row_group).column("entity_name")
    try:
        return [str(value) for value in column.cast(pa.string()).to_pylist()]
    except DAMAGED as error:
        raise dataset_error(location, f"{row_group}: {first_line(error)}") from error


class StreamedSplit:
    """The rows of a split, which are read by row group. Both are numbered over all files of the split."""

    def __init__(
        self,
        location: Location,
        split: str,
        names: Sequence[str],
        streams: Sequence[ParquetStream],
        *,
        schema: Schema,
    ) -> None:
        self.location = location
        self.split = split
        self.schema = schema
        self._row_groups = _list_row_groups(names, streams)
        self.num_rows = np.array([group.num_rows for group in self._row_groups], dtype=np.int64)
        self.num_bytes = np.array([n for stream in streams for n in stream.num_bytes], dtype=np.int64)  # of requests
        self.starts = np.cumsum(self.num_rows) - self.num_rows  # the first row of each row group
        self._entities: list[str] | None = None

    def __len__(self) -> int:
        return int(self.num_rows.sum())

    def __str__(self) -> str:
        return f"{self.location}: split {self.split}"

    def row_groups_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the row group of each row."""
        return np.searchsorted(np.cumsum(self.num_rows), rows, side="right")

    def entities(self) -> list[str]:
        """Return the entity of each row (see `read_entities`); rows that are read later must have the same."""
        if self._entities is None:
            self._entities = read_entities(self.location, self.split)
            if len(self._entities) != len(self):
                raise dataset_error(
                    self.location,
                    f"split {self.split} has {len(self)} rows with images, and {len(self._entities)} without",
                )
        return self._entities

    def read(self, row_group: int) -> pa.Table:
        """Read the rows of a row group, with the columns of STORED_FEATURES.

        Raises InputError, with the index of the row, if one of them is not a row of a built dataset, or if the Hub
        stays unreachable.
        """
        group = self._row_groups[row_group]
        table = _read_table(self.location, group)
        name = f"{self.location}: {group}"
        try:
            table = table_cast(table.select(list(STORED_FEATURES)), STORED_FEATURES.arrow_schema)
            check_rows(table, name=name, schema=self.schema)
        except InputError:
            raise
        except DAMAGED as error:
            raise dataset_error(self.location, f"{group}: {first_line(error)}") from error
        if self._entities is not None:
            start = self.starts[row_group]
            if table.column("entity_name").to_pylist() != self._entities[start : start + table.num_rows]:
                raise dataset_error(
                    self.location, f"{group}: its entities differ from those in the table without images"
                )
        return table

    def load(self, rows: Sequence[int], *, check: Callable[[pa.Table], None] = lambda table: None) -> Dataset:
        """Load some rows into memory, in this order. `check` gets each row group that has some of them.

        Raises InputError as `read` does, and if the rows take more than MAX_LOADED_BYTES.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        groups = self.row_groups_of(wanted)

        def take(group: int) -> pa.Table:
            table = self.read(group)
            check(table)
            return table.take(np.sort(wanted[groups == group]) - self.starts[group])

        tables: list[pa.Table] = []
        num_bytes = 0
        for table in _in_threads(take, np.unique(groups).tolist()):
            num_bytes += table.nbytes
            if num_bytes > MAX_LOADED_BYTES:
                raise InputError(
                    f"{self}: {len(wanted)} rows take more than {MAX_LOADED_BYTES} bytes of memory; lower "
                    "`max_eval_samples` and `max_card_samples`"
                )
            tables.append(table)
        # The tables hold the rows in ascending order; the rank of a row among them is its position there.
        order = np.argsort(np.argsort(wanted, kind="stable"), kind="stable")
        table = pa.concat_tables([STORED_FEATURES.arrow_schema.empty_table(), *tables]).take(order)
        return Dataset(InMemoryTable(table), info=DatasetInfo(features=STORED_FEATURES))
