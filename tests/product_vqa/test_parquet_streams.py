"""Parquet files of which row groups are read by ranges: the same rows, few requests, and the limits of whole files."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from product_vqa import parquet_streams
from product_vqa.parquet_files import ParquetError
from product_vqa.parquet_streams import ParquetStream

COLUMNS = {"index": ("INT64",), "image.bytes": ("BYTE_ARRAY",), "image.path": ("BYTE_ARRAY",), "text": ("BYTE_ARRAY",)}
IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def make_table(rows: int = 60, *, between: int = 0) -> pa.Table:
    """`between`: bytes per row of a column that nobody reads."""
    return pa.table(
        {
            "index": range(rows),
            "more": [os.urandom(between) for _ in range(rows)],
            "image": pa.array([{"bytes": os.urandom(3000), "path": f"{row}.jpg"} for row in range(rows)], IMAGE),
            "text": [str(row % 3) for row in range(rows)],
        }
    )


class Requests:
    """A file, and the ranges of it that were read: (start, length)."""

    def __init__(self, file: Path) -> None:
        self.content = file.read_bytes()
        self.ranges: list[tuple[int, int]] = []

    def __call__(self, length: int, start: int) -> bytes:
        self.ranges.append((start, length))
        return self.content[start : start + length]

    def stream(self, columns: dict[str, tuple[str, ...]] = COLUMNS) -> ParquetStream:
        return ParquetStream(self, len(self.content), columns)


def write(file: Path, table: pa.Table, **options: Any) -> Requests:
    pq.write_table(table, file, **({"row_group_size": 25} | options))
    return Requests(file)


OPTIONS: list[dict[str, Any]] = [
    {}, {"compression": "zstd"}, {"data_page_version": "2.0"}, {"use_dictionary": False}, {"write_page_index": True},
    {"data_page_size": 1000},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_each_row_group_is_read_as_it_was_written_in_one_request(tmp_path: Path, options: dict[str, Any]) -> None:
    table = make_table()
    requests = write(tmp_path / "a.parquet", table, **options)
    stream = requests.stream()
    assert stream.paths == ["index", "more", "image.bytes", "image.path", "text"]
    assert stream.num_rows == [25, 25, 10]
    assert len(requests.ranges) == 1  # the footer
    requests.ranges.clear()
    for number in (2, 0, 1):
        read = stream.read_row_group(number)
        assert read.equals(table.select(["index", "image", "text"]).slice(25 * number, 25))
    assert len(requests.ranges) == 3
    assert [length for _, length in requests.ranges] == [stream.num_bytes[number] for number in (2, 0, 1)]
    assert all(0 < size - 3000 * rows < 10_000 for rows, size in zip(stream.num_rows, stream.num_bytes, strict=True))


def test_a_large_column_that_nobody_reads_is_not_requested(tmp_path: Path) -> None:
    requests = write(tmp_path / "a.parquet", make_table(50, between=20_000))
    stream = requests.stream()
    requests.ranges.clear()
    assert stream.read_row_group(1).num_rows == 25
    assert len(requests.ranges) == 2
    assert sum(length for _, length in requests.ranges) == stream.num_bytes[1] < 90_000
    entities = requests.stream({"text": ("BYTE_ARRAY",)})
    requests.ranges.clear()
    assert entities.read_row_group(0).column_names == ["text"]
    assert requests.ranges[0][1] == entities.num_bytes[0] < 200


def test_a_footer_of_more_than_the_first_request_is_read_in_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_streams, "_TAIL_BYTES", 100)
    requests = write(tmp_path / "a.parquet", make_table())
    assert requests.stream().num_rows == [25, 25, 10]
    assert len(requests.ranges) == 2


def test_a_file_cut_or_garbled_at_any_byte_ends_in_one_line_or_in_rows(tmp_path: Path) -> None:
    columns = {"index": [1, 2], "image": pa.array([{"bytes": b"abc", "path": "x"}] * 2, IMAGE), "text": ["a", "b"]}
    requests = write(tmp_path / "a.parquet", pa.table(columns))
    data, messages = requests.content, []
    for position in range(0, len(data), 3):
        for broken in (data[:position], data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]):
            requests.content = broken
            try:
                stream = requests.stream()
                for number in range(len(stream.num_rows)):
                    stream.read_row_group(number)
            except ParquetError as error:
                messages.append(str(error))
    assert all("\n" not in message and len(message) < 400 for message in messages)
    assert len(messages) > len(data) / 3


def test_a_row_group_that_is_too_large_is_refused_before_it_is_requested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_streams, "MAX_STREAMED_BYTES", 50_000)
    requests = write(tmp_path / "a.parquet", make_table())
    with pytest.raises(ParquetError, match=r"row group 0 takes \d{5} bytes in the file, and at most 50000 can be str"):
        requests.stream()
    assert len(requests.ranges) == 1


def test_a_bomb_is_refused_before_its_values_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that is stored once, and pages that are compressed."""
    image = {"bytes": b"\0" * 90_000, "path": None}
    table = pa.table({"image": pa.array([image] * 30, IMAGE)})
    monkeypatch.setattr(parquet_streams, "MIN_LIMIT_BYTES", 1_000_000)
    for options in ({}, {"compression": "zstd", "use_dictionary": False}):
        stream = write(tmp_path / "a.parquet", table, row_group_size=30, **options).stream()
        with pytest.raises(ParquetError, match=r"row group 0 take more than 1\d{6} in memory; it looks like a decomp"):
            stream.read_row_group(0)
    monkeypatch.setattr(parquet_streams, "MAX_STREAMED_BYTES", 2_000_000)
    with pytest.raises(
        ParquetError, match=r"row group 0 takes 2\d{6} bytes in memory, and at most 2000000 can be str"
    ):
        stream.read_row_group(0)


def test_statistics_that_contradict_the_schema_do_not_end_the_process(tmp_path: Path) -> None:
    requests = write(tmp_path / "a.parquet", pa.table({"text": ["a", None, "b"]}))
    optional, required = b"\x25\x02\x18\x04text", b"\x25\x00\x18\x04text"  # in the schema: may it be null?
    assert requests.content.count(optional) == 1
    (tmp_path / "a.parquet").write_bytes(requests.content.replace(optional, required))
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from product_vqa.parquet_streams import ParquetStream\n"
        "data = Path(sys.argv[1]).read_bytes()\n"
        "stream = ParquetStream(lambda n, start: data[start : start + n], len(data), {'text': ('BYTE_ARRAY',)})\n"
        "try:\n"
        "    stream.read_row_group(0)\n"
        "except ValueError as error:\n"
        "    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "a.parquet"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("it is damaged: ") and done.stdout.count("\n") == 1


def test_what_a_footer_claims_is_not_believed(tmp_path: Path) -> None:
    """A row group of more rows than it has, and a file that has changed since its footer was read."""
    requests = write(tmp_path / "a.parquet", make_table())
    stream = requests.stream()
    requests.content = requests.content[: len(requests.content) // 2] + os.urandom(len(requests.content) // 2)
    with pytest.raises(ParquetError):
        stream.read_row_group(2)
    stream._row_groups[0] = stream._row_groups[0].__class__(10**12, stream._row_groups[0].chunks)
    with pytest.raises(ParquetError, match="row group 0 has 1000000000000 rows"):
        stream.read_row_group(0)
