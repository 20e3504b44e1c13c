"""A folder of images that are there already: links are paths in it, or URLs whose last part names the file."""

import hashlib
import os
import re
import stat
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from product_vqa.documents import read_bytes
from product_vqa.errors import InputError
from product_vqa.http.fetching import Fetched, FetchError
from product_vqa.images import MAX_BYTES
from product_vqa.machine_errors import explain_machine_error
from product_vqa.quoting import one_line

_URL = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


class ImageDir:
    """Reads images from a folder: `a/b.jpg` is that file in it, `https://host/a/b.jpg?size=large` its file `b.jpg`.

    A path with `..`, one from the root, and one where no file is count like a URL. So no link leads out of the folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            mode = os.stat(folder).st_mode
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            is_missing = isinstance(error, FileNotFoundError)
            reason = "no such folder" if is_missing else f"cannot be read ({getattr(error, 'strerror', error)})"
            raise InputError(f"`image_dir` {folder}: {reason}") from error
        if not stat.S_ISDIR(mode):
            raise InputError(f"`image_dir` {folder}: is not a folder")
        if not os.access(folder, os.R_OK | os.X_OK):
            raise InputError(f"`image_dir` {folder}: cannot be read (Permission denied)")

    def check_names(self, urls: Collection[str]) -> None:
        """Raises InputError if two URLs end in the same name: their file can only be the image of one of them."""
        url_by_name: dict[str, str] = {}
        for url in urls:
            name = self._name(url)
            first = url_by_name.setdefault(name, url)
            if name and first != url:
                raise InputError(
                    f"`image_dir` {self.folder}: {one_line(name)} could be the image of {one_line(first)} or of "
                    f"{one_line(url)}; use `image_store`, which tells them apart"
                )

    def read(self, url: str) -> Fetched:
        """The file of this URL's image. Raises FetchError if there is none."""
        file: Path | None = None
        try:
            file = self._file(url)
            status = file.stat()
            num_bytes = status.st_size
            if num_bytes > MAX_BYTES:
                raise FetchError(f"too_many_bytes: {num_bytes}")
            if num_bytes == 0 and stat.S_ISREG(status.st_mode):  # in /proc, reading can fail as on a broken disk
                raise FetchError("not_a_picture: an empty file")
            return Fetched(read_bytes(file, max_bytes=MAX_BYTES))
        except FileNotFoundError as error:  # also a link whose target is missing
            raise FetchError("image_missing") from error
        except (OSError, ValueError) as error:
            if not isinstance(error, PermissionError) and (reason := explain_machine_error(error, file)):
                # Not the image's fault: too many files are open, for instance.
                raise InputError(f"`image_dir` {reason}") from error
            raise FetchError(f"image_unreadable: {getattr(error, 'strerror', error)}") from error

    def fingerprint(self, urls: Iterable[str]) -> str:
        """A digest that changes when the file of one of these URLs does: its size, or the time of its last change.

        Other files in the folder do not matter.
        """
        digest = hashlib.sha256(os.fsencode(self.folder.resolve()))
        for url in urls:
            try:
                status = self._file(url).stat()
                state = f"{status.st_size} {status.st_mtime_ns}"
            except (OSError, ValueError) as error:
                state = f"error {getattr(error, 'errno', None)}"
            digest.update(f"{url} {state}\n".encode(errors="surrogatepass"))
        return digest.hexdigest()

    def _file(self, url: str) -> Path:
        """Raises FileNotFoundError if the URL does not end in a name, and ValueError for a NUL in it."""
        name = self._name(url)
        if not name:
            raise FileNotFoundError
        if "\0" in name:
            raise ValueError("the name has a NUL byte")
        return self.folder / name

    def _name(self, url: str) -> str:
        """The file of a link, relative to the folder; "" if there can be none."""
        if _URL.match(url) or url.startswith("/") or ".." in url.split("/"):
            return _file_name(url)
        try:
            return url if (self.folder / url).is_file() else _file_name(url)
        except (OSError, ValueError):  # a name that is too long, or has a NUL byte
            return _file_name(url)


def _file_name(url: str) -> str:
    """`https://host/a/b.jpg?size=large` -> `b.jpg`. "" if the URL does not end in a name."""
    try:
        name = PurePosixPath(urlsplit(url).path).name
    except ValueError:
        return ""
    return "" if name in (".", "..") else name
