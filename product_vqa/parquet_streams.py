"""Read single row groups of a Parquet file by ranges of its bytes, each checked before its values are made.

The bytes that are checked are the bytes that are read: a row group is downloaded once, into memory.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from product_vqa.parquet_files import (
    MAX_EXPANSION,
    ParquetError,
    RowGroup,
    Source,
    check_num_rows,
    damage_explained,
    measure_row_group,
    read_footer,
)

MAX_STREAMED_BYTES = 512 * 1024**2  # of a row group, in the file and in memory: several are read at once
MIN_LIMIT_BYTES = 32 * 1024**2  # in memory; above, MAX_EXPANSION bytes for each byte in the file
_TAIL_BYTES = 1024**2  # of a file, read first: nearly always, the footer is in it
_MAX_GAP_BYTES = 256 * 1024  # between two columns; fewer bytes are downloaded with them, in one request
Read = Callable[[int, int], bytes]  # (length, start), like `os.pread`


class ParquetStream:
    """A Parquet file that is never complete in memory or on disk."""

    def __init__(self, read: Read, size: int, columns: Mapping[str, tuple[str, ...]]) -> None:
        """Read the footer. `columns` are those that are read, as in `check_parquet`.

        Raises ParquetError if the footer is damaged, or a row group is too large.
        """
        self._read, self._size, self._columns = read, size, columns
        with damage_explained():
            footer = read_footer(Source(size, read=_read_tail_first(read, size), open=_refuse), columns)
        self._metadata = footer.metadata
        self._row_groups = [
            replace(row_group, chunks=[chunk for chunk in row_group.chunks if chunk.path in columns])
            for row_group in footer.row_groups
        ]
        self.footer_bytes: int = footer.metadata.serialized_size
        self.paths = footer.paths  # of all columns of the file
        self.num_rows = [row_group.num_rows for row_group in footer.row_groups]
        self._ranges = [self._find_ranges(number, row_group) for number, row_group in enumerate(self._row_groups)]
        # The bytes of each row group that are requested. (`len` of a range overflows where a footer claims too much.)
        self.num_bytes = [sum(one.stop - one.start for one in ranges) for ranges in self._ranges]
        for number, num_bytes in enumerate(self.num_bytes):
            _check_size(num_bytes, "in the file", number=number)

    def _find_ranges(self, number: int, row_group: RowGroup) -> list[range]:
        """Find the ranges of the file that hold the columns of a row group: columns next to each other share one."""
        check_num_rows(row_group, number=number)
        found: list[range] = []
        for chunk in sorted(row_group.chunks if row_group.num_rows else [], key=lambda chunk: chunk.start):
            end = chunk.start + chunk.num_bytes
            if not 4 <= chunk.start <= end <= self._size:
                raise ParquetError(
                    f"row group {number}, column {chunk.path} is outside the file: truncated, or damaged"
                )
            if found and chunk.start - found[-1].stop <= _MAX_GAP_BYTES:
                found[-1] = range(found[-1].start, max(found[-1].stop, end))
            else:
                found.append(range(chunk.start, end))
        return found

    def read_row_group(self, number: int) -> pa.Table:
        """Read the columns of a row group. Raises ParquetError if it is damaged or exceeds a limit."""
        parts = {range_.start: self._read(len(range_), range_.start) for range_ in self._ranges[number]}
        file = _PartialFile(parts, self._size)
        source = Source(self._size, read=file.read_at, open=partial(pq.ParquetFile, file, metadata=self._metadata))
        with damage_explained():
            limit = max(MIN_LIMIT_BYTES, MAX_EXPANSION * self.num_bytes[number])
            num_bytes = measure_row_group(
                source, self._row_groups[number], self._columns, number=number, budget=min(limit, MAX_STREAMED_BYTES)
            )
            _check_size(num_bytes, "in memory", number=number)
            if num_bytes > limit:
                raise ParquetError(
                    f"the {self.num_bytes[number]} bytes of row group {number} take more than {limit} in memory; it "
                    "looks like a decompression bomb"
                )
            names = [path for path in self.paths if path in self._columns]
            table = source.open().read_row_group(number, columns=names, use_threads=False)
        if table.num_rows != self.num_rows[number]:
            raise ParquetError(f"row group {number} has {table.num_rows} of {self.num_rows[number]} rows")
        return table


def _check_size(num_bytes: int, where: str, *, number: int) -> None:
    if num_bytes > MAX_STREAMED_BYTES:
        raise ParquetError(
            f"row group {number} takes {num_bytes} bytes {where}, and at most {MAX_STREAMED_BYTES} can be streamed; "
            "write it with smaller row groups, or read a copy on disk, without `streaming`"
        )


def _read_tail_first(read: Read, size: int) -> Read:
    """Return a function that reads the footer, in one request if it can."""
    tail_start = max(0, size - _TAIL_BYTES)
    tail = read(size - tail_start, tail_start)

    def read_footer(length: int, start: int) -> bytes:
        if start < tail_start:
            return read(length, start)
        return tail[start - tail_start : start - tail_start + length]

    return read_footer


def _refuse(**options: object) -> pq.ParquetFile:
    raise AssertionError("a footer is read without opening the file")


class _PartialFile(io.RawIOBase):
    """A file with only some of its parts, by their first byte. Reading another part raises OSError."""

    def __init__(self, parts: Mapping[int, bytes], size: int) -> None:
        self._parts, self._size, self._position = parts, size, 0

    def read_at(self, length: int, start: int) -> bytes:
        """Return `length` bytes from `start`, or those up to the end of the part."""
        for first, content in self._parts.items():
            if first <= start < first + len(content):
                return content[start - first : start - first + length]
        raise OSError(f"its bytes from {start} belong to no column")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def read(self, size: int = -1) -> bytes:
        content = self.read_at(self._size if size < 0 else size, self._position)
        self._position += len(content)
        return content
