"""Files that only look like a train.csv, or that somebody made to hurt: malformed, endless, huge, of another kind."""

import bz2
import gzip
import io
import lzma
import os
import random
import socket
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

HEADER = "image_link,group_id,entity_name,entity_value\n"
ROW = "https://shop.example/a.jpg,1,width,1 inch\n"
GOOD = (HEADER + ROW).encode()
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


@dataclass(frozen=True)
class HostileCsv:
    kind: str
    name: str
    content: bytes | Callable[[Path], object]  # or a function that makes the file
    file_name: str = "train.csv"
    is_taken: bool | None = None  # whether it is read after all; None where both are right

    def write(self, folder: Path) -> Path:
        file = folder / self.file_name
        if callable(self.content):
            self.content(file)
        else:
            file.write_bytes(self.content)
        return file


def hostile_csvs() -> list[HostileCsv]:
    """At least 100 files with different names, always the same."""
    return [*_other_kinds(), *_archives(), *_encodings(), *_tables(), *_values(), *_special_files()]


OTHER_KINDS = {
    "zstandard": b"\x28\xb5\x2f\xfd", "lz4": b"\x04\x22\x4d\x18", "compress": b"\x1f\x9d\x90", "lzip": b"LZIP\x01",
    "7z": b"7z\xbc\xaf\x27\x1c", "rar": b"Rar!\x1a\x07", "parquet": b"PAR1", "arrow": b"ARROW1\0\0", "orc": b"ORC",
    "avro": b"Obj\x01", "hdf5": b"\x89HDF\r\n\x1a\n", "numpy": b"\x93NUMPY\x01\0", "sqlite": b"SQLite format 3\0",
    "xls": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8\xff\xe0",
    "gif": b"GIF89a",
    "webp": b"RIFF\x10\0\0\0WEBP", "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "elf": b"\x7fELF\x02\x01",
    "rtf": b"{\\rtf1",
    "page": b"<!DOCTYPE html><html>", "xml": b"<?xml version='1.0'?>", "json": b'[{"image_link": 1}]',
    "pickle": b"\x80\x04",
    "lfs": b"version https://git-lfs.github.com/spec/v1\n", "tar": b"train.csv".ljust(257, b"\0") + b"ustar\x0000",
    "snappy": b"\xff\x06\0\0sNaPpY", "shell": b"#!/bin/sh\n", "torch": b"PK\x03\x04" + bytes(30),
    "gzip_magic": b"\x1f\x8b",
}  # fmt: skip


def _other_kinds() -> Iterator[HostileCsv]:
    noise = random.Random(1).randbytes(400)
    for name, start in OTHER_KINDS.items():
        yield HostileCsv("other", name, start + noise, is_taken=False)
        yield HostileCsv("other in gzip", name, gzip.compress(start + noise), is_taken=False)
    yield HostileCsv("other", "xlsx", zipped({"[Content_Types].xml": b"<x/>", "xl/a.xml": b"<x/>"}), is_taken=False)
    yield HostileCsv("other", "ods", zipped({"mimetype": b"x", "content.xml": b"<x/>"}), is_taken=False)
    yield HostileCsv("other", "noise", random.Random(2).randbytes(5000), is_taken=False)


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _bomb(suffix: str, piece: bytes, *, num_pieces: int = 200) -> Callable[[Path], object]:
    """A file of 16 MB times `num_pieces`: compressed files that follow each other unpack like one."""

    def write(file: Path) -> None:
        compress = COMPRESSIONS[suffix]
        file.write_bytes(compress(HEADER.encode()) + compress(piece * (16 * 1024**2 // len(piece))) * num_pieces)

    return write


def _archives() -> Iterator[HostileCsv]:
    table = (HEADER + ROW * 5000).encode()
    rng = random.Random(3)
    packed = {suffix: compress(table) for suffix, compress in COMPRESSIONS.items()} | {"zip": zipped({"a.csv": table})}
    for suffix, data in packed.items():
        file_name = f"train.csv.{suffix}"
        for share in (0.02, 0.5, 0.99):
            cut = data[: int(share * len(data))]
            yield HostileCsv("cut", f"{suffix} {share}", cut, file_name, is_taken=False)
        for number in range(6):
            garbled = bytearray(data)
            garbled[rng.randrange(8, len(data))] ^= 1 << rng.randrange(8)
            yield HostileCsv("garbled", f"{suffix} {number}", bytes(garbled), file_name)
        yield HostileCsv("archive", f"{suffix} of nothing", b"", file_name, is_taken=False)
        yield HostileCsv("archive", f"{suffix} by name only", table, file_name, is_taken=False)
        yield HostileCsv("archive", f"{suffix} and garbage", data + b"garbage" * 99, file_name)
    for suffix, compress in COMPRESSIONS.items():
        yield HostileCsv("archive", f"{suffix} twice", compress(compress(table)), is_taken=False)
        yield HostileCsv("archive", f"empty {suffix}", compress(b""), is_taken=False)
    for name, members in {
        "no member": {}, "two members": {"a.csv": table, "b.csv": table}, "a folder": {"a/": b""},
        "a thousand members": {f"{number}.csv": b"" for number in range(1000)}, "escape": {"\x1b[2J": b"", "b": b""},
        "a zip": {"a.zip": zipped({"a.csv": table})},
    }.items():  # fmt: skip
        yield HostileCsv("zip", name, zipped(members), is_taken=False)
    yield HostileCsv("zip", "outside", zipped({"../../../etc/train.csv": table}), is_taken=True)
    yield HostileCsv("bomb", "line in gzip", _bomb("gz", b"x"), is_taken=False)
    yield HostileCsv("bomb", "rows in gzip", _bomb("gz", b"l,,width,\n"), is_taken=False)
    yield HostileCsv("bomb", "rows in xz", _bomb("xz", b"l,,width,\n"), is_taken=False)
    yield HostileCsv("bomb", "quote in bzip2", _bomb("bz2", b'"\n'), is_taken=False)


def _encodings() -> Iterator[HostileCsv]:
    text = HEADER + ROW
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be", "utf-7", "cp500"):
        content = text.replace("a.jpg", "é.jpg").encode(encoding)
        yield HostileCsv("encoding", encoding, content, is_taken=None if encoding == "utf-7" else False)
    for name, broken in {
        "latin_1": b"\xe9", "continuation": b"\x80", "overlong": b"\xc0\xaf", "surrogate": b"\xed\xa0\x80",
        "above_unicode": b"\xf4\x90\x80\x80", "cut": b"\xe2\x82", "ff": b"\xff", "nul": b"\0",
    }.items():  # fmt: skip
        yield HostileCsv("encoding", name, GOOD.replace(b"a.jpg", broken + b".jpg"), is_taken=False)
        yield HostileCsv("late encoding", name, GOOD * 1 + ROW.encode() * 3000 + broken, is_taken=False)
    yield HostileCsv("encoding", "two_marks", b"\xef\xbb\xbf" * 2 + GOOD, is_taken=False)
    yield HostileCsv("encoding", "only_a_mark", b"\xef\xbb\xbf", is_taken=False)


def _tables() -> Iterator[HostileCsv]:
    columns = HEADER.strip().split(",")
    row = ROW.strip().split(",")
    for column in columns:
        others = [name for name in columns if name != column]
        yield HostileCsv("header", f"without {column}", (",".join(others) + "\n1,2,3\n").encode(), is_taken=False)
        twice = ",".join([*columns, column]) + "\n" + ",".join([*row, "x"]) + "\n"
        yield HostileCsv("header", f"twice {column}", twice.encode(), is_taken=False)
    many = ",".join(f"c{number}" for number in range(100_000))
    text_by_name = {
        "empty": "", "line_end": "\n", "line_ends": "\n" * 100_000, "header_only": HEADER, "spaces": "   \n \n",
        "semicolons": (HEADER + ROW).replace(",", ";"), "tabs": (HEADER + ROW).replace(",", "\t"),
        "capitals": HEADER.upper() + ROW, "spaced_header": HEADER.replace(",", ", ") + ROW,
        "many_columns": many + "\n",
        "short_row": HEADER + "a,1,width\n", "long_row": HEADER + "a,1,width,1 inch,x\n",
        "commas": HEADER + "," * 99_999,
        "open_quote": HEADER + '"a,1,width,1 inch\n' + ROW * 50_000, "open_quote_at_the_end": HEADER + ROW + '"',
        "open_quote_in_header": '"' + HEADER + ROW * 50_000, "quote_in_field": HEADER + 'a,1,width,"1" inch\n',
        "one_long_line": HEADER + "x" * 2_000_000, "long_header": "x" * 2_000_000 + "\n" + ROW,
        "form_feed": HEADER + "\f\n",
        "row_of_many_lines": HEADER + "a,1,width," + '"\n",' * 2_000_000,
        "long_field": HEADER + "a" * 200_000 + ",1,width,x\n",
        "escape_in_header": "\x1b[2J,\x07\n1,2\n", "nothing_but_quotes": '"' * 100_001,
        "commas_only": "," * 500_000 + "\n",
        "long_field_of_lines": HEADER + '"' + "a\n" * 400_000 + '",1,width,1 inch\n',
    }  # fmt: skip
    for name, text in text_by_name.items():
        yield HostileCsv("table", name, text.encode(), is_taken=False)
    for name, text in {
        "lone_cr": (HEADER + ROW * 3).replace("\n", "\r"),
        "mixed_line_ends": HEADER[:-1] + "\r\n" + ROW[:-1] + "\r" + ROW,
        "no_line_end": HEADER + ROW[:-1],
        "other_columns": HEADER[:-1] + "," + many + "\n" + ROW[:-1] + "," * 100_000 + "\n",
        "empty_lines": HEADER + "\n" * 1000 + ROW, "quoted": '"' + '","'.join(columns) + '"\n' + ROW,
    }.items():  # fmt: skip
        yield HostileCsv("table", name, text.encode(), is_taken=True)


VALUES: dict[tuple[str, str], tuple[str, bool]] = {
    ("image_link", "as long as allowed"): ("a" * 8192, True), ("image_link", "too long"): ("a" * 8193, False),
    ("image_link", "1 MB"): ("a" * 1_000_000, False), ("image_link", "lines"): ("http://h/a\nb\r\nc", True),
    ("image_link", "escape"): ("http://h/\x1b[2J\x07", True), ("image_link", "empty"): ("", True),
    ("image_link", "spaces"): ("   ", True), ("image_link", "bidi"): ("http://h/\u202egpj.exe", True),
    ("group_id", "as long as allowed"): ("g" * 1000, True), ("group_id", "too long"): ("g" * 1001, False),
    ("group_id", "100,007 characters"): ("g" * 100_007, False), ("group_id", "formula"): ("=cmd|'/c calc'!A0", True),
    ("entity_name", "empty"): ("", False), ("entity_name", "capitals"): ("WIDTH", False),
    ("entity_name", "100,007 characters"): ("w" * 100_007, False), ("entity_name", "escape"): ("\x1b[2J\n", False),
    ("entity_name", "space"): ("width ", False), ("entity_value", "empty"): ("", True),
    ("entity_value", "100,007 characters"): ("9" * 100_002 + " inch", False),
    ("entity_value", "nan"): ("nan inch", True),
    ("entity_value", "1,001 characters"): ("9" * 996 + " inch", False), ("entity_value", "lines"): ("1\ninch", True),
    ("entity_value", "500 digits"): ("9" * 500 + " inch", True),
    ("entity_value", "spaces"): ("1" + " " * 900 + "inch", True),
    ("entity_value", "brackets"): ("[" * 1000, True), ("entity_value", "range"): ("[" + "9" * 400 + ", 1] inch", True),
    ("entity_value", "formula"): ('=HYPERLINK("http://h/")', True), ("entity_value", "digits"): ("١٢ inch", True),
    ("entity_value", "to"): ("1 inch to " * 90, True),
    ("entity_value", "exponent"): ("1e" + "9" * 300 + " inch", True),
    ("index", "fraction"): ("1.5", False), ("index", "empty"): ("", False), ("index", "19 digits"): ("9" * 19, False),
    ("index", "100,007 digits"): ("9" * 100_007, False), ("index", "exponent"): ("1e999", False),
    ("index", "nan"): ("nan", False), ("index", "digits"): ("١", False), ("index", "underscore"): ("1_0", False),
    ("index", "negative"): ("-1", True), ("index", "float"): ("1.0", True),
    ("index", "zeros"): ("0" * 900 + "1", True),
    ("index", "escape"): ("\x1b[2J", False),
}  # fmt: skip


def _values() -> Iterator[HostileCsv]:
    for (column, name), (value, is_taken) in VALUES.items():
        cells = {"index": "7", "image_link": "https://h/a.jpg", "group_id": "1", "entity_name": "width"}
        cells |= {"entity_value": "1 inch", column: value}
        quoted = ",".join('"' + cell.replace('"', '""') + '"' for cell in cells.values())
        text = f"{','.join(cells)}\n8,{ROW}{quoted}\n"
        yield HostileCsv("value", f"{column} {name}", text.encode(), is_taken=is_taken)
    duplicate = f"index,{HEADER}1,{ROW}1.0,{ROW}"
    yield HostileCsv("value", "index twice", duplicate.encode(), is_taken=False)


def _link(target: str) -> Callable[[Path], object]:
    return lambda file: file.symlink_to(target)


def _sparse(file: Path) -> None:
    with file.open("wb") as stream:
        stream.truncate(8 * 2**30)


def _socket(file: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(file))


def _special_files() -> Iterator[HostileCsv]:
    for name, make in {
        "folder": Path.mkdir, "pipe": os.mkfifo, "socket": _socket, "sparse 8 GB": _sparse,
        "missing": lambda file: None,
        "dangling link": _link("/nowhere"), "link to itself": _link("train.csv"), "/dev/zero": _link("/dev/zero"),
        "/dev/null": _link("/dev/null"), "/dev/stdin": _link("/dev/full"), "/proc": _link("/proc/self/mem"),
    }.items():  # fmt: skip
        yield HostileCsv("special", name, make, is_taken=False)
    yield HostileCsv("file name", "line end", GOOD, "a\nb.csv", is_taken=False)
    yield HostileCsv("file name", "not UTF-8", GOOD, os.fsdecode(b"\xff.csv"), is_taken=False)
    yield HostileCsv("file name", "escape", GOOD, "\x1b[2J.csv", is_taken=False)
