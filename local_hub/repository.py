"""One repo: a bare git repository, its large files beside it, and its settings.

A commit is whole or absent whenever the process is killed: libgit2 writes every object under a temporary name and
renames it, the branch moves last, and a lock file that a killed process left is removed at the next start
(`Store`). Nothing is synced to the disk: after a power loss the newest commits may be gone or broken.
"""

import json
import os
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pygit2
from pygit2.enums import ObjectType, SortMode

from local_hub.accounts import OWNER
from local_hub.cards import parse_card
from local_hub.errors import HubError, entry_not_found, revision_not_found
from local_hub.large_files import POINTER_SIZE_MAX, LargeFiles, Pointer, parse_pointer
from local_hub.names import is_file_path, is_ref_name
from local_hub.patterns import parse_attributes

MAIN = "main"
ATTRIBUTES = ".gitattributes"
SHORTEST_COMMIT_ID = 7
GIT_ERRORS = (pygit2.GitError, OSError, ValueError, KeyError)  # what libgit2's answers become in Python


@dataclass(frozen=True)
class Entry:
    """What a path holds at a commit. `size` is that of the content, `pointer` is there for a large file."""

    path: str
    oid: str
    is_folder: bool = False
    size: int = 0
    pointer: Pointer | None = None

    @property
    def etag(self) -> str:
        return self.pointer.oid if self.pointer else self.oid


@dataclass(frozen=True)
class Settings:
    private: bool = False
    gated: str | bool = False  # False, "auto" or "manual"
    created_at: str = ""

    def save(self, path: Path) -> None:
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(vars(self)))
        os.replace(fresh, path)


def format_time(commit: pygit2.Commit) -> str:
    return datetime.fromtimestamp(commit.commit_time, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def sign() -> pygit2.Signature:
    return pygit2.Signature(OWNER, f"{OWNER}@localhost")


class Repository:
    def __init__(self, folder: Path, *, kind: str, name: str, lock: threading.Lock, arrivals: Path) -> None:
        self.folder = folder
        self.kind = kind
        self.name = name  # namespace/name
        self.lock = lock  # held while a branch moves, settings change, or the repo itself is moved
        self.git = pygit2.Repository(str(folder / "git"))  # one for each request: libgit2's are not for sharing
        self.large_files = LargeFiles(folder / "large_files", arrivals=arrivals)

    @property
    def settings(self) -> Settings:
        return Settings(**json.loads((self.folder / "settings.json").read_text()))

    def change_settings(self, **changes: Any) -> None:
        with self.lock:
            Settings(**(vars(self.settings) | changes)).save(self.folder / "settings.json")

    def commit_at(self, revision: str) -> pygit2.Commit:
        """The commit that a branch, a tag, a full ref or (the first 7 digits of) a commit's id names."""
        for ref in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if ref.startswith("refs/") and is_ref_name(ref):
                try:
                    return self.git.lookup_reference(ref).peel(pygit2.Commit)
                except GIT_ERRORS:
                    continue
        if re.fullmatch(rf"[0-9a-f]{{{SHORTEST_COMMIT_ID},40}}", revision):
            try:
                found = self.git[revision]
            except GIT_ERRORS:  # none, or more than one
                found = None
            if isinstance(found, pygit2.Commit):
                return found
        raise revision_not_found(revision)

    def branch(self, name: str) -> pygit2.Reference:
        """The branch as it is now: moving this reference fails if the branch has been moved meanwhile."""
        ref = f"refs/heads/{name}"
        if not is_ref_name(ref) or ref not in self.git.references:
            raise revision_not_found(name)
        return self.git.lookup_reference(ref)

    def entry(self, commit: pygit2.Commit, path: str) -> Entry | None:
        if not is_file_path(path):
            return None
        try:
            return self.describe(path, commit.tree[path])
        except KeyError:
            return None

    def walk(
        self, commit: pygit2.Commit, *, under: str = "", recursive: bool = True
    ) -> list[tuple[str, pygit2.Object]]:
        """Paths below the folder `under`, folders too, with what `describe` makes an entry of: listing is cheap,
        describing reads each blob's header."""
        found = self.entry(commit, under) if under else Entry("", str(commit.tree.id), is_folder=True)
        if found is None or not found.is_folder:
            raise entry_not_found(f"{under} does not exist on this revision", commit_id=str(commit.id))
        return list(
            _walk(self.git[found.oid].peel(pygit2.Tree), prefix=f"{under}/" if under else "", recursive=recursive)
        )

    def describe(self, path: str, item: pygit2.Object) -> Entry:
        if item.type != ObjectType.BLOB:
            return Entry(path, str(item.id), is_folder=True)
        _, size = self.git.odb.read_header(item.id)
        pointer = parse_pointer(self.blob(str(item.id))) if size <= POINTER_SIZE_MAX else None
        return Entry(path, str(item.id), size=pointer.size if pointer else size, pointer=pointer)

    def blob(self, oid: str) -> bytes:
        return self.git.odb.read(oid)[1]

    def read(self, commit: pygit2.Commit, path: str) -> bytes | None:
        """Content of a file that git itself holds, None if there is none."""
        entry = self.entry(commit, path)
        return None if entry is None or entry.is_folder or entry.pointer else self.blob(entry.oid)

    def card(self, commit: pygit2.Commit) -> dict[str, Any]:
        try:
            return parse_card((self.read(commit, "README.md") or b"").decode("utf-8", "replace"))
        except ValueError:  # a broken card hides its own metadata, not the repo
            return {}

    def large_file_patterns(self, commit: pygit2.Commit) -> list[str]:
        return parse_attributes((self.read(commit, ATTRIBUTES) or b"").decode("utf-8", "replace"))

    def history(self, commit: pygit2.Commit) -> Iterable[pygit2.Commit]:
        return self.git.walk(commit.id, SortMode.TOPOLOGICAL)

    def last_commits(self, commit: pygit2.Commit, paths: Iterable[str]) -> dict[str, pygit2.Commit]:
        """For each path the newest commit, up to `commit`, that changed it or something below it."""
        pending, found = set(paths), {}
        for current in self.history(commit):
            if not pending:
                break
            before = current.parents[0].tree if current.parents else None
            diff = current.tree.diff_to_tree(before) if before else current.tree.diff_to_tree()
            for delta in diff.deltas:
                parts = delta.new_file.path.split("/")
                for depth in range(len(parts), 0, -1):
                    path = "/".join(parts[:depth])
                    if path in pending:
                        pending.remove(path)
                        found[path] = current
        return found

    def refs(self) -> dict[str, str]:
        """Full name -> id of the commit it leads to."""
        return {ref: str(self.git.lookup_reference(ref).peel(pygit2.Commit).id) for ref in self.git.references}

    def create_ref(self, ref: str, *, target: pygit2.Commit, message: str | None = None) -> None:
        """A branch, or a tag: one that has a message becomes an object of its own."""
        if not is_ref_name(ref):
            raise HubError(400, f"not a valid name for a branch or tag: {ref}")
        with self.lock:
            if ref in self.git.references:
                raise HubError(409, f"Reference already exists: {ref}")
            try:
                if message:
                    tag = ref.removeprefix("refs/tags/")
                    self.git.create_tag(tag, target.id, ObjectType.COMMIT, sign(), message)
                else:
                    self.git.references.create(ref, target.id)
            except GIT_ERRORS as error:  # such as a/b beside a
                raise HubError(400, f"{ref} cannot be created: {error}") from error

    def delete_ref(self, ref: str) -> None:
        if ref == f"refs/heads/{MAIN}":
            raise HubError(403, f"{MAIN} cannot be deleted")
        with self.lock:
            if not is_ref_name(ref) or ref not in self.git.references:
                raise revision_not_found(ref)
            self.git.references.delete(ref)


def _walk(tree: pygit2.Tree, *, prefix: str, recursive: bool) -> Iterable[tuple[str, pygit2.Object]]:
    for item in tree:
        yield f"{prefix}{item.name}", item
        if recursive and isinstance(item, pygit2.Tree):
            yield from _walk(item, prefix=f"{prefix}{item.name}/", recursive=True)
