"""Decode images: which files are allowed, within which limits, and what a model sees of them.

Every command, `AttributeReader` and the web page decode here, so a file is the same image everywhere: its first frame,
upright, on white where it is transparent, RGB with 8 bits per channel, without metadata.
"""

import reprlib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO

import numpy as np
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")  # what shops serve; none that starts a program
# What compresses a TIFF. Not fax codes (group 3 and 4) and not JPEG: of a damaged image, their decoders return memory
# that they have not written to, so pieces of this process would be pixels of a published image.
TIFF_COMPRESSIONS = (
    "raw", "tiff_lzw", "packbits", "tiff_deflate", "tiff_adobe_deflate", "lzma", "zstd", "webp",
)  # fmt: skip
MAX_BYTES = 32 * 1024**2
MAX_PIXELS = 64 * 1000**2  # 8,000 x 8,000: 0.2 GB to decode; the challenge's images are about 1,400 x 1,400
MAX_SIDE = 20_000  # px, for shops' longest strips. 1 x 60,000,000 is within MAX_PIXELS, but takes 4.7 GB and a minute
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# White in an image of more than 8 bits is the first of these values that no pixel exceeds, or else the largest pixel.
_WHITES = {"F": (1, 255, 65535), "I": (255, 65535)}
_WHITES_OF_16_BITS = (65535,)

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # MAX_PIXELS is stricter


class ImageError(ValueError):
    """Raised if there is no usable image. The message is the reason in `left_out.csv`: `token` or `token: detail`."""


def load_image(data: bytes) -> Image.Image:
    """Decode an image file. Raises ImageError unless `data` is an image within the limits."""
    with open_image(data) as image:
        return to_rgb(image)


def as_image(value: object) -> Image.Image:
    """Decode a Pillow image, the bytes of a file, or an image as `datasets` stores it.

    The last is decoded from its `bytes`; its `path` is never opened or downloaded. Raises ImageError for anything else
    and as `load_image` does.
    """
    if isinstance(value, Image.Image):
        return to_rgb(value)
    if isinstance(value, Mapping):
        if value.get("bytes") is None:
            raise ImageError(f"no_bytes: only the path {value.get('path')!r}, not the bytes of the image")
        value = value["bytes"]
    if isinstance(value, bytes | bytearray | memoryview):
        return load_image(bytes(value))
    given = "None" if value is None else f"{type(value).__name__} {reprlib.repr(value)}"
    raise ImageError(f"not_an_image: {given}; pass a Pillow image (Image.open(path)) or the bytes of an image file")


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a Pillow image, which is not changed itself. Raises ImageError as `load_image` does."""
    _check_size(image)
    if type(image) is Image.Image and image.mode == "RGB" and not image.info:
        return image
    with _image_errors():
        if isinstance(image, ImageFile.ImageFile) and image.format not in (*FORMATS, "MPO"):
            raise ImageError(f"format_not_allowed: {image.format}; allowed are {', '.join(FORMATS)}")
        _check_compression(image)
        rgb = turn_upright(flatten(image), read_orientation(image))
        if rgb is image:
            rgb = image.copy()
        rgb.info = {}
        return rgb


@contextmanager
def open_image(data: bytes) -> Iterator[Image.Image]:
    """Open an allowed image without decoding it. Any error while decoding it in the block becomes an ImageError."""
    if len(data) > MAX_BYTES:
        raise ImageError(f"too_many_bytes: {len(data)}")
    if data.startswith((b"GIF87a", b"GIF89a")):
        data = _first_frame_of_gif(data)
    with _image_errors(), Image.open(BytesIO(data), formats=FORMATS) as image:
        _check_size(image)
        _check_compression(image)
        yield image


def _first_frame_of_gif(data: bytes) -> bytes:
    """Cut a GIF to its first frame, without comments: Pillow takes minutes for one of 30 MB (quadratic time)."""
    kept, start = [data[:13]], 13
    try:
        if data[10] & 0x80:  # a palette
            start += 6 << (data[10] & 7)
            kept.append(data[13:start])
        while True:
            kind, end = data[start], start + 2
            if kind == ord(","):  # a frame
                end = start + 11 + (6 << (data[start + 9] & 7) if data[start + 9] & 0x80 else 0)
            elif kind != ord("!"):  # neither a frame nor an extension: skipped, as Pillow does
                start += 1
                continue
            while data[end]:  # the length of the next block
                end += 1 + data[end]
            end += 1
            if kind == ord(","):
                return b"".join([*kept, data[start:end], b";"])
            if data[start + 1] == 0xF9:  # the extension with the transparent colour
                kept.append(data[start:end])
            start = end
    except IndexError:  # truncated: Pillow reports it, if that is within the frame
        return b"".join([*kept, data[start:] if data[start : start + 1] == b"," else b";"])


def read_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8. Call it after `image.load()`, in which a TIFF turns itself upright."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        return orientation if orientation in _TO_UPRIGHT else 1
    except Exception:  # broken EXIF data is not a reason to refuse the image
        return 1


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TO_UPRIGHT[orientation]) if orientation in _TO_UPRIGHT else image


def flatten(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB, on white where the image is transparent. An opaque RGB image is returned itself."""
    _decode(image)
    if image.mode == "F" or image.mode.startswith("I"):
        return _flatten_deep_grey(image)
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    key = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:  # has 16 bits, the pixels 8
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in key)
    if image.mode == "La":  # Pillow converts La to nothing but LA
        image = image.convert("LA")
    image = image.convert("RGBA")
    on_white = Image.new("RGB", image.size, "white")
    on_white.paste(image, mask=image)
    return on_white


def _decode(image: Image.Image) -> None:
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        image.load()
        return
    # If an uncompressed TIFF was opened by its name, Pillow maps the file, and swaps width and height of an image that
    # is stored on its side. Without a name, it reads the file.
    filename, image.filename = image.filename, ""
    try:
        image.load()
    finally:
        image.filename = filename


def _flatten_deep_grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;"):  # Pillow clips I;16N to 8 bits
        order = {"I;16B": ">", "I;16N": "="}.get(image.mode, "<")
        values = np.frombuffer(image.tobytes(), f"{order}u2").astype(np.float32).reshape(image.size[::-1])
    else:
        values = np.array(image, dtype=np.float32)
    transparent = values == image.info["transparency"] if isinstance(image.info.get("transparency"), int) else None
    top = float(values.max(where=np.isfinite(values), initial=0))
    white = next((white for white in _WHITES.get(image.mode, _WHITES_OF_16_BITS) if top <= white), top)
    np.nan_to_num(values, copy=False, nan=0, posinf=white, neginf=0)
    values *= 255 / white
    values += 0.5
    grey = values.clip(0, 255, out=values).astype(np.uint8)
    if transparent is not None:
        grey[transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"too_many_pixels: {width}x{height}")
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"side_too_long: {width}x{height}")
    if not (width and height):
        raise ImageError(f"no_pixels: {width}x{height}")


def _check_compression(image: Image.Image) -> None:
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        compression = image.info.get("compression", "raw")
        if compression not in TIFF_COMPRESSIONS:
            raise ImageError(f"format_not_allowed: a TIFF with compression {compression}")


@contextmanager
def _image_errors() -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"too_many_pixels: {error}"[:200]) from error
    except UnidentifiedImageError as error:
        raise ImageError("not_a_picture") from error
    except Exception as error:  # on broken bytes, decoders raise errors of any type
        detail = f"{type(error).__name__}: {error}".rstrip(": ")
        raise ImageError(f"image_unreadable: {detail}"[:200]) from error
