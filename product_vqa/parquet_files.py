"""Check a Parquet file that a stranger wrote, before it is read: its columns, and the memory that reading it takes.

A file of 66 kB can hold 2 GB: a page may be compressed, and a value that occurs often is stored once. The
sizes in the file's footer cannot be trusted. Arrow allocates what the header of each page states, so these headers are
read here, without the pages.
"""

import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

MAX_FOOTER_BYTES = 16 * 1024**2
MAX_PAGE_BYTES = 1024**3  # uncompressed
MAX_ROW_GROUP_BYTES = 2 * 1024**3  # in memory
MAX_EXPANSION = 100  # bytes in memory for each byte of the file ...
MIN_LIMIT_BYTES = 1024**3  # ... above this
MAX_COLUMNS = 1000
_MAX_HEADER_BYTES = 16 * 1024**2  # a page's header may contain the smallest and the largest value of the page
_BYTES_PER_VALUE = 16  # a string's offset, validity and index in a dictionary, rounded up
_DICTIONARY_ENCODINGS = (2, 8)
# Bit-packed and delta encodings state lengths; only DELTA_BYTE_ARRAY (7) repeats bytes that are stored once.
_BOUNDED_ENCODINGS = (0, 3, 4, 5, 6, 9)


class ParquetError(ValueError):
    """Raised for a file that is damaged or exceeds a limit. The message is one line, without the file's name."""


def check_parquet(file: Path, columns: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Check that reading these columns takes no more memory and disk space than the limits allow.

    `columns` maps the path of each column (`image.bytes`) to the physical types that it may have (`BYTE_ARRAY`). A
    column that the file lacks is not an error. Returns the paths of all columns of the file. Raises ParquetError, or
    OSError if the file cannot be read.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ParquetError("it is not a regular file")
        if status.st_size < 12:
            raise ParquetError(f"it has {status.st_size} bytes and is not a Parquet file")
        length, magic = struct.unpack("<I4s", os.pread(descriptor, 8, status.st_size - 8))
        if magic != b"PAR1" or length > status.st_size - 12:
            raise ParquetError("it does not end like a Parquet file: truncated, or not one")
        if length > MAX_FOOTER_BYTES:
            raise ParquetError(f"its footer has {length} bytes, more than {MAX_FOOTER_BYTES}")
        try:
            metadata = pq.read_metadata(stream)
            paths = _check_columns(metadata, columns)
            _check_sizes(descriptor, file, metadata, columns, size=status.st_size)
            return paths
        except (pa.ArrowException, OSError, MemoryError, struct.error, UnicodeDecodeError, OverflowError) as error:
            raise ParquetError(f"it is damaged: {' '.join(str(error).split())[:200]}") from error


def _check_columns(metadata: pq.FileMetaData, columns: Mapping[str, tuple[str, ...]]) -> list[str]:
    if metadata.num_columns > MAX_COLUMNS:
        raise ParquetError(f"it has {metadata.num_columns} columns, more than {MAX_COLUMNS}")
    seen: dict[str, Any] = {}
    for number in range(metadata.num_columns):
        column = metadata.schema.column(number)
        if column.path in seen:
            raise ParquetError(f"its column {column.path!r} occurs twice")
        seen[column.path] = column
    for path, types in columns.items():
        column = seen.get(path)
        if column is None:
            continue
        if column.physical_type not in types or column.max_repetition_level > 0:
            kind = f"a list of {column.physical_type}" if column.max_repetition_level else column.physical_type
            raise ParquetError(f"its column {path} is {kind}, not {' or '.join(types)}")
    return list(seen)


def _check_sizes(
    descriptor: int, file: Path, metadata: pq.FileMetaData, columns: Mapping[str, tuple[str, ...]], *, size: int
) -> None:
    limit = max(MIN_LIMIT_BYTES, MAX_EXPANSION * size)
    total = 0
    for number in range(metadata.num_row_groups):
        row_group = metadata.row_group(number)
        if not 0 <= row_group.num_rows * _BYTES_PER_VALUE <= MAX_ROW_GROUP_BYTES:
            raise ParquetError(f"row group {number} has {row_group.num_rows} rows; write it with smaller row groups")
        chunks = {}
        for index in range(row_group.num_columns):
            chunk = row_group.column(index)
            if chunk.path_in_schema not in columns:
                continue
            name = f"row group {number}, column {chunk.path_in_schema}"
            if chunk.file_path:
                raise ParquetError(f"{name} is in another file: {chunk.file_path[:100]!r}")
            if chunk.num_values != row_group.num_rows:
                raise ParquetError(f"{name} states {chunk.num_values} values for {row_group.num_rows} rows")
            chunks[chunk.path_in_schema] = _measure_chunk(descriptor, chunk, name=name, file_size=size)
        bound = sum(chunk.max_bytes for chunk in chunks.values())
        if total + bound > limit or bound > MAX_ROW_GROUP_BYTES:
            if sum(chunk.page_bytes for chunk in chunks.values()) > MAX_ROW_GROUP_BYTES:
                raise ParquetError(_too_large(number, bound))
            bound = sum(
                _measure_values(file, number, path) if chunk.is_repeating else chunk.max_bytes
                for path, chunk in chunks.items()
            )
        if bound > MAX_ROW_GROUP_BYTES:
            raise ParquetError(_too_large(number, bound))
        total += bound
        if total > limit:
            raise ParquetError(
                f"its {size} bytes take more than {limit} in memory; it looks like a decompression bomb"
            )


def _too_large(row_group: int, bound: int) -> str:
    return (
        f"row group {row_group} takes {bound} bytes in memory, more than {MAX_ROW_GROUP_BYTES}; "
        "write it with smaller row groups"
    )


def _measure_values(file: Path, row_group: int, path: str) -> int:
    """Return the bytes that a column's values take, without making them: each distinct value is read once."""
    with pq.ParquetFile(file, read_dictionary=[path]) as parquet:
        column = parquet.read_row_group(row_group, columns=[path], use_threads=False).column(0)
    total = _BYTES_PER_VALUE * len(column)
    for array in column.chunks:
        if pa.types.is_struct(array.type):
            array = array.field(0)
        if not pa.types.is_dictionary(array.type):
            return total + int(array.nbytes)
        lengths = pc.binary_length(array.dictionary).cast(pa.int64()).take(array.indices)
        total += pc.sum(lengths).as_py() or 0
    return total


@dataclass(frozen=True)
class _Chunk:
    """What reading a column of a row group takes at most."""

    page_bytes: int  # uncompressed
    max_bytes: int  # once each value is written out
    is_repeating: bool  # stores a value once that may occur often


def _measure_chunk(descriptor: int, chunk: pq.ColumnChunkMetaData, *, name: str, file_size: int) -> _Chunk:
    """Read the headers of a column's pages, but not the pages."""
    if chunk.num_values == 0:
        return _Chunk(0, 0, is_repeating=False)
    # Arrow reads from the dictionary's page, if the footer has a plausible one.
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
        start = chunk.dictionary_page_offset
    left = chunk.total_compressed_size
    if start < 4 or left < 0 or start + left > file_size:
        raise ParquetError(f"{name} is outside the file: truncated, or damaged")
    values = page_bytes = dictionary_bytes = max_bytes = 0
    is_repeating = False
    while left > 0 and values < chunk.num_values:
        header, header_bytes = _read_header(descriptor, start, min(left, _MAX_HEADER_BYTES), name=name)
        uncompressed, compressed = _integer(header, 2), _integer(header, 3)
        if not (0 <= uncompressed <= MAX_PAGE_BYTES and 0 <= compressed <= left - header_bytes):
            raise ParquetError(f"{name} has a page of {uncompressed} bytes ({compressed} in the file)")
        page_bytes += uncompressed
        if 7 in header:
            dictionary_bytes = max(dictionary_bytes, uncompressed)
        elif 5 in header or 8 in header:
            data = header[5] if 5 in header else header[8]
            count, encoding = _integer(data, 1), _integer(data, 2 if 5 in header else 4)
            if count < 0 or values + count > chunk.num_values:
                raise ParquetError(f"{name} has more values than its footer states")
            values += count
            max_bytes += uncompressed + _BYTES_PER_VALUE * count
            if encoding in _DICTIONARY_ENCODINGS:
                is_repeating = True
                max_bytes += dictionary_bytes * count
            elif encoding not in _BOUNDED_ENCODINGS:
                raise ParquetError(f"{name} has the encoding {encoding}, which is not supported")
        start += header_bytes + compressed
        left -= header_bytes + compressed
    if values != chunk.num_values:
        raise ParquetError(f"{name} has {values} of {chunk.num_values} values: truncated, or damaged")
    return _Chunk(page_bytes + dictionary_bytes, max_bytes, is_repeating)


def _read_header(descriptor: int, start: int, length: int, *, name: str) -> tuple[dict[int, Any], int]:
    """Read the header of a page: its fields by number, and its length in bytes."""
    window = 512
    while True:
        data = os.pread(descriptor, min(window, length), start)
        reader = _Compact(data)
        try:
            return reader.read_struct(), reader.position
        except IndexError as error:
            if len(data) >= length or len(data) < window:
                raise ParquetError(f"{name}: the header of a page is truncated or damaged") from error
        except ValueError as error:
            raise ParquetError(f"{name}: the header of a page is damaged ({error})") from error
        window *= 8


def _integer(fields: object, number: int) -> int:
    value = fields.get(number) if isinstance(fields, dict) else None
    return value if isinstance(value, int) else -1


class _Compact:
    """Reads a struct of Thrift's compact protocol, in which the headers of pages are written."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def read_struct(self, depth: int = 0) -> dict[int, Any]:
        if depth > 8:
            raise ValueError("nested too deeply")
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            delta = head >> 4
            number = number + delta if delta else self._zigzag()
            fields[number] = self._read_value(head & 15, depth)
        return fields

    def _read_value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind == 7:
            return self._skip(8)
        if kind == 8:
            return self._skip(self._varint())
        if kind == 12:
            return self.read_struct(depth + 1)
        raise ValueError(f"type {kind}")  # lists, sets and maps, which no page's header has

    def _byte(self) -> int:
        self.position += 1
        return self.data[self.position - 1]

    def _skip(self, length: int) -> None:
        self.position += length
        if self.position > len(self.data):
            raise IndexError

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
