"""Pictures: what counts as one, what of it is stored, and a folder of them."""

import hashlib
import os
import tempfile
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import imagehash
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from dataset_builder.fetching import Fetched, FetchError
from product_vqa.command import InputError

try:
    import cykooz_resizer  # Lanczos in a quarter of Pillow's time: most of the work on a picture
except ImportError:  # on Linux for ARM, where there is no wheel
    cykooz_resizer = None
else:
    _LANCZOS = cykooz_resizer.ResizeOptions(
        resize_alg=cykooz_resizer.ResizeAlg.convolution(cykooz_resizer.FilterType.lanczos3), use_alpha=False
    )

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")  # what shops serve; no format that starts a program
MAX_BYTES = 32 * 1024**2
MAX_PIXELS = 64 * 1000**2  # 8,000 x 8,000: 0.2 GB while it is decoded; the challenge's are about 1,400 x 1,400
JPEG_QUALITY = 95
SUBSAMPLING = "4:4:4"  # coloured print keeps its edges: the worst of 769 photographs 38 dB instead of 29
# A JPEG is decoded at the smallest of 1/1, 1/2, 1/4, 1/8 that is still this many times as large as what is wanted.
# 1.5 is less work than a full decode and costs 0.7 dB of 47.9 (docs/dataset.md).
REDUCING_GAP = 1.5
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # MAX_PIXELS is stricter
warnings.filterwarnings("ignore", module=r"PIL\.")  # a line on the console for every odd picture of 350,000


class PictureError(ValueError):
    """Why there is no picture. The text is the reason as `left_out.csv` gives it: `token` or `token: detail`."""


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
    """Decode a picture once, in full, and make of it what is stored.

    That is an upright RGB JPEG which fits into a square of `image_size` pixels: the first frame of several, on white
    where it is transparent, never enlarged. A JPEG that is so already keeps its bytes, and with `image_size` 0 every
    picture does. Raises PictureError for what is none, and for one beyond MAX_BYTES or MAX_PIXELS before it is
    decoded.
    """
    if len(data) > MAX_BYTES:
        raise PictureError(f"too_many_bytes: {len(data)}")
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise PictureError(f"too_many_pixels: {width}x{height}")
            if image_size == 0 or _is_stored_form(image, image_size):
                # Every coefficient of a JPEG is read whatever size comes out: truncated data is found as well.
                image.draft("L", (64, 64))
                image.load()
                image.getexif()  # as whoever opens it will
                return Picture(data, width, height, _phash(image))
            fitted = _fit(image, image_size)
            with tempfile.TemporaryFile() as stream:  # encoding into one of memory would hold all other threads
                fitted.save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=SUBSAMPLING, comment=b"")
                stream.seek(0)
                return Picture(stream.read(), *fitted.size, _phash(fitted))
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise PictureError(f"too_many_pixels: {error}"[:200]) from error
    except UnidentifiedImageError as error:
        raise PictureError("not_a_picture") from error
    except Exception as error:  # decoders raise whatever they like on broken bytes
        raise PictureError(f"image_unreadable: {type(error).__name__}: {error}"[:200]) from error


def _is_stored_form(image: Image.Image, image_size: int) -> bool:
    is_small_rgb = image.format == "JPEG" and image.mode == "RGB" and max(image.size) <= image_size
    return is_small_rgb and _orientation(image) == 1


def _fit(image: Image.Image, image_size: int) -> Image.Image:
    if image.format == "TIFF":
        image.load()  # and turn itself upright
    orientation = _orientation(image)
    scale = min(1, image_size / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image.draft("RGB", (int(size[0] * REDUCING_GAP), int(size[1] * REDUCING_GAP)))  # does nothing but to a JPEG
    image = _resize(_rgb(image), size)
    return image.transpose(_TO_UPRIGHT[orientation]) if orientation in _TO_UPRIGHT else image


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    if image.size == size:
        return image
    if cykooz_resizer is None:
        return image.resize(size, Image.Resampling.LANCZOS)
    resized = Image.new("RGB", size, None)  # not filled
    cykooz_resizer.Resizer().resize_pil(image, resized, _LANCZOS)
    return resized


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken EXIF is no broken picture
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode == "F" or image.mode.startswith("I"):  # grey of more than 8 bits
        whites = {"F": (1, 255, 65535), "I": (255, 65535)}.get(image.mode, (65535,))
        grey = image.convert("I").convert("F") if image.mode.startswith("I;") else image.convert("F")
        top = grey.getextrema()[1]
        white = next((white for white in whites if top <= white), top)
        image = grey.point(lambda value: value * (255 / white) + 0.5).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        on_white = Image.new("RGB", image.size, "white")
        on_white.paste(image, mask=image)
        return on_white
    return image.convert("RGB")


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
            return Fetched((self.folder / name).read_bytes())
        except FileNotFoundError as error:
            raise FetchError("image_missing") from error
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise FetchError(f"image_unreadable: {getattr(error, 'strerror', error)}") from error

    def fingerprint(self) -> str:
        """Changes when a file of the folder does (by name, size, time of change)."""
        digest = hashlib.sha256(str(self.folder.resolve()).encode())
        with os.scandir(self.folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                status = entry.stat()
                digest.update(f"{entry.name} {status.st_size} {status.st_mtime_ns}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()


def _file_name(link: str) -> str:
    """`https://host/a/b.jpg?size=large` -> `b.jpg`; "" where the link ends in no name."""
    try:
        name = PurePosixPath(urlsplit(link).path).name
    except ValueError:
        return ""
    return "" if name in (".", "..") else name
