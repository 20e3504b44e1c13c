"""Open CSV files, compressed or not, and parse an index."""

import bz2
import gzip
import hashlib
import io
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, cast

from product_vqa.errors import InputError
from product_vqa.paths import open_regular
from product_vqa.quoting import one_line

# Raised while reading from the stream that `open_csv` returned, if the file is truncated or damaged.
BROKEN_ARCHIVE = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
MAX_LINE_BYTES = 1024**2  # a reader holds a line in memory several times
# From MAX_UNPACKED_BYTES on, a file may unpack to so many times what was read of it. The challenge's CSVs, and others
# with a URL in each row, unpack to about 6 times their size; a bomb to 1,000 times and more.
MAX_UNPACKED_RATIO = 20
MAX_UNPACKED_BYTES = 32 * 1024**2
_CHUNK_BYTES = 64 * 1024
_GZIP, _BZIP2, _XZ = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_SUFFIXES = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zip": "zip"}
_NOT_CSV = {  # the first bytes of files that are often mistaken for a CSV
    b"\x28\xb5\x2f\xfd": "is compressed with Zstandard; decompress it first (zstd -d)",
    b"\x04\x22\x4d\x18": "is compressed with LZ4; decompress it first (lz4 -d)",
    b"\x1f\x9d": "is compressed with compress; decompress it first (gunzip)",
    b"LZIP": "is compressed with lzip; decompress it first (lzip -d)",
    b"\x89LZO": "is compressed with lzop; decompress it first (lzop -d)",
    b"\xff\x06\0\0sNaPpY": "is compressed with Snappy; decompress it first",
    b"7z\xbc\xaf\x27\x1c": "is a 7z archive; unpack it first",
    b"Rar!": "is a RAR archive; unpack it first",
    b"PAR1": "is a Parquet file; save it as a CSV",
    b"ARROW1": "is an Arrow file; save it as a CSV",
    b"FEA1": "is a Feather file; save it as a CSV",
    b"ORC": "is an ORC file; save it as a CSV",
    b"Obj\x01": "is an Avro file; save it as a CSV",
    b"\x89HDF": "is an HDF5 file; save it as a CSV",
    b"\x93NUMPY": "is a NumPy array; save it as a CSV",
    b"SQLite format 3": "is an SQLite database; save its table as a CSV",
    b"\xd0\xcf\x11\xe0": "is an Excel workbook; save it as a CSV in UTF-8",
    b"\xff\xfe": "is UTF-16 text; save it as a CSV in UTF-8",
    b"\xfe\xff": "is UTF-16 text; save it as a CSV in UTF-8",
    b"version https://git-lfs": "is the pointer of a Git LFS file, not the file; download it with git lfs pull",
    b"\x89PNG": "is a PNG image, not a CSV",
    b"\xff\xd8\xff": "is a JPEG image, not a CSV",
    b"GIF8": "is a GIF image, not a CSV",
    b"RIFF": "is a RIFF file (an image or a sound), not a CSV",
    b"%PDF": "is a PDF, not a CSV",
    b"\x7fELF": "is a program, not a CSV",
    b"{\\rtf": "is a text document (RTF); save it as a CSV in UTF-8",
}
_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|\?xml|head|body)", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_MAX_INDEX = 10**18  # fits an int64


class CsvStream(io.BufferedReader):
    """The decompressed bytes of a CSV file."""

    def __init__(self, content: "_Content") -> None:
        super().__init__(content, _CHUNK_BYTES)
        self.compression = content.compression  # gzip, bzip2, xz or zip; file if it is not compressed
        self._file = content.file

    def sha256(self) -> str:
        """The digest of the file as it is stored. Call it after everything was read."""
        self._file.seek(0)
        return hashlib.file_digest(self._file, "sha256").hexdigest()  # type: ignore[arg-type]


class _Content(io.RawIOBase):
    """Decompressed bytes. Raises InputError for what no CSV holds, before it takes much memory."""

    def __init__(self, file: IO[bytes], *, name: str) -> None:
        self.file = file
        self._name = name
        self._stream, self.compression = _decompressed(file, name=name)
        self._num_unpacked = 0
        self._num_lines = 0
        self._line_bytes = 0  # of the line that is not complete yet

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(min(len(buffer), _CHUNK_BYTES))
        self._check(data)
        buffer[: len(data)] = data
        return len(data)

    def _check(self, data: bytes) -> None:
        if not self._num_unpacked:
            _check_start(data, name=self._name)
        self._num_unpacked += len(data)
        is_large = self._num_unpacked > MAX_UNPACKED_BYTES and self.compression != "file"
        if is_large and self._num_unpacked > MAX_UNPACKED_RATIO * self.file.tell():
            raise InputError(
                f"{self._name}: unpacks to more than {MAX_UNPACKED_RATIO} times its size, unlike a table of URLs; "
                "if it is one, decompress it and pass the CSV"
            )
        if b"\0" in data:
            raise InputError(f"{self._name}: has NUL bytes, so it is not text in UTF-8; save it as a CSV in UTF-8")
        line_end = b"\n" if b"\n" in data else b"\r"
        first = data.find(line_end)
        self._line_bytes += len(data) if first < 0 else first
        if self._line_bytes > MAX_LINE_BYTES:
            raise InputError(
                f"{self._name}, line {self._num_lines + 1}: has more than {MAX_LINE_BYTES} bytes; is it a CSV?"
            )
        if first >= 0:
            self._num_lines += data.count(line_end)
            self._line_bytes = len(data) - data.rindex(line_end) - 1


def open_csv(path: str | Path) -> CsvStream:
    """Open a CSV file as a stream of decompressed bytes.

    gzip, bzip2, xz and a zip of one file are recognized by content, not by name. Raises InputError for any other kind
    of file, and says what it is. While the stream is read, it raises InputError for NUL bytes, a line of more than
    MAX_LINE_BYTES, and a decompression bomb.
    """
    name = str(path)
    file = open_regular(path)
    try:
        stream = CsvStream(_Content(file, name=name))
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror})") from error
    suffix = Path(path).suffix
    expected = _SUFFIXES.get(suffix.lower())
    if stream.compression == "file" and expected is not None:
        raise InputError(f"{name}: is not {expected}, but its name ends in {suffix}; rename or compress it")
    try:
        stream.peek(1)
    except BROKEN_ARCHIVE as error:
        reason = one_line(str(error))
        raise InputError(f"{name}: broken {stream.compression} ({reason}); download it again") from error
    return stream


def compression_name(stream: CsvStream) -> str:
    """Return how a stream of `open_csv` is compressed, for messages: `gzip`, ...; `file` if it is not."""
    return stream.compression


def check_separator(names: Sequence[str], *, file: str | Path) -> None:
    """Raise InputError if a table lacks columns because its names are separated by something else than commas.

    Called with the names where columns are missing: a table whose only column has such a name is one that is used.
    """
    if len(names) != 1:
        return
    for separator, word in ((";", "semicolons"), ("\t", "tabs")):
        if separator in names[0]:
            raise InputError(
                f"{file}: its columns are separated by {word}, as spreadsheets save them in some languages; save it "
                "with commas"
            )


def _check_start(start: bytes, *, name: str) -> None:
    for magic, what in _NOT_CSV.items():
        if start.startswith(magic):
            raise InputError(f"{name}: {what}")
    if start[257:262] == b"ustar":
        raise InputError(f"{name}: is a tar archive; unpack it first")
    if start.startswith((_GZIP, _XZ, *_ZIP)) or _is_bzip2(start):
        raise InputError(f"{name}: is compressed twice; decompress it once")
    if _PAGE.match(start):
        raise InputError(f"{name}: is a web page or XML, not a CSV; download the file again")


def _is_bzip2(start: bytes) -> bool:
    """Not a CSV whose header starts with BZh. The second form is that of an empty file."""
    return start.startswith(_BZIP2) and start[4:8] in (b"1AY&", b"\x17rE8")


def _decompressed(file: IO[bytes], *, name: str) -> tuple[IO[bytes], str]:
    start = file.read(512)
    file.seek(0)
    if start.startswith(_GZIP):
        return cast(IO[bytes], gzip.GzipFile(fileobj=file)), "gzip"
    if _is_bzip2(start):
        return bz2.BZ2File(file), "bzip2"
    if start.startswith(_XZ):
        return lzma.LZMAFile(file), "xz"
    if start.startswith(_ZIP):
        return _only_member(file, name=name), "zip"
    return file, "file"


def _only_member(file: IO[bytes], *, name: str) -> IO[bytes]:
    try:
        archive = zipfile.ZipFile(file)
        names = [member.filename for member in archive.infolist() if not member.is_dir()]
        members = [member for member in names if not member.startswith("__MACOSX/")]
        stream = archive.open(members[0]) if len(members) == 1 else None
    except (RuntimeError, NotImplementedError) as error:  # a password; a method that Python does not know
        raise InputError(f"{name}: this zip cannot be read ({error}); unpack it first") from error
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, LookupError, struct.error, zlib.error) as error:
        raise InputError(f"{name}: broken zip ({one_line(str(error))}); download it again") from error
    if "[Content_Types].xml" in members:
        raise InputError(f"{name}: is an Excel workbook; save it as a CSV in UTF-8")
    if stream is None:
        found = one_line(", ".join(sorted(members)[:100]), max_length=200) or "none"
        raise InputError(f"{name}: a zip must hold one file, this one holds {found}; unpack it and pass the CSV")
    return stream


def parse_index(text: str) -> int | None:
    """Parse `12`, also as pandas and spreadsheets write it (`12.0`, `1.2e1`). None for any other text."""
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        return None
    number = Decimal(text)
    return int(number) if abs(number) < _MAX_INDEX and number == number.to_integral_value() else None
