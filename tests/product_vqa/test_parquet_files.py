"""Parquet files of strangers: what reading them would take is known before they are read."""

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from product_vqa import parquet_files
from product_vqa.parquet_files import MAX_FOOTER_BYTES, ParquetError, check_parquet

COLUMNS = {"index": ("INT64",), "image.bytes": ("BYTE_ARRAY",), "text": ("BYTE_ARRAY",)}
IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def write(file: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), file, **options)
    return file


def test_the_columns_of_a_plain_file_are_returned_in_order(tmp_path: Path) -> None:
    images = pa.array([{"bytes": b"abc", "path": None}, None], IMAGE)
    for options in ({}, {"compression": "zstd"}, {"data_page_version": "2.0"}, {"use_dictionary": False}):
        file = write(tmp_path / "a.parquet", {"index": [1, 2], "image": images, "text": ["a", None]}, **options)
        assert check_parquet(file, COLUMNS) == ["index", "image.bytes", "image.path", "text"]
    assert check_parquet(write(tmp_path / "b.parquet", {"x": [1.5]}), COLUMNS) == ["x"]
    empty = {"index": pa.array([], pa.int64()), "text": pa.array([], pa.string())}
    assert check_parquet(write(tmp_path / "c.parquet", empty), COLUMNS) == ["index", "text"]


def test_many_row_groups_and_pages_are_measured(tmp_path: Path) -> None:
    images = pa.array([{"bytes": os.urandom(3000), "path": f"{row}.jpg"} for row in range(500)], IMAGE)
    columns = {"index": range(500), "image": images, "text": [str(row) for row in range(500)]}
    columns["index"] = pa.array(columns["index"])
    file = write(tmp_path / "a.parquet", columns, row_group_size=50, data_page_size=1000)
    assert pq.read_metadata(file).num_row_groups == 10
    assert "image.bytes" in check_parquet(file, COLUMNS)


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousandth of the limits, so that the files are written in no time."""
    monkeypatch.setattr(parquet_files, "MAX_PAGE_BYTES", 1_000_000)
    monkeypatch.setattr(parquet_files, "MAX_ROW_GROUP_BYTES", 2_000_000)
    monkeypatch.setattr(parquet_files, "MIN_LIMIT_BYTES", 1_000_000)


@pytest.mark.usefixtures("small_limits")
def test_values_that_are_stored_once_and_repeated_are_refused(tmp_path: Path) -> None:
    """4 kB that would take 2.7 MB, and 40 kB that would take 27 MB, in row groups that are small each."""
    image = {"bytes": b"x" * 9_000, "path": None}
    one_group = write(tmp_path / "a.parquet", {"image": pa.array([image] * 300, IMAGE)})
    assert one_group.stat().st_size < 5_000
    with pytest.raises(ParquetError, match=r"row group 0 takes 270\d\d\d\d bytes in memory, more than 2000000; write"):
        check_parquet(one_group, COLUMNS)
    groups = write(tmp_path / "b.parquet", {"image": pa.array([image] * 3000, IMAGE)}, row_group_size=100)
    assert groups.stat().st_size < 100_000
    with pytest.raises(ParquetError, match="it looks like a decompression bomb"):
        check_parquet(groups, COLUMNS)


@pytest.mark.usefixtures("small_limits")
def test_a_dictionary_with_one_long_value_is_measured_by_how_often_that_occurs(tmp_path: Path) -> None:
    """By the longest value, it would take 10,000 x 9 kB."""
    texts = ["x" * 9_000, *["short"] * 10_000]
    assert check_parquet(write(tmp_path / "a.parquet", {"text": texts}), COLUMNS) == ["text"]
    with pytest.raises(ParquetError, match="it looks like a decompression bomb"):
        check_parquet(write(tmp_path / "a.parquet", {"text": ["x" * 9_000] * 200}), COLUMNS)


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("compression", ["zstd", "gzip", "brotli", "snappy", "lz4"])
def test_compressed_pages_are_measured_by_their_own_headers(tmp_path: Path, compression: str) -> None:
    for size, message in ((1_100_000, r"a page of 11000\d\d bytes"), (90_000, "in memory")):
        image = {"bytes": b"\0" * size, "path": None}
        file = write(
            tmp_path / "a.parquet", {"image": pa.array([image] * (2_700_000 // size), IMAGE)},
            compression=compression, use_dictionary=False, data_page_size=1, write_batch_size=1,
        )  # fmt: skip
        assert file.stat().st_size < 200_000
        with pytest.raises(ParquetError, match=message):
            check_parquet(file, COLUMNS)


@pytest.mark.usefixtures("small_limits")
def test_rows_without_values_count_too(tmp_path: Path) -> None:
    """Run lengths: a billion nulls fit into a few hundred bytes."""
    for rows, message in ((70_000, "take more than 1000000 in memory"), (200_000, "row group 0 has 200000 rows")):
        empty = {"text": pa.nulls(rows, pa.string())}
        with pytest.raises(ParquetError, match=message):
            check_parquet(write(tmp_path / "a.parquet", empty, row_group_size=rows), COLUMNS)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": [1]}, "its column text is INT64, not BYTE_ARRAY"),
        ({"text": [["a"]]}, None),  # its path is text.list.element
        ({"index": ["1"]}, "its column index is BYTE_ARRAY, not INT64"),
        ({"image": pa.array([{"bytes": 1}], pa.struct({"bytes": pa.int64()}))}, "image.bytes is INT64"),
        ({f"column {number}": [1] for number in range(1001)}, "it has 1001 columns, more than 1000"),
    ],
)  # fmt: skip
def test_columns_of_other_types_are_named(tmp_path: Path, columns: dict[str, Any], message: str | None) -> None:
    file = write(tmp_path / "a.parquet", columns)
    if message is None:
        assert "text" not in check_parquet(file, COLUMNS)
        return
    with pytest.raises(ParquetError, match=message):
        check_parquet(file, COLUMNS)


def test_a_column_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array(["a"])], ["text", "text"]), tmp_path / "a.parquet")
    with pytest.raises(ParquetError, match="its column 'text' occurs twice"):
        check_parquet(tmp_path / "a.parquet", COLUMNS)


def test_an_encoding_that_repeats_bytes_is_refused(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.parquet", {"text": ["x" * 9] * 9}, use_dictionary=False,
        column_encoding={"text": "DELTA_BYTE_ARRAY"},
    )  # fmt: skip
    with pytest.raises(ParquetError, match="column text has the encoding 7, which is not supported"):
        check_parquet(file, COLUMNS)


def test_a_file_cut_or_garbled_at_any_byte_ends_in_one_line(tmp_path: Path) -> None:
    columns = {"index": [1, 2], "image": pa.array([{"bytes": b"abc", "path": "x"}] * 2, IMAGE), "text": ["a", "b"]}
    data = write(tmp_path / "a.parquet", columns).read_bytes()
    messages = []
    for position in range(0, len(data), 2):
        for broken in (data[:position], data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]):
            (tmp_path / "b.parquet").write_bytes(broken)
            try:
                check_parquet(tmp_path / "b.parquet", COLUMNS)
            except ParquetError as error:
                messages.append(str(error))
    assert all("\n" not in message and len(message) < 400 for message in messages)
    assert len(messages) > len(data) / 2  # each cut, and some of the garbled ones


def test_what_is_not_a_file_or_has_an_enormous_footer_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.parquet")
    with pytest.raises(ParquetError, match="not a regular file"):
        check_parquet(tmp_path / "pipe.parquet", COLUMNS)
    with (tmp_path / "a.parquet").open("wb") as stream:
        stream.truncate(8 * 1024**3)  # a sparse file
        stream.seek(0, os.SEEK_END)
        stream.write(struct.pack("<I4s", MAX_FOOTER_BYTES + 1, b"PAR1"))
    with pytest.raises(ParquetError, match="its footer has 16777217 bytes, more than 16777216"):
        check_parquet(tmp_path / "a.parquet", COLUMNS)


def test_statistics_that_contradict_the_schema_do_not_end_the_process(tmp_path: Path) -> None:
    """Asked for such a column, pyarrow's reader of the footer ends the process; its reader of values raises."""
    file = write(tmp_path / "a.parquet", {"x": ["a", None, "b"]})
    data = file.read_bytes()
    optional, required = b"\x25\x02\x18\x01x", b"\x25\x00\x18\x01x"  # in the schema: may x be null?
    assert data.count(optional) == 1
    file.write_bytes(data.replace(optional, required))
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from product_vqa.parquet_files import check_parquet\n"
        "print(check_parquet(Path(sys.argv[1]), {'x': ('BYTE_ARRAY',)}))"
    )
    done = subprocess.run([sys.executable, "-c", program, file], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "['x']\n")
    with pytest.raises(OSError, match="histogram size mismatch"):
        pq.read_table(file)


def test_a_column_whose_name_is_a_number_is_refused() -> None:
    """Found by `make fuzz`: pyarrow reads what it expects, whatever type the list states."""
    column = {3: (parquet_files._STRUCT, {3: (parquet_files._LIST, [0, 2])})}
    with pytest.raises(ValueError, match="the name of a column is not text"):
        parquet_files._as_row_group({1: (parquet_files._LIST, [column])})


@pytest.mark.parametrize("number", range(1, 13))
def test_a_footer_of_another_shape_is_refused(number: int) -> None:
    """A field of the wrong type, or one that occurs twice: Arrow would skip or merge it."""
    read = parquet_files._Compact(bytes([0x10 | number, 0]) + bytes(40)).read_struct
    if number in (10, 11, 0):  # sets and maps
        with pytest.raises(ValueError, match="type"):
            read()
    else:
        assert parquet_files._integer(read(), 1, 6) == (0 if number == 6 else -1)
    with pytest.raises(ValueError, match="occurs twice"):
        parquet_files._Compact(bytes([0x15, 2, 0x05, 2, 2, 0])).read_struct()
