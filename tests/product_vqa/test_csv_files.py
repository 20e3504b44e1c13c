"""What every command takes for a CSV: train.csv and test.csv of the builder, and the tables of inference."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builder import inspect
from inference import check, evaluate
from inference.tables import read_indexes, read_table
from product_vqa.csv_files import MAX_LINE_BYTES, parse_index
from product_vqa.errors import InputError, argument
from product_vqa.tables.layout import Layout
from product_vqa.tables.record_files import open_table
from product_vqa.task.schema import CHALLENGE
from tests.commands import call
from tests.dataset_builder.challenge import read_test_csv

CSV = b"index,image_link,group_id,entity_name\n3,https://shop.example/a.jpg,1,width\n7,https://shop.example/b.jpg,1,depth\n"


def zipped(*members: tuple[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def tarred(content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo("test.csv")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def encrypted() -> bytes:
    content = bytearray(zipped(("test.csv", CSV)))
    content[6] |= 1  # the flags of the member, there and in the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


TAKEN = {
    "test.csv": CSV,
    "bom.csv": b"\xef\xbb\xbf" + CSV,
    "crlf.csv": CSV.replace(b"\n", b"\r\n"),
    "float.csv": CSV.replace(b"\n3,", b"\n3.0,").replace(b"\n7,", b"\n7e0,"),
    "test.csv.gz": gzip.compress(CSV),
    "test.csv.bz2": bz2.compress(CSV),
    "test.csv.xz": lzma.compress(CSV),
    "test.csv.zip": zipped(("test.csv", CSV)),
    "TEST.CSV.ZIP": zipped(("some/folder/test.csv", CSV), ("__MACOSX/._test.csv", b"\0"), ("some/", b"")),
    "a_gzip_of_another_name.csv": gzip.compress(CSV),
    "a_zip_of_another_name.csv": zipped(("test.csv", b"\xef\xbb\xbf" + CSV)),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_csv_is_read_alike_by_builder_and_inference_however_it_is_packed(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(TAKEN[name])
    rows = read_test_csv(file).rows
    assert [row.index for row in rows] == [3, 7]
    with argument("test_csv"):
        table = read_table(file, columns=("index", "entity_name"), optional=("image_link", "group_id"))
    assert read_indexes(table, path=file) == [3, 7]
    for column in ("image_link", "group_id", "entity_name"):
        assert list(table[column]) == [getattr(row, column) for row in rows]


MANY_ROWS = b"".join(b"%d,l,%b,width\n" % (number, b"g" * 950) for number in range(10, 36_000))  # 35 MB
NAMED = [
    ("test.csv.zst", b"\x28\xb5\x2f\xfd" + bytes(60), "is compressed with Zstandard"),
    ("test.csv", b"PAR1" + bytes(60), "is a Parquet file"),
    ("test.csv", b"7z\xbc\xaf\x27\x1c" + bytes(60), "is a 7z archive"),
    ("test.csv", zipped(("[Content_Types].xml", b"<xml/>"), ("xl/workbook.xml", b"")), "is an Excel workbook"),
    ("test.csv", b"\xd0\xcf\x11\xe0" + bytes(60), "is an Excel workbook"),
    ("test.csv", CSV.decode().encode("utf-16"), "is UTF-16 text"),
    ("test.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "pointer of a Git LFS file"),
    ("test.csv.gz", CSV, "is not gzip, but its name ends in .gz"),
    ("test.csv.zip", CSV, "is not zip, but its name ends in .zip"),
    ("test.csv.xz", CSV, "is not xz, but"),
    (
        "data.zip",
        zipped(("train.csv", CSV), ("test.csv", CSV)),
        "a zip must hold one file, this one holds test.csv, tr",
    ),
    ("data.zip", zipped(("folder/", b"")), "a zip must hold one file, this one holds none"),
    ("test.csv.zip", encrypted(), "this zip cannot be read"),
    ("test.csv.zip", zipped(("test.csv", CSV))[:-30], "broken zip"),
    ("test.tar.gz", gzip.compress(tarred(CSV)), "is a tar archive"),
    ("test.csv.gz", gzip.compress(gzip.compress(CSV)), "is compressed twice"),
    ("test.csv", b"\x04\x22\x4d\x18" + bytes(60), "is compressed with LZ4"),
    ("test.csv", b"\x89PNG\r\n\x1a\n" + bytes(60), "is a PNG image"),
    ("test.csv", b"<!DOCTYPE html><title>Log in</title>", "is a web page or XML"),
    ("test.csv", b"\xef\xbb\xbf" + CSV.replace(b",", b";").replace(b"\n", b"\r\n"), "are separated by semicolons, as"),
    ("test.csv", b"sep=;\r\n" + CSV.replace(b",", b";"), "are separated by semicolons, as spreadsheets save them in"),
    (
        "test.csv",
        CSV.replace(b",", b"\t"),
        "are separated by tabs, as spreadsheets save them in some languages; save it",
    ),
    ("test.csv", CSV.replace(b"a.jpg", b"\0.jpg"), "has NUL bytes"),
    ("test.csv", CSV.decode().encode("utf-16-le"), "has NUL bytes"),
    ("test.csv", CSV + b"x" * (MAX_LINE_BYTES + 1), "line 4: has more than 1048576 bytes"),
    ("test.csv.gz", gzip.compress(CSV + MANY_ROWS, 1), "unpacks to more than 20 times its size"),
    ("test.csv.bz2", bz2.compress(bz2.compress(CSV)), "is compressed twice"),
    ("test.csv.gz", gzip.compress(CSV)[:-12], "broken gzip"),
    ("test.csv.bz2", bz2.compress(CSV)[:-12], "broken bzip2"),
    ("test.csv.xz", lzma.compress(CSV)[:-12], "broken xz"),
]


@pytest.mark.parametrize(("name", "content", "complaint"), NAMED, ids=[case[-1] for case in NAMED])
def test_what_is_not_a_csv_is_named_alike_by_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, complaint: str
):
    file = tmp_path / name
    file.write_bytes(content)
    (tmp_path / "submission.csv").write_text("index,prediction\n3,\n7,\n")
    submission = tmp_path / "submission.csv"
    for main, arguments in (
        (inspect.main, ["--test_csv", file]),
        (check.main, ["--submission", submission, "--test_csv", file]),
        (evaluate.main, ["--predictions", submission, "--references", file]),
    ):
        with pytest.raises(InputError) as refusal:
            call(main, monkeypatch, *arguments)
        assert complaint in str(refusal.value)
        assert str(file) in str(refusal.value)
        assert "\n" not in str(refusal.value)


def test_a_semicolon_in_the_name_of_the_only_column_is_part_of_it_where_none_is_missing(tmp_path: Path) -> None:
    (tmp_path / "photos.csv").write_text("photo;url\nhttps://shop.example/a.jpg\n")
    layout = Layout(columns={"image_link": "photo;url"})
    with open_table(tmp_path / "photos.csv") as table:
        names = table.records.names
        assert layout.find_fields(
            names, CHALLENGE, is_labelled=False, file="photos.csv", required_if_long=("image_link",)
        ) == ["image_link"]


@pytest.mark.parametrize(("make", "complaint"), [
    (lambda file: os.mkfifo(file), "is a pipe or a socket, not a file"),
    (lambda file: file.symlink_to("/dev/zero"), "is a device, not a file"),
    (lambda file: file.symlink_to("/nowhere"), "no such file"),
    (lambda file: file.symlink_to(file), "cannot be read (Too many levels of symbolic links)"),
    (lambda file: file.mkdir(), "is a folder, not a file"),
])  # fmt: skip
def test_what_is_not_a_file_is_named_and_never_waited_for(
    tmp_path: Path, make: Callable[[Path], object], complaint: str
) -> None:
    file = tmp_path / "test.csv"
    make(file)
    for read in (read_test_csv, read_table):
        with pytest.raises(InputError) as refusal:
            read(file)
        assert complaint in str(refusal.value)


INDEXES = {
    "12": 12, "0": 0, "-3": -3, "+3": 3, "007": 7, " 12\n": 12, "12.": 12, "12.0": 12, "12.000": 12, "1e3": 1000,
    "1.5e1": 15, "1E+03": 1000, "120e-1": 12, "9007199254740993": 9007199254740993,
    "9007199254740993.0": 9007199254740993, "": None, " ": None, "1.5": None, "1e-3": None, "nan": None, "NaN": None,
    "inf": None, "1e999": None, "1_000": None, "1,000": None, "0x10": None, "١٢": None, "1 2": None, "--1": None,
    ".": None, "e3": None, "1e18": None, "9" * 400: None,
}  # fmt: skip


@pytest.mark.parametrize(("text", "index"), INDEXES.items())
def test_an_index_is_a_whole_number_however_it_is_spelt(text: str, index: int | None) -> None:
    assert parse_index(text) == index


@pytest.mark.parametrize("text", ["5" * 300_000 + "x", "." + "5" * 300_000 + "x", "5" * 300_000 + ".5e"])
def test_a_long_index_is_refused_at_once(text: str) -> None:
    started = time.process_time()
    assert parse_index(text) is None
    assert time.process_time() - started < 2  # minutes, if the digits are split at each position


@given(index=st.integers(-(10**15), 10**15))
def test_an_index_comes_back_from_pandas_as_an_integer_or_as_a_float(index: int) -> None:
    for dtype in ("int64", "float64"):
        text = pd.DataFrame({"index": [index]}, dtype=dtype).to_csv(index=False).splitlines()[1]
        assert parse_index(text) == index
