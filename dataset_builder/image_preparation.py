"""Pictures: what of an image is stored, and a folder of them."""

import hashlib
import os
import re
import stat
import struct
import tempfile
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import imagehash
import numpy as np
from PIL import ExifTags, Image

from dataset_builder.fetching import Fetched, FetchError
from product_vqa.errors import InputError
from product_vqa.images import (
    MAX_BYTES,
    ImageError,
    flatten,
    open_image,
    read_orientation,
    to_rgb,
    turn_upright,
)

try:
    import cykooz_resizer  # Lanczos in a quarter of Pillow's time: most of the work on a picture
except ImportError:  # on Linux for ARM, where there is no wheel
    cykooz_resizer = None
else:
    _LANCZOS = cykooz_resizer.ResizeOptions(
        resize_alg=cykooz_resizer.ResizeAlg.convolution(cykooz_resizer.FilterType.lanczos3), use_alpha=False
    )

JPEG_QUALITY = 95
SUBSAMPLING = "4:4:4"  # coloured print keeps its edges: the worst of 769 photographs 38 dB instead of 29
# A JPEG is decoded at the smallest of 1/1, 1/2, 1/4, 1/8 that is still this many times as large as what is wanted.
# 1.5 is less work than a full decode and costs 0.7 dB of 47.9 (docs/dataset.md).
REDUCING_GAP = 1.5
# What decoding a JPEG needs: all start-of-frame markers, Huffman and arithmetic tables, scans, quantization, DNL, DRI,
# DHP, EXP. Of the rest only what says how its colours are coded is kept.
_JPEG_SEGMENTS = {*range(0xC0, 0xD0), *range(0xDA, 0xE0)} - {0xC8}
_JFIF, _ADOBE = 0xE0, 0xEE
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_PNG_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")

warnings.filterwarnings("ignore", module=r"PIL\.")  # a line on the console for every odd picture of 350,000

PictureError = ImageError


@dataclass(frozen=True)
class Picture:
    """What is stored of a picture."""

    data: bytes
    width: int
    height: int
    phash: int  # 64-bit perceptual hash, signed: equal for pictures that look the same

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def prepare_picture(data: bytes, *, image_size: int) -> Picture:
    """Decode an image once, in full, and make of it what is stored: nothing but the image, without metadata.

    That is an upright RGB JPEG which fits into a square of `image_size` pixels: the first frame of several, on white
    where it is transparent, never enlarged. A JPEG that is so already keeps its compressed data. With `image_size` 0
    no pixel changes: a JPEG keeps its compressed data, and of its EXIF the orientation; any other image becomes an
    upright RGB PNG. Raises ImageError for what is not an image, and, before it is decoded, for one beyond the limits
    of `product_vqa.images`.
    """
    with open_image(data) as image:
        if (stripped := _strip(data, image, image_size=image_size)) is not None:
            picture = _check(stripped)
        elif image_size == 0:
            picture = _encode(to_rgb(image), "PNG")
        else:
            picture = _encode(_fit(image, image_size), "JPEG", quality=JPEG_QUALITY, subsampling=SUBSAMPLING)
    if len(picture.data) > MAX_BYTES:  # which nobody would read
        raise ImageError(f"too_many_bytes: {len(picture.data)} without a smaller --image_size")
    return picture


def _strip(data: bytes, image: Image.Image, *, image_size: int) -> bytes | None:
    """The file without its metadata, the compressed pixels as they are. None where it is not stored so."""
    if max(image.size) > image_size > 0:
        return None
    try:
        if image.format in ("JPEG", "MPO"):
            orientation = read_orientation(image)
            is_stored_form = image_size == 0 or (image.mode, orientation) == ("RGB", 1)
            return _strip_jpeg(data, orientation) if is_stored_form else None
        if image.format == "PNG" and image_size == 0 and image.mode in ("1", "L", "P", "RGB"):
            image.load()
            is_plain = not image.has_transparency_data and read_orientation(image) == 1
            return _strip_png(data) if is_plain else None
    except (ValueError, IndexError, struct.error):  # Pillow forgives more: it is encoded anew
        pass
    return None


def _strip_jpeg(data: bytes, orientation: int) -> bytes:
    """What follows the end of the image goes as well: previews, other images, what a camera appends."""
    parts = [b"\xff\xd8"]
    if orientation != 1:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        content = exif.tobytes()
        parts.append(struct.pack(">BBH", 0xFF, 0xE1, len(content) + 2) + content)
    position = 2
    while True:
        position = data.index(b"\xff", position)
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker == 0xD9:
            return b"".join([*parts, b"\xff\xd9"])
        (length,) = struct.unpack_from(">H", data, position + 2)
        end = position + 2 + length
        content = data[position + 4 : end]
        if marker == 0xDA:
            scan_end = _END_OF_SCAN.search(data, end)
            if scan_end is None:  # the end of the image is not marked
                return b"".join([*parts, data[position:]])
            end = scan_end.start()
        if marker in _JPEG_SEGMENTS:
            parts.append(data[position:end])
        elif marker == _JFIF and content.startswith(b"JFIF\0") and length >= 16:
            parts.append(b"\xff\xe0\0\x10" + content[:12] + b"\0\0")  # without its preview
        elif marker == _ADOBE and content.startswith(b"Adobe") and length >= 14:
            parts.append(b"\xff\xee\0\x0e" + content[:12])
        elif not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            raise ValueError(f"unknown JPEG marker {marker:#x}")
        position = end


def _strip_png(data: bytes) -> bytes:
    parts, position = [data[:8]], 8
    while True:
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind in _PNG_CHUNKS:
            parts.append(data[position:end])
        if kind == b"IEND":
            return b"".join(parts)
        position = end


def _check(data: bytes) -> Picture:
    with open_image(data) as image:
        width, height = image.size
        # Every coefficient of a JPEG is read whatever size comes out: truncated data is found as well.
        image.draft("L", (64, 64))
        image.load()
        return Picture(data, width, height, _phash(turn_upright(image, read_orientation(image))))


def _encode(image: Image.Image, format: str, **options: Any) -> Picture:
    with tempfile.TemporaryFile() as stream:  # encoding into one of memory would hold all other threads
        image.save(stream, format, **options)
        stream.seek(0)
        return Picture(stream.read(), *image.size, _phash(image))


def _fit(image: Image.Image, image_size: int) -> Image.Image:
    if image.format == "TIFF":
        image.load()  # and turn itself upright
    scale = min(1, image_size / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image.draft("RGB", (int(size[0] * REDUCING_GAP), int(size[1] * REDUCING_GAP)))  # does nothing but to a JPEG
    fitted = _resize(flatten(image), size)
    upright = turn_upright(fitted, read_orientation(image))
    upright.info = {}  # of which Pillow would save some
    return upright


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    if image.size == size:
        return image
    if cykooz_resizer is None:
        return image.resize(size, Image.Resampling.LANCZOS)
    resized = Image.new("RGB", size, None)  # not filled
    cykooz_resizer.Resizer().resize_pil(image, resized, _LANCZOS)
    return resized


def _phash(image: Image.Image) -> int:
    grey = image.convert("L")
    grey = grey.reduce(max(1, min(grey.size) // 64))  # phash itself goes on to 32 x 32
    return int.from_bytes(np.packbits(imagehash.phash(grey).hash).tobytes(), signed=True)


class ImageFolder:
    """Pictures in a folder, each under the last part of its link."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError(f"--image_dir {folder}: no such folder")

    def check_names(self, links: Collection[str]) -> None:
        """Raises InputError where two links end in the same name: the file can be the picture of one of them only."""
        link_of_name: dict[str, str] = {}
        for link in links:
            first = link_of_name.setdefault(_file_name(link), link)
            if first != link and _file_name(link):
                raise InputError(
                    f"--image_dir {self.folder}: {_file_name(link)} could be the picture of {first} and of {link}; "
                    "use --image_store, which tells them apart"
                )

    def read(self, link: str) -> Fetched:
        """The file that is this link's picture. Raises FetchError if there is none."""
        try:
            if not (name := _file_name(link)):
                raise FileNotFoundError
            file = self.folder / name
            status = file.stat()
            if not stat.S_ISREG(status.st_mode):
                raise FetchError("image_unreadable: not a file")
            if status.st_size > MAX_BYTES:
                raise FetchError(f"too_many_bytes: {status.st_size}")
            return Fetched(file.read_bytes())
        except FileNotFoundError as error:
            raise FetchError("image_missing") from error
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise FetchError(f"image_unreadable: {getattr(error, 'strerror', error)}") from error

    def fingerprint(self) -> str:
        """Changes when a file of the folder does (by name, size, time of change)."""
        digest = hashlib.sha256(str(self.folder.resolve()).encode())
        with os.scandir(self.folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                try:
                    status = entry.stat()
                    state = f"{status.st_size} {status.st_mtime_ns}"
                except OSError as error:  # a link to nowhere
                    state = f"error {error.errno}"
                digest.update(f"{entry.name} {state}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()


def _file_name(link: str) -> str:
    """`https://host/a/b.jpg?size=large` -> `b.jpg`; "" where the link ends in no name."""
    try:
        name = PurePosixPath(urlsplit(link).path).name
    except ValueError:
        return ""
    return "" if name in (".", "..") else name
