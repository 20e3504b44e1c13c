"""Pictures: what counts as one, and a folder of them."""

import hashlib
import os
import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import datasets
from PIL import Image, UnidentifiedImageError
from tqdm.auto import tqdm

from dataset_builder.pool import map_unordered
from product_vqa.command import InputError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")  # what shops serve; no format that starts a program
MAX_BYTES = 32 * 1024**2
MAX_PIXELS = 64 * 1000**2  # 8,000 x 8,000: 0.2 GB while it is decoded; the challenge's are about 1,400 x 1,400
# Decoded pictures are what takes memory: one a core at a time, however many threads fetch.
_DECODING = threading.BoundedSemaphore(os.cpu_count() or 1)


class PictureError(ValueError):
    """Why there is no picture. The text is the reason as `left_out.csv` gives it: `token` or `token: detail`."""


def check_picture(data: bytes) -> None:
    """Decode a picture once, in full, as `load_dataset` and the processor will. Raises PictureError if that fails."""
    if len(data) > MAX_BYTES:
        raise PictureError(f"too_many_bytes: {len(data)}")
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
        if width * height > MAX_PIXELS:
            raise PictureError(f"too_many_pixels: {width}x{height}")
        with _DECODING:
            datasets.Image().decode_example({"path": None, "bytes": data}).convert("RGB")
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError("not_a_picture") from error
    except Exception as error:  # decoders raise whatever they like on broken bytes
        raise PictureError(f"image_unreadable: {type(error).__name__}: {error}"[:200]) from error


class ImageFolder:
    """Pictures in a folder, each under the last part of its link."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError(f"--image_dir {folder}: no such folder")

    def failures(self, links: Collection[str]) -> dict[str, str]:
        """The reason for each link whose picture is not there or cannot be decoded. Decodes all of them.

        Raises InputError where two links end in the same name: the file can be the picture of one of them only.
        """
        link_of_name: dict[str, str] = {}
        for link in links:
            first = link_of_name.setdefault(_file_name(link), link)
            if first != link and _file_name(link):
                raise InputError(
                    f"--image_dir {self.folder}: {_file_name(link)} could be the picture of {first} and of {link}; "
                    "use --image_store, which tells them apart"
                )
        num_threads = os.cpu_count() or 1
        with ThreadPoolExecutor(num_threads) as pool:
            verdicts = map_unordered(pool, self._verdict, links, in_flight=4 * num_threads)
            return {
                link: reason
                for link, reason in tqdm(verdicts, total=len(links), desc="Verifying pictures", unit=" pictures")
                if reason
            }

    def _verdict(self, link: str) -> tuple[str, str]:
        try:
            check_picture(self.read(link))
        except FileNotFoundError:
            return link, "image_missing"
        except OSError as error:
            return link, f"image_unreadable: {error.strerror}"
        except PictureError as error:
            return link, str(error)
        return link, ""

    def read(self, link: str) -> bytes:
        if not (name := _file_name(link)):
            raise FileNotFoundError(link)
        return (self.folder / name).read_bytes()

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
