"""Resolve a name to a folder or to a repo at a commit, and download its files."""

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard
from urllib.parse import quote

import huggingface_hub
from huggingface_hub import DatasetInfo, HfApi, KernelInfo, ModelInfo, SpaceInfo, constants, errors
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._http import hf_raise_for_status
from huggingface_hub.utils._paths import filter_repo_objects

from product_vqa.cards import CARD_FILE
from product_vqa.errors import InputError, first_line
from product_vqa.hub.errors import hub_errors
from product_vqa.hub.retries import BRIEF_WAITS_S, retry
from product_vqa.hub.urls import page_url

MAX_SMALL_FILE_BYTES = 8 * 1024**2  # that `read_file` reads into memory


@dataclass(frozen=True)
class Location:
    """A local folder (`revision` is None) or a Hub repo at a commit."""

    name: str
    revision: str | None = None

    @property
    def folder(self) -> Path | None:
        return Path(self.name) if self.revision is None else None

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name


def locate(name: str, *, repo_type: str = "model", revision: str | None = None) -> Location:
    """Resolve a name to a folder, or to a repo at the commit that `revision` (default: main) is now.

    `name` may include the revision: `user/name@v1`. Raises InputError for a repo that does not exist, is gated or
    private, for a bad token, and if no Hub answers; the message says what to do.
    """
    try:
        is_folder = Path(name).is_dir()
    except (OSError, ValueError) as error:  # a name that is too long, or cannot be encoded
        raise InputError(f"{name[:100]!r} is neither a folder nor a repo id like user/name") from error
    if is_folder:
        if revision is not None:
            raise InputError(f"{name} is a folder and has no revision {revision!r}")
        return Location(name)
    repo_id, _, own_revision = name.partition("@")
    if own_revision and revision:
        raise InputError(f"{name} already names a revision; drop `revision` {revision!r}")
    if repo_id.startswith((".", "/", "~")) or repo_id.count("/") > 1:
        raise InputError(f"{name}: no such folder")
    revision = revision or own_revision or None
    with hub_errors(repo_id, repo_type=repo_type, revision=revision):
        api = HfApi()
        if constants.HF_HUB_OFFLINE:
            commit = api.resolve_revision(
                repo_id, repo_type=repo_type, revision=revision, local_files_only=True
            ).resolved
            if not (_cache_folder(repo_id, repo_type=repo_type) / "snapshots" / commit).is_dir():
                raise errors.LocalEntryNotFoundError(f"no snapshot of {commit}")
            return Location(repo_id, commit)
        info = retry(lambda: api.repo_info(repo_id, repo_type=repo_type, revision=revision), waits_s=BRIEF_WAITS_S)
        if getattr(info, "gated", False):  # everyone can see its page, but not its files
            retry(lambda: api.auth_check(repo_id, repo_type=repo_type), waits_s=BRIEF_WAITS_S)
        commit = commit_of(info)
        if revision != commit:
            # Files are downloaded by commit. This records in the cache which commit `main` was, for offline use.
            retry(lambda: api.resolve_revision(repo_id, repo_type=repo_type, revision=revision), waits_s=BRIEF_WAITS_S)
        return Location(repo_id, commit)


def commit_of(info: ModelInfo | DatasetInfo | SpaceInfo | KernelInfo) -> str:
    """The commit in the Hub's answer about a repo. It becomes part of paths, URLs and cards.

    Raises TypeError, which `hub_errors` explains, for anything else.
    """
    if not is_commit(info.sha):
        raise TypeError(f"the commit of the repo is {info.sha!r}")
    return info.sha


def is_commit(value: object) -> TypeGuard[str]:
    """Return whether a value of the Hub's answer is the id of a commit."""
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{40}", value) is not None


def download(location: Location, *, patterns: list[str], repo_type: str = "model") -> Path:
    """Download the files that match the patterns; returns the folder in the cache, or the location's own folder.

    Raises InputError if the download fails.
    """
    if location.folder is not None:
        return location.folder
    with hub_errors(location.name, repo_type=repo_type, revision=location.revision):
        snapshot = retry(
            lambda: huggingface_hub.snapshot_download(
                location.name,
                repo_type=repo_type,
                revision=location.revision,
                allow_patterns=patterns,
                local_files_only=constants.HF_HUB_OFFLINE,
            ),
            waits_s=BRIEF_WAITS_S,
        )
    return Path(snapshot)


def list_files(location: Location, *, repo_type: str = "model") -> list[str]:
    """List the relative paths of all files, with slashes. In a repo, also those that are not downloaded.

    What is not a regular file, such as a pipe, is not listed; `find_file` refuses a link that leads out of the folder.
    """
    if location.folder is not None:
        return sorted(
            file.relative_to(location.folder).as_posix() for file in location.folder.rglob("*") if file.is_file()
        )
    return sorted(file.path for file in _read_tree(location, repo_type=repo_type))


@dataclass(frozen=True)
class DownloadSize:
    """The size of what a `download` returns, in bytes."""

    total: int
    missing: int  # what is not in the cache yet, and will be downloaded


def measure_download(location: Location, *, patterns: list[str], repo_type: str = "model") -> DownloadSize:
    """Measure the files that match the patterns, without downloading them."""
    if location.folder is not None:
        names = filter_repo_objects(list_files(location), allow_patterns=patterns)
        return DownloadSize(sum((location.folder / name).stat().st_size for name in names), missing=0)
    blobs = _cache_folder(location.name, repo_type=repo_type) / "blobs"
    total = missing = 0
    for _, size, content_hash in filter_repo_objects(
        _list_sizes(location, repo_type=repo_type), allow_patterns=patterns, key=lambda file: file[0]
    ):
        total += size
        if not constants.HF_HUB_OFFLINE and not (blobs / content_hash).exists():
            missing += size
    return DownloadSize(total, missing)


def file_sizes(location: Location, *, repo_type: str = "model") -> dict[str, int]:
    """Return the size in bytes of each file, by its relative path. Only the first call for a commit asks the Hub."""
    if location.folder is not None:
        return {name: (location.folder / name).stat().st_size for name in list_files(location)}
    with hub_errors(location.name, repo_type=repo_type, revision=location.revision):
        return {path: size for path, size, _ in map(_size_of, _read_tree(location, repo_type=repo_type))}


def _list_sizes(location: Location, *, repo_type: str) -> list[tuple[str, int, str]]:
    """List the files of a repo: path, bytes, and its hash in the cache (offline, only of small files)."""
    if constants.HF_HUB_OFFLINE:
        return [(file.path, file.size, file.blob_id) for file in _read_tree(location, repo_type=repo_type)]
    with hub_errors(location.name, repo_type=repo_type, revision=location.revision):
        tree = retry(
            lambda: list(
                HfApi().list_repo_tree(location.name, recursive=True, revision=location.revision, repo_type=repo_type)
            ),
            waits_s=BRIEF_WAITS_S,
        )
        return [_size_of(entry) for entry in tree if isinstance(entry, RepoFile)]


def _size_of(file: RepoFile) -> tuple[str, int, str]:
    """Raises TypeError, which `hub_errors` explains, for anything but a file of a repo."""
    content_hash = file.lfs.sha256 if file.lfs else file.blob_id
    if not isinstance(file.path, str) or not isinstance(file.size, int) or file.size < 0:
        raise TypeError(f"a file has the path {file.path!r} and the size {file.size!r}")
    if not isinstance(content_hash, str) or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", content_hash):
        raise TypeError(f"the hash of {file.path!r} is {content_hash!r}")
    return file.path, file.size, content_hash


def _cache_folder(repo_id: str, *, repo_type: str) -> Path:
    """Return the folder of a repo in the cache of the Hub's client."""
    return Path(constants.HF_HUB_CACHE).expanduser() / repo_folder_name(repo_id=repo_id, repo_type=repo_type)


def _read_tree(location: Location, *, repo_type: str) -> list[RepoFile]:
    """Return all files of a repo, with their sizes."""

    def cached() -> list[RepoFile]:
        return huggingface_hub.get_cached_repo_tree(location.name, repo_type=repo_type, revision=location.revision)

    try:
        return cached()
    except errors.CachedRepoTreeNotFoundError:
        # A download stores the list in the cache. These patterns match; one that matches nothing logs a warning.
        download(location, patterns=[CARD_FILE, ".gitattributes"], repo_type=repo_type)
    try:
        return cached()
    except errors.CachedRepoTreeNotFoundError as error:
        raise InputError(f"{location} is not in the cache, and HF_HUB_OFFLINE forbids downloading it") from error


def find_file(location: Location, folder: Path, name: str) -> Path | None:
    """Find a file in the folder that `download` returned for the location; None if there is none of that name.

    Raises InputError if it is not a regular file, or a link out of the folder: somebody else may have made the folder.
    """
    file = folder / name
    try:
        mode = file.stat().st_mode
        target = file.resolve()
        if target.is_relative_to(folder.resolve()):
            is_inside = True
        else:  # in the cache of the Hub's client, files are links: snapshots/COMMIT/NAME -> blobs/HASH
            is_inside = folder.parent.name == "snapshots" and target.is_relative_to(
                (folder.parent.parent / "blobs").resolve()
            )
    except (FileNotFoundError, NotADirectoryError):
        if file.is_symlink():
            raise InputError(f"{location}: its file {name!r} is a link to a file that does not exist") from None
        return None
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise InputError(f"{location}: its file {name!r} cannot be read: {first_line(error)}") from error
    if not stat.S_ISREG(mode):
        raise InputError(f"{location}: its file {name!r} is not a regular file")
    if not is_inside:
        raise InputError(f"{location}: its file {name!r} is a link out of the folder; replace the link by the file")
    return file


def read_file(
    repo_id: str,
    name: str,
    *,
    repo_type: str = "model",
    revision: str | None = None,
    max_bytes: int = MAX_SMALL_FILE_BYTES,
) -> bytes:
    """Read a small file of a repo without the cache, where it would look like part of a downloaded snapshot.

    Raises EntryNotFoundError if the repo has no such file, and InputError if it is larger than `max_bytes`.
    """
    url = f"{page_url(repo_id, repo_type=repo_type)}/resolve/{quote(revision or 'main', safe='')}/{quote(name)}"
    session, headers = huggingface_hub.get_session(), build_hf_headers()
    with session.stream("GET", url, headers=headers, follow_redirects=True) as response:
        hf_raise_for_status(response)
        content = bytearray()
        for chunk in response.iter_bytes():
            content += chunk
            if len(content) > max_bytes:
                raise InputError(f"{repo_id}: its file {name!r} has more than {max_bytes} bytes")
    return bytes(content)
