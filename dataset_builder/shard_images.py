"""The images of all shards of a build, read from the shards' own files.

Shards are read like anything of a stranger's: what no build writes is refused, before a dataset is made from it.
"""

import hashlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dataset_builder.build_shards import (
    MANIFEST_FILE,
    STATES_FILE,
    Inputs,
    check_file,
    group_by_file,
    read_manifest,
    shard_folder,
)
from dataset_builder.image_store import (
    IMAGE_STARTS,
    NOT_FETCHED,
    ImageStore,
    Status,
    UrlState,
    fingerprint_states,
    is_possible,
)
from dataset_builder.stored_image import StoredImage
from product_vqa.documents import DocumentError, parse_json
from product_vqa.errors import InputError, first_line
from product_vqa.paths import open_file
from product_vqa.sharding import Shard, all_shards, missing_message

_MAX_LINE_BYTES = 256 * 1024  # a URL has at most 8,192 characters, and JSON takes up to twelve bytes for each
_IMAGE_KEYS, _FAILURE_KEYS = {"url", *StoredImage.FIELDS}, {"url", "reason"}


class _File(NamedTuple):
    """A file of images. All files, one after the other, are one sequence of bytes."""

    start: int  # of its first byte in the sequence
    path: Path
    shard: Shard


class _Places:
    """Where images start in the sequence of bytes, by the first eight bytes of their hashes: 16 bytes per image."""

    def __init__(self) -> None:
        self._keys, self._starts = array("Q"), array("Q")
        self._sorted: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, image: StoredImage, start: int) -> None:
        self._keys.append(self._key(image))
        self._starts.append(start)
        self._sorted = None

    def find(self, image: StoredImage) -> list[int]:
        """Where the image may start: more than one place if several shards have it."""
        if self._sorted is None:
            keys = np.asarray(self._keys)
            order = np.argsort(keys)
            self._sorted = keys[order], np.asarray(self._starts)[order]
        keys, starts = self._sorted
        key = np.uint64(self._key(image))
        found: list[int] = starts[np.searchsorted(keys, key) : np.searchsorted(keys, key, side="right")].tolist()
        return found

    @staticmethod
    def _key(image: StoredImage) -> int:
        return int.from_bytes(image.digest[:8], "big")


class ShardImages:
    """What a dataset is written from, like an ImageStore, but in a few large files that are only read.

    In memory is what is known about each image, and where it starts: about 200 bytes for each.
    """

    def __init__(self) -> None:
        self._images: dict[str, StoredImage] = {}  # by URL
        self._failures: dict[str, str] = {}  # the reason by URL
        self._places = _Places()
        self._files: list[_File] = []
        self._num_bytes = 0

    def find(self, urls: Iterable[str]) -> tuple[dict[str, StoredImage], dict[str, str]]:
        """The image of each URL, and for each URL without an image the reason. `urls` are those of the shards."""
        return self._images, self._failures

    def fingerprint(self, urls: Iterable[str]) -> str:
        """The digest that `ImageStore.fingerprint` gives for the same images."""
        return fingerprint_states(map(self._state, sorted(urls)))

    def _state(self, url: str) -> UrlState:
        image = self._images.get(url)
        if image is None:
            return UrlState(url, Status.FAILED, self._failures[url])
        return UrlState(url, Status.STORED, sha256=image.sha256, phash=image.phash)

    def sizes(self) -> dict[str, int]:
        """The size in bytes of every URL's image."""
        return {url: image.num_bytes for url, image in self._images.items()}

    def read_image(self, image: StoredImage) -> bytes:
        """The bytes of an image that `find` returned. Raises InputError if they have changed since."""
        for start in self._places.find(image):
            file = self._files[bisect_right(self._files, start, key=lambda file: file.start) - 1]
            try:
                with open_file(file.path) as stream:
                    stream.seek(start - file.start)
                    data = stream.read(image.num_bytes)
            except OSError as error:
                raise InputError(
                    f"`merge` shard {file.shard}: {file.path}: {error.strerror or error}; rerun"
                ) from error
            if _is_intact(data, image):
                return data
        raise InputError(f"`merge` shard {file.shard}: {file.path} has changed while the command ran; rerun")

    def add(self, folder: Path, content: dict[str, Any], *, shard: Shard, urls: Iterable[str]) -> None:
        """Add a shard, whose URLs must be `urls`. Raises InputError for anything but what a build writes."""
        own = {url: url for url in urls}  # with the objects that the rows have: a copy of each URL takes 100 bytes
        images: dict[bytes, StoredImage] = {}  # by hash, in the order of the URLs
        for state in _read_states(folder / STATES_FILE):
            url = own.pop(state.url, None)
            if url is None:
                raise InputError(f"shard {shard}: its {STATES_FILE} holds what no build writes; run it again")
            if state.image is None:
                self._failures[url] = state.reason
                continue
            image = images.setdefault(state.image.digest, state.image)
            if image != state.image:
                raise InputError(f"shard {shard}: its {STATES_FILE} describes one image in two ways; run it again")
            self._images[url] = image
        if own:
            raise InputError(f"shard {shard}: lacks {len(own)} of its URLs; run it again")
        groups = group_by_file(images.values())
        if {STATES_FILE, *groups} != content["files"].keys():
            raise InputError(f"shard {shard}: its files are not those of its URLs; run it again")
        for name, group in groups.items():
            _check_images(folder / name, group, shard=shard)
            self._files.append(_File(self._num_bytes, folder / name, shard))
            for image in group:
                self._places.add(image, self._num_bytes)
                self._num_bytes += image.num_bytes


class ShardError(InputError):
    """A shard cannot be used: it is damaged, or was made from other inputs."""

    def __init__(self, shard: Shard, text: str) -> None:
        super().__init__(text)
        self.shard = shard


StoredImages = ImageStore | ShardImages  # what a dataset can be written from


def open_shards(output_dir: Path, urls: Sequence[str], *, count: int, inputs: Inputs, where: str) -> ShardImages:
    """Read what all shards of a folder hold, and check each image.

    Raises InputError unless all of them are there, were made from the same inputs, and hold what a build writes: a
    ShardError for one that has to be made again. `where` names the folder or the repo in messages.
    """
    shards = all_shards(count)
    missing = [shard for shard in shards if not (shard_folder(output_dir, shard) / MANIFEST_FILE).is_file()]
    if missing:
        raise InputError(missing_message(missing, where=where))
    contents = [read_manifest(shard_folder(output_dir, shard), shard=shard, inputs=inputs) for shard in shards]
    own: list[list[str]] = [[] for _ in shards]
    for url in urls:
        own[Shard.of_url(url, count).number - 1].append(url)
    images = ShardImages()
    for shard, content in zip(shards, contents, strict=True):
        folder = shard_folder(output_dir, shard)
        try:
            check_file(folder, STATES_FILE, content, shard=shard)  # its images are checked by their own hashes
            images.add(folder, content, shard=shard, urls=own[shard.number - 1])
        except InputError as error:
            raise ShardError(shard, str(error)) from error
        except (DocumentError, OSError, MemoryError) as error:
            raise ShardError(shard, f"shard {shard}: cannot be read ({first_line(error)}); run it again") from error
    return images


def _read_states(file: Path) -> Iterator[UrlState]:
    """The outcomes for the URLs of a shard. Raises DocumentError for a line that `write_shard` does not write."""
    with open_file(file) as stream:
        while line := stream.readline(_MAX_LINE_BYTES + 1):
            state = _as_state(parse_json(line, max_bytes=_MAX_LINE_BYTES))
            if state is None:
                raise DocumentError(f"{file.name} holds what no build writes")
            yield state


def _as_state(row: Any) -> UrlState | None:
    """The outcome that a line describes; None if no build can have it."""
    if not isinstance(row, dict) or not isinstance(row.get("url"), str):
        return None
    if row.keys() == _FAILURE_KEYS:
        state = UrlState(row["url"], Status.FAILED, row["reason"])
        return state if is_possible(state) and state.reason.isprintable() and state.reason != NOT_FETCHED else None
    if row.keys() != _IMAGE_KEYS:
        return None
    state = UrlState(status=Status.STORED, **row)
    return state if is_possible(state) else None


def _check_images(file: Path, images: Sequence[StoredImage], *, shard: Shard) -> None:
    """Raise InputError unless the file holds these images, one after the other, and nothing else."""
    with open_file(file) as stream:
        are_intact = all(_is_intact(stream.read(image.num_bytes), image) for image in images)
        if not are_intact or stream.read(1):
            raise InputError(f"shard {shard}: {file.name} holds an image of none of its URLs; run it again")


def _is_intact(data: bytes, image: StoredImage) -> bool:
    return (
        len(data) == image.num_bytes
        and data.startswith(IMAGE_STARTS)
        and hashlib.sha256(data).hexdigest() == image.sha256
    )
