"""Prepares an image for the dataset: decodes, resizes and hashes it, and removes its metadata."""

import hashlib
import re
import struct
import tempfile
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import imagehash
import numpy as np
from PIL import ExifTags, Image

from product_vqa.images import MAX_BYTES, ImageError, flatten, open_image, read_orientation, to_rgb, turn_upright

try:
    import cykooz_resizer  # Lanczos in a quarter of Pillow's time, which is most of the work on an image
except ImportError:  # there is no wheel for Linux on ARM
    cykooz_resizer = None
else:
    _LANCZOS = cykooz_resizer.ResizeOptions(
        resize_alg=cykooz_resizer.ResizeAlg.convolution(cykooz_resizer.FilterType.lanczos3), use_alpha=False
    )

JPEG_QUALITY = 95
SUBSAMPLING = "4:4:4"  # keeps the edges of coloured print: the worst of 769 images has 38 dB instead of 29
# A JPEG is decoded at the smallest scale (1/1, 1/2, 1/4, 1/8) that is still this many times as large as the result.
# 1.5 is faster than a full decode and costs 0.7 dB of 47.9 (docs/dataset.md).
REDUCING_GAP = 1.5
# The segments that decoding needs: all start-of-frame markers, Huffman and arithmetic tables, scans, quantization,
# DNL, DRI, DHP, EXP. Of the others, only those that say how the colours are coded are kept.
_JPEG_SEGMENTS = {*range(0xC0, 0xD0), *range(0xDA, 0xE0)} - {0xC8}
_JFIF, _ADOBE = 0xE0, 0xEE
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_PNG_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")

warnings.filterwarnings("ignore", module=r"PIL\.")  # one line for every odd image among 350,000


@dataclass(frozen=True)
class PreparedImage:
    """An image as it is stored."""

    data: bytes
    width: int
    height: int
    phash: int  # 64-bit perceptual hash, signed: images that look the same have the same one

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def prepare_image(data: bytes, *, image_size: int) -> PreparedImage:
    """Decode an image completely, once, and return it as it is stored: without metadata.

    The result is an upright RGB JPEG that fits a square of `image_size` pixels: the first frame, on white where the
    image is transparent, never enlarged. A JPEG that is so already keeps its compressed data. With `image_size` 0 no
    pixel changes: a JPEG keeps its compressed data and its EXIF orientation, any other image becomes an upright RGB
    PNG.

    Raises ImageError for data that is not an image, and, before decoding, for an image beyond the limits of
    `product_vqa.images`.
    """
    with open_image(data) as image:
        stripped = _strip(data, image, image_size=image_size)
        if stripped is not None:
            prepared = _check(stripped)
        elif image_size == 0:
            prepared = _encode(to_rgb(image), "PNG")
        else:
            prepared = _encode(_resize(image, image_size), "JPEG", quality=JPEG_QUALITY, subsampling=SUBSAMPLING)
    if len(prepared.data) > MAX_BYTES:  # every reader would refuse it
        raise ImageError(f"too_many_bytes: {len(prepared.data)} once encoded; choose a smaller image_size")
    return prepared


def _strip(data: bytes, image: Image.Image, *, image_size: int) -> bytes | None:
    """The file without its metadata and with the same compressed pixels. None if the image must be encoded again."""
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
    except (ValueError, IndexError, struct.error):  # Pillow accepted the file all the same, so it is encoded again
        pass
    return None


def _strip_jpeg(data: bytes, orientation: int) -> bytes:
    """Remove the metadata, and what follows the image: previews, other images, data that a camera appends."""
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
            if scan_end is None:  # the end-of-image marker is missing
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


def _check(data: bytes) -> PreparedImage:
    """Decode the file that `_strip` returned, which finds truncated data, and hash it."""
    with open_image(data) as image:
        width, height = image.size
        # Reading a smaller JPEG is faster and still reads every coefficient, so truncated data is found.
        image.draft("L", (64, 64))
        image.load()
        return PreparedImage(data, width, height, _phash(turn_upright(image, read_orientation(image))))


def _encode(image: Image.Image, format: str, **options: Any) -> PreparedImage:
    with tempfile.TemporaryFile() as stream:  # Pillow holds the GIL while it encodes into memory
        image.save(stream, format, **options)
        stream.seek(0)
        return PreparedImage(stream.read(), *image.size, _phash(image))


def _resize(image: Image.Image, image_size: int) -> Image.Image:
    """An upright RGB image that fits the square. Never enlarged."""
    if image.format == "TIFF":
        image.load()  # which turns a TIFF upright
    scale = min(1, image_size / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image.draft("RGB", (int(size[0] * REDUCING_GAP), int(size[1] * REDUCING_GAP)))  # only affects a JPEG
    resized = _resample(flatten(image), size)
    upright = turn_upright(resized, read_orientation(image))
    upright.info = {}  # Pillow would save some of it
    return upright


def _resample(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    if image.size == size:
        return image
    if cykooz_resizer is None:
        return image.resize(size, Image.Resampling.LANCZOS)
    resized = Image.new("RGB", size, None)  # not initialized
    cykooz_resizer.Resizer().resize_pil(image, resized, _LANCZOS)
    return resized


def _phash(image: Image.Image) -> int:
    grey = image.convert("L")
    grey = grey.reduce(max(1, min(grey.size) // 64))  # phash itself resizes it to 32 x 32
    return int.from_bytes(np.packbits(imagehash.phash(grey).hash).tobytes(), signed=True)
