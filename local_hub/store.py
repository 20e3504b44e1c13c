"""All repos of a hub, as folders below its root.

root/hub.lock                      held by the one process that serves this root
root/arrivals/                     uploads and new repos until they are complete, deleted repos until they are gone
root/models/local/name/git         a bare git repository
root/models/local/name/large_files content by sha256
root/models/local/name/settings.json
"""

import secrets
import shutil
import threading
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pygit2
from filelock import FileLock, Timeout
from pygit2.enums import FileMode

from local_hub.names import is_repo_name
from local_hub.patterns import LARGE_FILE_PATTERNS, format_attributes
from local_hub.repository import ATTRIBUTES, MAIN, Repository, Settings, sign

KINDS = ("models", "datasets", "spaces")


class RootInUseError(Exception):
    pass


class Store:
    def __init__(self, root: Path) -> None:
        """Take `root` for this process. Raises OSError if it cannot be written, RootInUseError if another has it."""
        root.mkdir(mode=0o700, parents=True, exist_ok=True)  # private repos are not for other users of the machine
        self.root = root.resolve()
        self._lock = FileLock(self.root / "hub.lock", timeout=0)  # the system lets go of it when the process dies
        try:
            self._lock.acquire()
        except Timeout as error:
            raise RootInUseError(f"{self.root} is in use by another local_hub") from error
        self._repo_locks: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)
        self.arrivals = self.root / "arrivals"
        shutil.rmtree(self.arrivals, ignore_errors=True)
        self.arrivals.mkdir(exist_ok=True)
        for kind in KINDS:
            for git in (self.root / kind).glob("*/*/git"):
                _remove_traces_of_a_kill(git)

    def close(self) -> None:
        self._lock.release()

    def find(self, kind: str, name: str) -> Repository | None:
        """The repo `name` (namespace/name), None if there is none."""
        parts = name.split("/")
        if kind not in KINDS or len(parts) != 2 or not all(map(is_repo_name, parts)):
            return None
        folder = self.root / kind / name
        # A link would lead out of the root.
        if not (folder / "settings.json").is_file() or folder.resolve() != folder:
            return None
        return Repository(folder, kind=kind, name=name, lock=self._repo_locks[folder], arrivals=self.arrivals)

    def repositories(self, kind: str) -> Iterator[Repository]:
        for path in sorted((self.root / kind).glob("*/*/settings.json")):
            repository = self.find(kind, f"{path.parent.parent.name}/{path.parent.name}")
            if repository:
                yield repository

    def create(self, kind: str, name: str, *, private: bool = False) -> None:
        """A repo with one commit, like a new repo on the Hub. It appears whole, by renaming.

        Raises FileExistsError if there is one of this name.
        """
        if (self.root / kind / name).exists():
            raise FileExistsError(name)
        folder = self.arrivals / secrets.token_hex(16)
        (folder / "large_files").mkdir(parents=True)
        git = pygit2.init_repository(str(folder / "git"), bare=True, initial_head=MAIN)
        index = pygit2.Index()
        attributes = git.create_blob(format_attributes(LARGE_FILE_PATTERNS).encode())
        index.add(pygit2.IndexEntry(ATTRIBUTES, attributes, FileMode.BLOB))
        commit = git.create_commit(None, sign(), sign(), "initial commit", index.write_tree(git), [])
        git.references.create(f"refs/heads/{MAIN}", commit)
        created_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        Settings(private=private, created_at=created_at).save(folder / "settings.json")
        try:
            self._place(folder, self.root / kind / name)
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # still there if the place was taken

    def move(self, repository: Repository, name: str) -> None:
        """Raises FileExistsError if there is a repo of this name."""
        with repository.lock:
            self._place(repository.folder, self.root / repository.kind / name)

    def _place(self, folder: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            raise FileExistsError(target)
        try:
            folder.rename(target)
        except OSError as error:  # somebody was faster: a repo's folder is never empty, so it is never replaced
            raise FileExistsError(target) from error

    def delete(self, repository: Repository) -> None:
        trash = self.arrivals / secrets.token_hex(16)
        with repository.lock:
            repository.folder.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)


def _remove_traces_of_a_kill(git: Path) -> None:
    """Lock files would block a branch for ever, half-written objects would only take room."""
    for path in (*git.glob("*.lock"), *git.glob("refs/**/*.lock"), *git.glob("objects/tmp_*")):
        path.unlink(missing_ok=True)
