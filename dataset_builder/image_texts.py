"""The texts of images while they are read: a SQLite table with one row per URL and engine, next to the images.

It survives a kill at any moment. Like the table of a store's images, it may come from somebody else, or from a damaged
disk: a row counts only if it has the texts of an image, and only for the image that it was read in. An image on which
the engine failed has a row, too: it is not an image without text, nor is it read again.
"""

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from tqdm.auto import tqdm

from dataset_builder.downloader import map_unordered, threads
from dataset_builder.image_dir import ImageDir
from dataset_builder.image_store import ImageStore
from dataset_builder.output_folder import texts_folder
from dataset_builder.state_database import DatabaseFile, StateDatabase
from product_vqa.errors import InputError
from product_vqa.images import ImageError, load_image
from product_vqa.ocr import engine
from product_vqa.ocr.image_text import ImageText
from product_vqa.ocr.interface import OcrEngine
from product_vqa.quoting import one_line

logger = logging.getLogger(__name__)

TEXTS_FILE = "texts.sqlite"
_DATABASE = DatabaseFile(
    TEXTS_FILE,
    version=1,
    tables={
        "texts": """CREATE TABLE texts (
  link TEXT NOT NULL,    -- the URL
  engine TEXT NOT NULL,  -- its description: texts of two engines are not mixed
  sha256 TEXT NOT NULL,  -- of the image as it is stored
  text TEXT NOT NULL,    -- ImageText.as_dict, as JSON
  PRIMARY KEY (link, engine)
) WITHOUT ROWID"""
    },
    remedy=f"remove {TEXTS_FILE}* there to read all images again",
    kept="texts that were read are kept",
)

_FAILED = '{"failed": true}'  # as the text of an image on which the engine failed


class ImageTexts:
    """The texts that an engine has read. One thread records and finds; any number of threads may `read`.

    `argument` is the option that the folder comes from.
    """

    def __init__(
        self, folder: Path, reader: OcrEngine, *, is_read_only: bool = False, argument: str = "image_store"
    ) -> None:
        self._engine = reader
        self.description = reader.description
        self._database: StateDatabase | None = None
        if not is_read_only or (folder / TEXTS_FILE).is_file():
            file = replace(_DATABASE, argument=argument)
            self._database = StateDatabase(folder, is_read_only=is_read_only, file=file)
        self._known: set[int] = set()
        self._failed: set[int] = set()
        for url, sha256, text in self._rows():
            if text == _FAILED:
                self._failed.add(hash((url, sha256)))
            elif _parse(text) is not None:
                self._known.add(hash((url, sha256)))
        self._read: dict[str, tuple[str, ImageText]] = {}  # URL -> what `record` will write
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    @property
    def num_failed(self) -> int:
        """The images on which the engine failed."""
        return len(self._failed)

    def longer_sides(self) -> list[int]:
        """Of all images that were read, in px."""
        found = (_parse(text) for _, _, text in self._rows())
        return [max(text.width, text.height) for text in found if text is not None]

    def urls(self) -> set[str]:
        """Those of all images that were read."""
        return {url for url, _, text in self._rows() if _parse(text) is not None}

    def has(self, url: str, sha256: str) -> bool:
        return hash((url, sha256)) in self._known

    def is_done(self, url: str, sha256: str) -> bool:
        """Whether the image was read, or the engine failed on it."""
        return self.has(url, sha256) or hash((url, sha256)) in self._failed

    def read(self, url: str, data: bytes, sha256: str) -> None:
        """Read an image file, unless that was done before. `sha256` is that of the image as it is stored.

        An image that cannot be decoded has no text.
        """
        if self.has(url, sha256):
            return
        try:
            text = self._engine.read(load_image(data))
        except ImageError as error:
            logger.warning("%s: no text is read (%s)", one_line(url), one_line(str(error)))
            return
        with self._lock:
            self._read[url] = sha256, text

    def record(self, url: str) -> None:
        """Write the texts that were read for a URL, if any."""
        with self._lock:
            found = self._read.pop(url, None)
        if found is not None:
            self.keep(url, *found)

    def keep(self, url: str, sha256: str, text: ImageText) -> None:
        """Write the texts of a URL's image, which this engine has read."""
        self._write(url, sha256, json.dumps(text.as_dict(), ensure_ascii=False))
        self._known.add(hash((url, sha256)))
        self._failed.discard(hash((url, sha256)))

    def record_failure(self, url: str, sha256: str) -> None:
        """Write that the engine failed on a URL's image, at the size at which it is stored."""
        self._write(url, sha256, _FAILED)
        self._failed.add(hash((url, sha256)))

    def _write(self, url: str, sha256: str, content: str) -> None:
        assert self._database is not None
        row = (url, self.description, sha256, content)
        self._database.execute("REPLACE INTO texts VALUES (?, ?, ?, ?)", row)

    def find(self, url: str, sha256: str) -> ImageText:
        """The texts of an image that was read. Raises InputError if the file has changed since."""
        query = "SELECT text FROM texts WHERE link = ? AND engine = ? AND sha256 = ?"
        row = self._database.row(query, (url, self.description, sha256)) if self._database else None
        text = _parse(row[0]) if row else None
        if text is None:
            raise InputError(f"{TEXTS_FILE} has changed while the command ran; rerun the command")
        return text

    def fingerprint(self, urls: Collection[str]) -> str:
        """A digest that changes with the engine, and with the texts of one of these URLs."""
        digest, wanted = hashlib.sha256(self.description.encode()), set(urls)
        for row in self._rows():
            if row[0] in wanted:
                digest.update(f"{row}\n".encode(errors="surrogatepass"))
        return digest.hexdigest()

    def _rows(self) -> Iterator[tuple[str, str, str]]:
        if self._database is not None:
            query = "SELECT link, sha256, text FROM texts WHERE engine = ? ORDER BY link"
            yield from self._database.rows(query, (self.description,))


def _parse(content: object) -> ImageText | None:
    """The texts in a cell; None for anything that `record` does not write."""
    if isinstance(content, str):
        with suppress(ValueError, RecursionError, TypeError):
            return ImageText.from_dict(json.loads(content))
    return None


def read_images(
    texts: ImageTexts, images: Iterable[tuple[str, str]], load: Callable[[str], bytes], *, total: int
) -> None:
    """Read the images (URL and sha256) that were not read yet, on all cores: each thread has an engine of its own.

    `load` returns the file of a URL's image; it is called in any thread.
    """
    num_threads = os.cpu_count() or 1

    def find_missing() -> Iterator[tuple[str, str]]:
        for url, sha256 in images:
            if texts.is_done(url, sha256):
                progress.update()
            else:
                yield url, sha256

    def read(image: tuple[str, str]) -> tuple[str, str]:
        url, sha256 = image
        texts.read(url, load(url), sha256)
        return image

    with tqdm(total=total, desc="Texts", unit=" images") as progress, threads(num_threads) as pool:
        for url, sha256 in map_unordered(pool, read, find_missing(), in_flight=2 * num_threads):
            texts.record(url)
            if not texts.has(url, sha256):
                texts.record_failure(url, sha256)
            progress.update()


def read_stored(store: ImageStore, urls: Collection[str], texts: ImageTexts) -> None:
    """Read the images of these URLs that the store has, at the size at which they are stored."""
    images, _ = store.find(urls)
    missing = sum(not texts.is_done(url, image.sha256) for url, image in images.items())
    if not missing:
        return
    if store.is_read_only:
        raise InputError(
            f"`image_store` {store.folder}: is not writable and lacks the texts of {missing} of {len(images)} images; "
            "copy it to a writable folder"
        )
    with store.locked():
        hashes = ((url, image.sha256) for url, image in images.items())
        read_images(texts, hashes, lambda url: store.read_image(images[url]), total=len(images))


@contextmanager
def open_texts(images: ImageDir | ImageStore, output_dir: Path) -> Iterator[ImageTexts]:
    """The texts of a build's images: next to those of a store, else in a hidden folder next to `output_dir`."""
    reader = engine.load_engine()
    if isinstance(images, ImageStore):
        yield ImageTexts(images.folder, reader, is_read_only=images.is_read_only)
    else:
        with texts_folder(output_dir) as folder:
            yield ImageTexts(folder, reader, argument="output_dir")
