"""Training rows that are read while they are trained on."""

import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch.utils.data import Dataset

from product_vqa.disk_space import format_bytes
from product_vqa.errors import InputError, argument
from product_vqa.modeling.collator import Row
from product_vqa.streaming import StreamedSplit
from product_vqa.task.attributes import Schema
from product_vqa.workers import is_worker
from training.read_ahead import ReadAhead


class StreamedRows(Dataset[Row]):
    """Labelled rows of a streamed split, by position. A row may have several positions.

    Any position can be read at any time, together with its row group. What `begin` names is read ahead of its use.

    A worker process of a data loader reads nothing: it gets references, which become the rows on the way to it. So
    each row is read once, however many workers decode images.
    """

    def __init__(self, split: StreamedSplit, rows: np.ndarray, *, schema: Schema) -> None:
        """`rows` (N,) has the row of the split at each position."""
        self._split, self._rows, self._schema = split, rows, schema
        self.row_groups = split.row_groups_of(rows)  # (N,) of each position
        self._reader = self._make_reader(rows[:0], max_rows=0)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> Row:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[Any]) -> list[Row]:
        """Read rows. In a worker process, `positions` are the rows themselves, or the error of reading one."""
        if not is_worker():
            return self._take(positions)
        for row in positions:
            if isinstance(row, Exception):
                raise row
        return list(positions)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # for a worker process that is not forked

    def begin(self, positions: np.ndarray, *, max_rows: int) -> None:
        """Read the rows at these positions ahead, in this order; about `max_rows` of them are in memory at most."""
        self._reader.close()
        self._reader = self._make_reader(self._rows[positions], max_rows=max_rows)

    def end(self) -> None:
        """Read nothing ahead any more, and drop what was."""
        self.begin(np.empty(0, dtype=np.int64), max_rows=0)

    def reference(self, position: int) -> "RowReference":
        """Return what stands for a position on the way to a worker process."""
        return RowReference(position, self._take)

    @property
    def num_bytes(self) -> int:
        """The bytes that an epoch reads."""
        return int(self._split.num_bytes[np.unique(self.row_groups)].sum())

    @property
    def num_distinct(self) -> int:
        return len(np.unique(self._rows))

    def entities(self) -> set[str]:
        """Return the entities of all rows. Where the dataset has no table without images, this reads for a while."""
        with argument("dataset_name"):
            entities = self._split.entities()
        return {entities[row] for row in self._rows}

    def _make_reader(self, upcoming: np.ndarray, *, max_rows: int) -> ReadAhead:
        return ReadAhead(self._read, self._split.row_groups_of, upcoming=upcoming, max_rows=max_rows)

    def _take(self, positions: Sequence[int]) -> list[Row]:
        return self._reader.take([int(self._rows[position]) for position in positions])

    def _read(self, row_group: int) -> dict[int, Row]:
        with argument("dataset_name"):
            table = self._split.read(row_group)
        name = f"`dataset_train_split` {self._split.split}"
        check_labels(table, schema=self._schema, name=name, remedy="choose a split with labels")
        return dict(enumerate(table.to_pylist(), start=int(self._split.starts[row_group])))


class RowReference(int):
    """The position of a row, which is pickled as the row, or as the error of reading it.

    A data loader hands batches of positions to its worker processes in queues. Each queue pickles in a thread of its
    own, so that nothing else waits while a row is read there.
    """

    _take: Callable[[Sequence[int]], list[Row]]

    def __new__(cls, position: int, take: Callable[[Sequence[int]], list[Row]]) -> "RowReference":
        reference = super().__new__(cls, position)
        reference._take = take
        return reference

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            return dict, (self._take([self])[0],)
        except InputError as error:
            return InputError, error.args
        except Exception:  # the queue would drop the batch, and the run would wait for it until a timeout
            return RuntimeError, (traceback.format_exc(),)


def check_labels(table: pa.Table, *, schema: Schema, name: str, remedy: str) -> None:
    """Raise InputError if a row has no label, and its attribute cannot be without one."""
    if schema.not_shown:
        may_be_empty = pc.is_in(table.column("entity_name"), pa.array(schema.not_shown))
        table = table.filter(pc.invert(may_be_empty))
    labels = table.column("entity_value")
    row = pc.index(labels, pa.scalar("", labels.type)).as_py()
    if row != -1:
        raise InputError(f"{name}: index {table.column('index')[row]} has no label (entity_value is empty): {remedy}")


def describe_stream(train: StreamedRows, test: StreamedSplit | None) -> str:
    """`Streaming: 2.5 GB in each epoch, and up to 130.1 MB for the evaluation; none of it is stored on disk`."""
    text = f"Streaming: {format_bytes(train.num_bytes)} in each epoch"
    if test is not None:
        text += f", and up to {format_bytes(int(test.num_bytes.sum()))} once for the evaluation"
    return f"{text}; none of it is stored on disk"
