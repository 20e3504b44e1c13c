"""Where the shards of a build on several machines meet: a folder that all of them see, a URL, or a branch of the repo.

A shard at a target is complete or absent: its `shard.json` comes last.
"""

import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from fsspec.core import url_to_fs

from dataset_builder.build_shards import MANIFEST_FILE, SHARDS_FOLDER, Inputs, read_manifest, shard_folder
from dataset_builder.shards_branch import (
    download_shards,
    find_shards,
    has_branch,
    push_shard,
    remove_branch,
    remove_shard,
)
from product_vqa.atomic_io import replace_folder
from product_vqa.disk_space import DiskPlan, Need
from product_vqa.errors import InputError, first_line
from product_vqa.sharding import Shard, all_shards, missing_message

_WAITS_S = (1.0, 5.0, 20.0)  # between attempts to write to a URL


class ShardTarget(Protocol):
    """What the command and its workers do with shards; workers call `find` and `put`."""

    @property
    def name(self) -> str:
        """For messages."""

    def prepare(self) -> None:
        """Make it ready for the workers. Raises InputError if it cannot be written."""

    def find(self, shards: Sequence[Shard], *, inputs: Inputs) -> set[Shard]:
        """Those of the shards that are here and were made from these inputs."""

    def put(self, folder: Path, *, shard: Shard) -> None:
        """Add a shard, whose files are in a folder of this machine."""

    def collect(self, count: int, *, inputs: Inputs) -> "Collected":
        """The files of all shards, on this machine. Raises InputError if one is missing."""

    def discard(self, shard: Shard) -> None:
        """Remove a shard that turned out to be damaged: a rerun does it again."""

    def has_any(self) -> bool:
        """Whether there are shards that no dataset was made from yet."""


class Collected(NamedTuple):
    """All shards, on the disk of the command."""

    folder: Path
    remove: Callable[[], None]  # once the dataset is written and pushed


@dataclass(frozen=True)
class FolderTarget:
    """`output_dir`, which all machines see at the same path."""

    folder: Path

    @property
    def name(self) -> str:
        return str(self.folder)

    @property
    def _incoming(self) -> Path:
        """Shards on their way: on the same disk, so that they can be renamed, and not in the folder of the dataset."""
        return self.folder.with_name(f".{self.folder.name}.incoming")

    def prepare(self) -> None:
        shutil.rmtree(self._incoming, ignore_errors=True)  # of workers that were killed
        self._incoming.mkdir(parents=True)
        (self.folder / SHARDS_FOLDER).mkdir(parents=True, exist_ok=True)

    def find(self, shards: Sequence[Shard], *, inputs: Inputs) -> set[Shard]:
        return {shard for shard in shards if _is_complete(shard_folder(self.folder, shard), shard, inputs)}

    def put(self, folder: Path, *, shard: Shard) -> None:
        if not self._incoming.is_dir():
            raise InputError(
                f"`output_dir` {self.folder} is not on this machine of the cluster, and all of them must see it; use "
                "a shared folder, `shards_url`, or `push_to_hub`"
            )
        incoming = self._incoming / f"{shard.suffix}-{secrets.token_hex(4)}"
        shutil.copytree(folder, incoming)
        replace_folder(incoming, shard_folder(self.folder, shard))

    def collect(self, count: int, *, inputs: Inputs) -> Collected:
        # The dataset will replace the shards.
        return Collected(self.folder, lambda: shutil.rmtree(self._incoming, ignore_errors=True))

    def discard(self, shard: Shard) -> None:
        shutil.rmtree(shard_folder(self.folder, shard))

    def has_any(self) -> bool:
        return (self.folder / SHARDS_FOLDER).is_dir()


@dataclass(frozen=True)
class UrlTarget:
    """A folder at a URL of fsspec, such as `s3://bucket/build`; `downloads` is where the command puts its files."""

    url: str
    downloads: Path

    @property
    def name(self) -> str:
        return self.url

    def prepare(self) -> None:
        with self._opened() as (fs, root):
            probe = f"{root}/.{secrets.token_hex(4)}"
            fs.makedirs(f"{root}/{SHARDS_FOLDER}", exist_ok=True)
            fs.pipe_file(probe, b"can this be written?")
            fs.rm_file(probe)

    def find(self, shards: Sequence[Shard], *, inputs: Inputs) -> set[Shard]:
        with self._opened() as (fs, root), tempfile.TemporaryDirectory() as temporary:
            present = _list_shards(fs, root)
            found = set()
            for shard in shards:
                names = present.get(shard.suffix, set())
                if MANIFEST_FILE in names:
                    fs.get_file(_path(root, shard, MANIFEST_FILE), str(Path(temporary) / MANIFEST_FILE))
                    if _is_complete(Path(temporary), shard, inputs, names=names):
                        found.add(shard)
            return found

    def put(self, folder: Path, *, shard: Shard) -> None:
        with self._opened() as (fs, root):
            fs.makedirs(_path(root, shard), exist_ok=True)
            if fs.exists(_path(root, shard, MANIFEST_FILE)):  # of other inputs
                fs.rm_file(_path(root, shard, MANIFEST_FILE))
            names = sorted((file.name for file in folder.iterdir()), key=lambda name: (name == MANIFEST_FILE, name))
            for name in names:
                _retry(partial(fs.put_file, str(folder / name), _path(root, shard, name)))

    def collect(self, count: int, *, inputs: Inputs) -> Collected:
        with self._opened() as (fs, root):
            present = _list_shards(fs, root)
            if missing := [shard for shard in all_shards(count) if MANIFEST_FILE not in present.get(shard.suffix, ())]:
                raise InputError(missing_message(missing, where=self.name))
            files = {shard: sorted(present[shard.suffix]) for shard in all_shards(count)}
            sizes = {
                (shard, name): fs.size(_path(root, shard, name)) for shard, names in files.items() for name in names
            }
            shutil.rmtree(self.downloads, ignore_errors=True)
            plan = DiskPlan(
                (Need("shards", "`output_dir`", self.downloads, sum(sizes.values())),), sum(sizes.values())
            )
            plan.announce()
            for shard, name in sizes:
                target = shard_folder(self.downloads, shard) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                _retry(partial(fs.get_file, _path(root, shard, name), str(target)))
        return Collected(self.downloads, self._remove)

    def discard(self, shard: Shard) -> None:
        with self._opened() as (fs, root):
            fs.rm(_path(root, shard), recursive=True)

    def has_any(self) -> bool:
        with self._opened() as (fs, root):
            return bool(_list_shards(fs, root))

    def _remove(self) -> None:
        shutil.rmtree(self.downloads, ignore_errors=True)
        with self._opened() as (fs, root):
            fs.rm(f"{root}/{SHARDS_FOLDER}", recursive=True)

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, str]]:
        """The file system and the path in it. Raises InputError for whatever it raises: each has its own errors."""
        try:
            fs, root = url_to_fs(self.url)
            yield fs, root.rstrip("/")
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"`shards_url` {self.url}: {type(error).__name__}: {first_line(error)}") from error


@dataclass(frozen=True)
class HubTarget:
    """The branch of the dataset repo on which shards meet."""

    repo_id: str
    private: bool

    @property
    def name(self) -> str:
        return self.repo_id

    def prepare(self) -> None:
        pass  # `check_target` has asked the Hub

    def find(self, shards: Sequence[Shard], *, inputs: Inputs) -> set[Shard]:
        return find_shards(self.repo_id, shards, inputs=inputs)

    def put(self, folder: Path, *, shard: Shard) -> None:
        push_shard(folder, self.repo_id, shard=shard, private=self.private)

    def collect(self, count: int, *, inputs: Inputs) -> Collected:
        folder, merged = download_shards(self.repo_id, count=count, inputs=inputs)
        return Collected(folder, partial(remove_branch, merged))

    def discard(self, shard: Shard) -> None:
        remove_shard(self.repo_id, shard=shard)

    def has_any(self) -> bool:
        return has_branch(self.repo_id)


def _is_complete(folder: Path, shard: Shard, inputs: Inputs, *, names: set[str] | None = None) -> bool:
    """Whether the manifest in the folder is that of the shard, and all files that it lists are there."""
    try:
        content = read_manifest(folder, shard=shard, inputs=inputs)
    except InputError:
        return False
    return content["files"].keys() <= ({file.name for file in folder.iterdir()} if names is None else names)


def _list_shards(fs: Any, root: str) -> dict[str, set[str]]:
    """The names of the files of each shard, by the name of its folder."""
    fs.invalidate_cache()
    found: dict[str, set[str]] = {}
    for path in fs.find(f"{root}/{SHARDS_FOLDER}"):
        folder, _, name = path.rpartition("/")
        found.setdefault(folder.rpartition("/")[2], set()).add(name)
    return found


def _path(root: str, shard: Shard, *name: str) -> str:
    return "/".join((root, SHARDS_FOLDER, shard.suffix, *name))


def _retry(action: Callable[[], object]) -> None:
    for wait_s in _WAITS_S:
        try:
            action()
            return
        except Exception:  # each file system has its own errors
            time.sleep(wait_s)
    action()
