"""Open CSV files, compressed or not, and parse an index."""

import bz2
import gzip
import io
import lzma
import re
import zipfile
import zlib
from decimal import Decimal
from pathlib import Path
from typing import IO, cast

from product_vqa.errors import InputError
from product_vqa.paths import readable_file

# Raised while reading from the stream that `open_csv` returned, if the file is truncated or damaged.
BROKEN_ARCHIVE = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
_GZIP, _BZIP2, _XZ = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_COMPRESSIONS: dict[type, str] = {
    gzip.GzipFile: "gzip",
    bz2.BZ2File: "bzip2",
    lzma.LZMAFile: "xz",
    zipfile.ZipExtFile: "zip",
}
_SUFFIXES = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zip": "zip"}
_NOT_CSV = {  # the first bytes of files that are often mistaken for a CSV
    b"\x28\xb5\x2f\xfd": "is compressed with Zstandard; decompress it first (zstd -d)",
    b"7z\xbc\xaf\x27\x1c": "is a 7z archive; unpack it first",
    b"Rar!": "is a RAR archive; unpack it first",
    b"PAR1": "is a Parquet file; save it as a CSV",
    b"\xd0\xcf\x11\xe0": "is an Excel workbook; save it as a CSV in UTF-8",
    b"\xff\xfe": "is UTF-16 text; save it as a CSV in UTF-8",
    b"\xfe\xff": "is UTF-16 text; save it as a CSV in UTF-8",
    b"version https://git-lfs": "is the pointer of a Git LFS file, not the file; download it with git lfs pull",
}
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_MAX_INDEX = 10**18  # fits an int64


def open_csv(path: str | Path) -> IO[bytes]:
    """Open a CSV file as a stream of decompressed bytes.

    gzip, bzip2, xz and a zip of one file are recognized by content, not by name. Raises InputError for any other kind
    of file, and says what it is.
    """
    file = readable_file(path)
    name = str(file)
    try:
        content = io.BytesIO(file.read_bytes())
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror})") from error
    stream = _decompressed(content, name=name)
    expected = _SUFFIXES.get(file.suffix.lower())
    if stream is content and expected is not None:
        raise InputError(f"{name}: is not {expected}, but its name ends in {file.suffix}; rename or compress it")
    start = _peek(stream, 512, name=name)
    for magic, what in _NOT_CSV.items():
        if start.startswith(magic):
            raise InputError(f"{name}: {what}")
    if start[257:262] == b"ustar":
        raise InputError(f"{name}: is a tar archive; unpack it first")
    if start.startswith((_GZIP, _XZ, *_ZIP)):
        raise InputError(f"{name}: is compressed twice; decompress it once")
    return stream


def compression_name(stream: IO[bytes]) -> str:
    """Return how a stream of `open_csv` is compressed, for messages: `gzip`, ...; `file` if it is not."""
    return _COMPRESSIONS.get(type(stream), "file")


def _decompressed(content: io.BytesIO, *, name: str) -> IO[bytes]:
    start = content.getvalue()[:8]
    if start.startswith(_GZIP):
        return cast(IO[bytes], gzip.GzipFile(fileobj=content))
    if start.startswith(_BZIP2) and start[4:] == b"1AY&":  # not a CSV whose header starts with BZh
        return bz2.BZ2File(content)
    if start.startswith(_XZ):
        return lzma.LZMAFile(content)
    if start.startswith(_ZIP):
        return _only_member(content, name=name)
    return content


def _only_member(content: io.BytesIO, *, name: str) -> IO[bytes]:
    try:
        archive = zipfile.ZipFile(content)
        members = [
            member.filename
            for member in archive.infolist()
            if not member.is_dir() and not member.filename.startswith("__MACOSX/")
        ]
        if "[Content_Types].xml" in members:
            raise InputError(f"{name}: is an Excel workbook; save it as a CSV in UTF-8")
        if len(members) != 1:
            found = ", ".join(sorted(members))[:200] or "none"
            raise InputError(f"{name}: a zip must hold one file, this one holds {found}; unpack it and pass the CSV")
        return archive.open(members[0])
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{name}: broken zip ({error}); download it again") from error
    except (RuntimeError, NotImplementedError) as error:  # a password; a method that Python does not know
        raise InputError(f"{name}: this zip cannot be read ({error}); unpack it first") from error


def _peek(stream: IO[bytes], size: int, *, name: str) -> bytes:
    try:
        start = stream.read(size)
        stream.seek(0)
    except BROKEN_ARCHIVE as error:
        raise InputError(f"{name}: broken {compression_name(stream)} ({error}); download it again") from error
    return start


def parse_index(text: str) -> int | None:
    """Parse `12`, also as pandas and spreadsheets write it (`12.0`, `1.2e1`). None for any other text."""
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        return None
    number = Decimal(text)
    return int(number) if abs(number) < _MAX_INDEX and number == number.to_integral_value() else None
