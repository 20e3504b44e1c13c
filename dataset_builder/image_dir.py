"""A folder of images that are there already, each named like the last part of its URL."""

import hashlib
import os
import stat
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from dataset_builder.fetching import Fetched, FetchError
from product_vqa.errors import InputError
from product_vqa.images import MAX_BYTES


class ImageDir:
    """Reads images from a folder: `https://host/a/b.jpg?size=large` is its file `b.jpg`."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError(f"`image_dir` {folder}: no such folder")

    def check_names(self, urls: Collection[str]) -> None:
        """Raises InputError if two URLs end in the same name: their file can only be the image of one of them."""
        url_by_name: dict[str, str] = {}
        for url in urls:
            name = _file_name(url)
            first = url_by_name.setdefault(name, url)
            if name and first != url:
                raise InputError(
                    f"`image_dir` {self.folder}: {name} could be the image of {first} or of {url}; "
                    "use `image_store`, which tells them apart"
                )

    def read(self, url: str) -> Fetched:
        """The file of this URL's image. Raises FetchError if there is none."""
        try:
            name = _file_name(url)
            if not name:
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
        """A digest that changes when a file does: its name, its size, or the time of its last change."""
        digest = hashlib.sha256(str(self.folder.resolve()).encode())
        with os.scandir(self.folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                try:
                    status = entry.stat()
                    state = f"{status.st_size} {status.st_mtime_ns}"
                except OSError as error:  # a broken symbolic link
                    state = f"error {error.errno}"
                digest.update(f"{entry.name} {state}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()


def _file_name(url: str) -> str:
    """`https://host/a/b.jpg?size=large` -> `b.jpg`. "" if the URL does not end in a name."""
    try:
        name = PurePosixPath(urlsplit(url).path).name
    except ValueError:
        return ""
    return "" if name in (".", "..") else name
