"""All repos of a hub, as folders under its root.

root/hub.lock                            held by the process that serves this root
root/arrivals/                           temporary: unfinished uploads, new repos and deleted repos; emptied at start
root/models/local/name/git/              a bare git repository
root/models/local/name/large_files/      the LFS files, by sha256
root/models/local/name/settings.json
root/models/local/name/damaged/          objects of the git repository that a crash has truncated

Datasets and spaces are stored the same way, under root/datasets and root/spaces.
"""

import logging
import re
import secrets
import shutil
import threading
import zlib
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeGuard

import pygit2
from filelock import FileLock, Timeout
from pygit2.enums import FileMode

from local_hub.lfs import LFS_PATTERNS, LfsStore, format_attributes
from local_hub.repository import ATTRIBUTES, GIT_ERRORS, MAIN, Repository, Settings, make_signature

logger = logging.getLogger(__name__)

REPO_TYPES = ("model", "dataset", "space")
REPO_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?")
REPO_NAME_LENGTH_MAX = 96
UNCOMMITTED_LIFETIME_S = 24 * 3600  # an upload that was interrupted may be continued until then


def is_repo_name(name: object) -> TypeGuard[str]:
    """Whether `name` may be a namespace or the name of a repo: the Hub's rule.

    It also keeps every repo in a folder of its own, under the root.
    """
    return (
        isinstance(name, str)
        and len(name) <= REPO_NAME_LENGTH_MAX
        and REPO_NAME.fullmatch(name) is not None
        and "--" not in name
        and ".." not in name
        and not name.endswith(".git")
    )


def is_repo_id(repo_id: object) -> TypeGuard[str]:
    """Whether `repo_id` is namespace/name, both of them valid."""
    if not isinstance(repo_id, str):
        return False
    parts = repo_id.split("/")
    return len(parts) == 2 and all(map(is_repo_name, parts))


class RootInUseError(Exception):
    pass


class Store:
    def __init__(self, root: Path) -> None:
        """Take `root` for this process.

        Raises OSError if it is not writable, RootInUseError if another process serves it.
        """
        root.mkdir(mode=0o700, parents=True, exist_ok=True)  # hides private repos from other users of the machine
        self.root = root.resolve()
        self._lock = FileLock(self.root / "hub.lock", timeout=0)  # the system releases it when the process dies
        try:
            self._lock.acquire()
        except Timeout as error:
            raise RootInUseError(f"{self.root} is in use by another local_hub") from error
        self._repo_locks: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)
        self.tmp_dir = self.root / "arrivals"
        shutil.rmtree(self.tmp_dir, ignore_errors=True)
        self.tmp_dir.mkdir(exist_ok=True)
        for repo_type in REPO_TYPES:
            for git in self._type_dir(repo_type).glob("*/*/git"):
                _remove_stale_files(git)
                _set_damaged_objects_aside(git)
        for repo_type in REPO_TYPES:
            for folder in self._type_dir(repo_type).glob("*/*/large_files"):
                self._remove_uncommitted(folder, repo_type=repo_type)

    def _remove_uncommitted(self, folder: Path, *, repo_type: str) -> None:
        """Delete the LFS files of a repo that were uploaded long ago and that no commit refers to."""
        files = LfsStore(folder, tmp_dir=self.tmp_dir).list_uncommitted(older_than_s=UNCOMMITTED_LIFETIME_S)
        if not files:
            return
        try:
            repository = self.find(f"{folder.parent.parent.name}/{folder.parent.name}", repo_type=repo_type)
            committed = repository.list_lfs_files() if repository else {path.name for path in files}
        except GIT_ERRORS:  # a damaged repo keeps its files
            return
        for path in files:
            if path.name in committed:
                path.chmod(0o444)
            else:
                path.unlink()

    def close(self) -> None:
        self._lock.release()

    def find(self, repo_id: str, *, repo_type: str) -> Repository | None:
        if repo_type not in REPO_TYPES or not is_repo_id(repo_id):
            return None
        folder = self._type_dir(repo_type) / repo_id
        # A symbolic link could lead out of the root.
        if not (folder / "settings.json").is_file() or folder.resolve() != folder:
            return None
        lock = self._repo_locks[folder]
        return Repository(folder, repo_type=repo_type, repo_id=repo_id, lock=lock, tmp_dir=self.tmp_dir)

    def list_repositories(self, repo_type: str) -> Iterator[Repository]:
        for path in sorted(self._type_dir(repo_type).glob("*/*/settings.json")):
            repository = self.find(f"{path.parent.parent.name}/{path.parent.name}", repo_type=repo_type)
            if repository:
                yield repository

    def create(self, repo_id: str, *, repo_type: str, private: bool = False) -> None:
        """Create a repo with one commit, as the Hub does. A rename makes it appear complete.

        Raises FileExistsError if the repo exists.
        """
        target = self._type_dir(repo_type) / repo_id
        if target.exists():
            raise FileExistsError(repo_id)
        folder = self._tmp_path()
        (folder / "large_files").mkdir(parents=True)
        git = pygit2.init_repository(str(folder / "git"), bare=True, initial_head=MAIN)
        index = pygit2.Index()
        attributes = git.create_blob(format_attributes(LFS_PATTERNS).encode())
        index.add(pygit2.IndexEntry(ATTRIBUTES, attributes, FileMode.BLOB))
        author = make_signature()
        commit = git.create_commit(None, author, author, "initial commit", index.write_tree(git), [])
        git.references.create(f"refs/heads/{MAIN}", commit)
        created_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        Settings(private=private, created_at=created_at).save(folder / "settings.json")
        try:
            _rename(folder, target=target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # it is still there if another request created the repo first

    def move(self, repository: Repository, *, repo_id: str) -> None:
        """Raises FileExistsError if there is a repo `repo_id`."""
        with repository.lock:
            _rename(repository.folder, target=self._type_dir(repository.repo_type) / repo_id)

    def delete(self, repository: Repository) -> None:
        trash = self._tmp_path()
        with repository.lock:
            repository.folder.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)

    def _type_dir(self, repo_type: str) -> Path:
        return self.root / f"{repo_type}s"

    def _tmp_path(self) -> Path:
        return self.tmp_dir / secrets.token_hex(16)


def _rename(folder: Path, *, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        raise FileExistsError(target)
    try:
        folder.rename(target)
    except OSError as error:  # another request was faster; a repo's folder is never empty, so it is never replaced
        raise FileExistsError(target) from error


def _remove_stale_files(git: Path) -> None:
    """Remove what a killed process left: lock files block their branch, unfinished objects take space."""
    for path in (*git.glob("*.lock"), *git.glob("refs/**/*.lock"), *git.glob("objects/tmp_*")):
        path.unlink(missing_ok=True)


def _set_damaged_objects_aside(git: Path) -> None:
    """Move the git objects that a crash or a disk has damaged out of the repository, as if they were missing.

    libgit2 never returns from reading a truncated object, and the process answers nobody any more.
    """
    for path in git.glob("objects/[0-9a-f][0-9a-f]/*"):
        if _is_complete(path):
            continue
        oid = path.parent.name + path.name
        damaged = git.parent / "damaged"
        damaged.mkdir(exist_ok=True)
        path.rename(damaged / oid)
        logger.error(
            "%s: the git object %s is damaged; it is now in %s. Upload its file again, or restore it from a backup",
            "/".join(git.parts[-4:-1]),
            oid,
            damaged,
        )


def _is_complete(path: Path) -> bool:
    """Return whether a loose object of git can be decompressed to its end."""
    inflater = zlib.decompressobj()
    try:
        inflater.decompress(path.read_bytes())
    except zlib.error:
        return False
    return inflater.eof
