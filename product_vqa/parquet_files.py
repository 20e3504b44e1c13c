"""Check a Parquet file that a stranger wrote, before it is read: its columns, and the memory that reading it takes.

A file on disk is checked at once (`check_parquet`); of one that is read by ranges of its bytes, first the footer and
then each row group (`product_vqa.parquet_streams`).

A file of 66 kB can hold 2 GB: a page may be compressed, and a value that occurs often is stored once. The
sizes in the file's footer cannot be trusted. Arrow allocates what the header of each page states, so these headers are
read here, without the pages. The row groups in the footer are read here too: asked for their columns, pyarrow ends the
process if their statistics contradict each other.
"""

import os
import stat
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
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


@dataclass(frozen=True)
class ColumnChunk:
    """What the footer says about a column of a row group."""

    path: str
    num_values: int
    start: int  # of its first page in the file
    num_bytes: int  # in the file
    other_file: bytes


@dataclass(frozen=True)
class RowGroup:
    num_rows: int
    chunks: list[ColumnChunk]


@dataclass(frozen=True)
class Footer:
    metadata: pq.FileMetaData
    paths: list[str]  # of all columns: `image.bytes`
    row_groups: list[RowGroup]


@dataclass(frozen=True)
class Source:
    """The bytes of a file."""

    size: int
    read: Callable[[int, int], bytes]  # (length, start), like `os.pread`
    open: Callable[..., pq.ParquetFile]  # with pyarrow; takes the options of `pq.ParquetFile`


def check_parquet(file: Path, columns: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Check that reading these columns takes no more memory and disk space than the limits allow.

    `columns` maps the path of each column (`image.bytes`; `x.list.element` of a list) to the physical types that it
    may have (`BYTE_ARRAY`). A column that the file lacks is not an error. Returns the paths of all columns. Raises
    ParquetError, or OSError if the file cannot be read.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb"):
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ParquetError("it is not a regular file")
        source = Source(status.st_size, read=partial(os.pread, descriptor), open=partial(pq.ParquetFile, file))
        with damage_explained():
            footer = read_footer(source, columns)
            _check_sizes(source, footer.row_groups, columns)
            return footer.paths


@contextmanager
def damage_explained() -> Iterator[None]:
    """Raise ParquetError for what pyarrow raises where a file is damaged."""
    try:
        yield
    except (pa.ArrowException, OSError, MemoryError, struct.error, UnicodeDecodeError, OverflowError) as error:
        raise ParquetError(f"it is damaged: {' '.join(str(error).split())[:200]}") from error


def read_footer(source: Source, columns: Mapping[str, tuple[str, ...]]) -> Footer:
    """Read a file's footer. Raises ParquetError if it is damaged, or one of `columns` has another type."""
    if source.size < 12:
        raise ParquetError(f"it has {source.size} bytes and is not a Parquet file")
    end = source.read(8, source.size - 8)
    length, magic = struct.unpack("<I4s", end)
    if magic != b"PAR1" or length > source.size - 12:
        raise ParquetError("it does not end like a Parquet file: truncated, or not one")
    if length > MAX_FOOTER_BYTES:
        raise ParquetError(f"its footer has {length} bytes, more than {MAX_FOOTER_BYTES}")
    footer = source.read(length, source.size - 8 - length)
    metadata = pq.read_metadata(BytesIO(b"PAR1" + footer + end))
    paths = _check_columns(metadata, columns)
    row_groups = _read_row_groups(footer)
    if len(row_groups) != metadata.num_row_groups:
        raise ParquetError("its footer is damaged")
    return Footer(metadata, paths, row_groups)


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
        if column.physical_type not in types or column.max_repetition_level != path.count(".list."):
            kind = f"a list of {column.physical_type}" if column.max_repetition_level else column.physical_type
            raise ParquetError(f"its column {path} is {kind}, not {' or '.join(types)}")
    return list(seen)


def _check_sizes(source: Source, row_groups: list[RowGroup], columns: Mapping[str, tuple[str, ...]]) -> None:
    limit = max(MIN_LIMIT_BYTES, MAX_EXPANSION * source.size)
    total = 0
    for number, row_group in enumerate(row_groups):
        total += measure_row_group(source, row_group, columns, number=number, budget=limit - total)
        if total > limit:
            raise ParquetError(
                f"its {source.size} bytes take more than {limit} in memory; it looks like a decompression bomb"
            )


def measure_row_group(
    source: Source, row_group: RowGroup, columns: Collection[str], *, number: int, budget: int = MAX_ROW_GROUP_BYTES
) -> int:
    """Return the bytes that reading these columns of a row group takes in memory at most.

    Only the headers of their pages are read; the pages too, but not all of their values at once, where the headers
    allow more than `budget`. Raises ParquetError above MAX_ROW_GROUP_BYTES, or if the row group is damaged.
    """
    check_num_rows(row_group, number=number)
    chunks = {}
    for chunk in row_group.chunks:
        if chunk.path not in columns:
            continue
        name = f"row group {number}, column {chunk.path}"
        if chunk.other_file:
            raise ParquetError(f"{name} is in another file: {chunk.other_file[:100]!r}")
        surplus = chunk.num_values - row_group.num_rows  # a list has a value for each element, and one if it is empty
        if surplus < 0 or (surplus and ".list." not in chunk.path):
            raise ParquetError(f"{name} states {chunk.num_values} values for {row_group.num_rows} rows")
        chunks[chunk.path] = _measure_chunk(source, chunk, name=name)
    bound = sum(chunk.max_bytes for chunk in chunks.values())
    if bound > min(budget, MAX_ROW_GROUP_BYTES):
        if sum(chunk.page_bytes for chunk in chunks.values()) > MAX_ROW_GROUP_BYTES:
            raise ParquetError(_too_large(number, bound))
        bound = sum(
            _measure_values(source, number, path) if chunk.is_repeating else chunk.max_bytes
            for path, chunk in chunks.items()
        )
    if bound > MAX_ROW_GROUP_BYTES:
        raise ParquetError(_too_large(number, bound))
    return bound


def check_num_rows(row_group: RowGroup, *, number: int) -> None:
    if not 0 <= row_group.num_rows * _BYTES_PER_VALUE <= MAX_ROW_GROUP_BYTES:
        raise ParquetError(f"row group {number} has {row_group.num_rows} rows; write it with smaller row groups")


def _too_large(row_group: int, bound: int) -> str:
    return (
        f"row group {row_group} takes {bound} bytes in memory, more than {MAX_ROW_GROUP_BYTES}; "
        "write it with smaller row groups"
    )


def _measure_values(source: Source, row_group: int, path: str) -> int:
    """Return the bytes that a column's values take, without making them: each distinct value is read once."""
    with source.open(read_dictionary=[path]) as parquet:
        column = parquet.read_row_group(row_group, columns=[path], use_threads=False).column(0)
    total = 0
    for array in column.chunks:
        while pa.types.is_nested(array.type):  # the one field of a struct, the elements of a list
            array = array.field(0) if pa.types.is_struct(array.type) else array.flatten()
        total += _BYTES_PER_VALUE * len(array)
        if pa.types.is_dictionary(array.type):
            total += pc.sum(pc.binary_length(array.dictionary).cast(pa.int64()).take(array.indices)).as_py() or 0
        else:
            total += int(array.nbytes)
    return total


@dataclass(frozen=True)
class _Chunk:
    """What reading a column of a row group takes at most."""

    page_bytes: int  # uncompressed
    max_bytes: int  # once each value is written out
    is_repeating: bool  # stores a value once that may occur often


def _measure_chunk(source: Source, chunk: ColumnChunk, *, name: str) -> _Chunk:
    """Read the headers of a column's pages, but not the pages."""
    if chunk.num_values == 0:
        return _Chunk(0, 0, is_repeating=False)
    start, left = chunk.start, chunk.num_bytes
    if start < 4 or left < 0 or start + left > source.size:
        raise ParquetError(f"{name} is outside the file: truncated, or damaged")
    values = page_bytes = dictionary_bytes = max_bytes = 0
    is_repeating = False
    while left > 0 and values < chunk.num_values:
        header, header_bytes = _read_header(source, start, min(left, _MAX_HEADER_BYTES), name=name)
        uncompressed, compressed = _integer(header, 2, _INT32), _integer(header, 3, _INT32)
        if not (0 <= uncompressed <= MAX_PAGE_BYTES and 0 <= compressed <= left - header_bytes):
            raise ParquetError(f"{name} has a page of {uncompressed} bytes ({compressed} in the file)")
        page_bytes += uncompressed
        if 7 in header:
            dictionary_bytes = max(dictionary_bytes, uncompressed)
        elif 5 in header or 8 in header:
            data = _value(header, 5 if 5 in header else 8, _STRUCT)
            count, encoding = _integer(data, 1, _INT32), _integer(data, 2 if 5 in header else 4, _INT32)
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


def _read_row_groups(footer: bytes) -> list[RowGroup]:
    """Read the row groups in a footer. Its schema is left to Arrow."""
    try:
        fields = _Compact(footer).read_struct()
        return [_as_row_group(row_group) for row_group in _list(fields, 4)]
    except (IndexError, ValueError) as error:
        raise ParquetError(f"its footer is damaged ({str(error)[:100]})") from error


def _as_row_group(fields: object) -> RowGroup:
    chunks = []
    for column in _list(fields, 1):
        column_metadata = _value(column, 3, _STRUCT)
        names = _list(column_metadata, 3)
        if not all(isinstance(name, bytes) for name in names):
            raise ValueError("the name of a column is not text")
        start = _integer(column_metadata, 9, _INT64)
        # Arrow reads from the dictionary's page, if the footer has a plausible one.
        dictionary = _integer(column_metadata, 11, _INT64)
        chunks.append(
            ColumnChunk(
                b".".join(names).decode(errors="replace"),
                num_values=_integer(column_metadata, 5, _INT64),
                start=dictionary if 0 < dictionary < start else start,
                num_bytes=_integer(column_metadata, 7, _INT64),
                other_file=_value(column, 1, _BINARY) or b"",
            )
        )
    return RowGroup(_integer(fields, 3, _INT64), chunks)


def _read_header(source: Source, start: int, length: int, *, name: str) -> tuple[dict[int, tuple[int, Any]], int]:
    """Read the header of a page: its fields by number, and its length in bytes."""
    window = 512
    while True:
        data = source.read(min(window, length), start)
        reader = _Compact(data)
        try:
            return reader.read_struct(), reader.position
        except IndexError as error:
            if len(data) >= length or len(data) < window:
                raise ParquetError(f"{name}: the header of a page is truncated or damaged") from error
        except ValueError as error:
            raise ParquetError(f"{name}: the header of a page is damaged ({error})") from error
        window *= 8


_TRUE, _FALSE, _INT8, _INT16, _INT32, _INT64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)


def _value(fields: object, number: int, kind: int) -> Any:
    """A field of a struct; None if it is missing or of another type, which Thrift would skip."""
    found, value = fields.get(number, (None, None)) if isinstance(fields, dict) else (None, None)
    return value if found == kind else None


def _integer(fields: object, number: int, kind: int) -> int:
    value = _value(fields, number, kind)
    return value if isinstance(value, int) else -1


def _list(fields: object, number: int) -> list[Any]:
    return _value(fields, number, _LIST) or []


class _Compact:
    """Reads a struct of Thrift's compact protocol, in which footers and the headers of pages are written.

    A struct is its fields by number: their type and value.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def read_struct(self, depth: int = 0) -> dict[int, tuple[int, Any]]:
        if depth > 16:
            raise ValueError("nested too deeply")
        fields: dict[int, tuple[int, Any]] = {}
        number = 0
        while head := self._byte():
            delta = head >> 4
            number = number + delta if delta else self._zigzag()
            if number in fields:
                raise ValueError(f"field {number} occurs twice")
            kind = head & 15
            value = kind == _TRUE if kind in (_TRUE, _FALSE) else self._read_value(kind, depth)
            fields[number] = kind, value
        return fields

    def _read_value(self, kind: int, depth: int) -> Any:
        if kind in (_INT16, _INT32, _INT64):
            return self._zigzag()
        if kind == _BINARY:
            return self._take(self._varint())
        if kind == _STRUCT:
            return self.read_struct(depth + 1)
        if kind == _LIST:
            return self._read_list(depth + 1)
        if kind in (_TRUE, _FALSE, _INT8):
            return self._byte()
        if kind == _DOUBLE:
            return self._take(8)
        raise ValueError(f"type {kind}")  # sets and maps, which Parquet has none of

    def _read_list(self, depth: int) -> list[Any]:
        if depth > 16:
            raise ValueError("nested too deeply")
        head = self._byte()
        length = head >> 4
        if length == 15:
            length = self._varint()
        if length > len(self.data) - self.position:  # an element takes a byte at least
            raise IndexError("a list is longer than its file")
        return [self._read_value(head & 15, depth) for _ in range(length)]

    def _byte(self) -> int:
        self.position += 1
        return self.data[self.position - 1]

    def _take(self, length: int) -> bytes:
        start = self.position
        self.position += length
        if self.position > len(self.data):
            raise IndexError
        return self.data[start : self.position]

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
