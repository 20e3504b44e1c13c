"""One repo: a bare git repository, its LFS files and its settings.

A commit is atomic, even if the process is killed: libgit2 writes each object under a temporary name and renames it,
the branch moves last, and the next start removes the lock files of a killed process (`Store`). Nothing is synced to
disk: after a power loss the newest commits may be missing or broken.
"""

import itertools
import json
import os
import re
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeGuard

import pygit2
from pygit2.enums import FileMode, ObjectType, SortMode

from local_hub.cards import METADATA_LENGTH_MAX, read_metadata
from local_hub.errors import DamagedError, HubError, entry_not_found, revision_not_found
from local_hub.lfs import POINTER_SIZE_MAX, LfsStore, Pointer, parse_attributes, parse_pointer
from local_hub.patterns import PatternList

OWNER = "local"  # the user who owns every repo and is the author of every commit
MAIN = "main"
ATTRIBUTES = ".gitattributes"
COMMIT_ID_LENGTH_MIN = 7
GIT_ERRORS = (pygit2.GitError, OSError, ValueError, KeyError)  # the Python exceptions for libgit2's errors
PATH_LENGTH_MAX = 1024  # bytes
NAME_LENGTH_MAX = 255  # bytes, the limit of file systems
PATH_DEPTH_MAX = 50
REF_LENGTH_MAX = 255  # bytes
DELETED_FOLDERS_MAX = 1000  # of a commit; for each of them, all paths are searched
# Control characters, and the lone surrogates that JSON can hold and UTF-8 cannot. libgit2 reads C strings: a NUL would
# end a name early.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def is_file_path(path: object) -> TypeGuard[str]:
    """Whether `path` may name a file in a repo, on every system that the repo may be downloaded to."""
    if not isinstance(path, str) or "\\" in path or UNPRINTABLE.search(path):
        return False
    if len(path.encode()) > PATH_LENGTH_MAX:
        return False
    parts = path.split("/")
    return len(parts) <= PATH_DEPTH_MAX and all(map(_is_file_name, parts))


def _is_file_name(name: str) -> bool:
    """Whether `name` is neither empty nor too long, nor `.`, `..` or .git as any file system spells them."""
    if len(name.encode()) > NAME_LENGTH_MAX:
        return False
    # HFS+ ignores format characters, NTFS what is after a colon and trailing dots and spaces; both ignore the case.
    visible = name if name.isascii() else "".join(char for char in name if unicodedata.category(char) != "Cf")
    stem = visible.partition(":")[0].rstrip(". ").lower()
    return stem not in ("", ".git")


def is_ref_name(ref: str) -> bool:
    """Whether `ref` is a valid full name, such as refs/heads/main."""
    if UNPRINTABLE.search(ref) or len(ref.encode()) > REF_LENGTH_MAX:
        return False
    return pygit2.reference_is_valid_name(ref)


def url_path(repo_id: str, *, repo_type: str) -> str:
    """The path of a repo's URL: models are at the root, datasets and spaces under their type."""
    return repo_id if repo_type == "model" else f"{repo_type}s/{repo_id}"


@dataclass(frozen=True)
class Entry:
    """A file or folder at a commit. `pointer` is None unless it is an LFS file."""

    path: str
    oid: str
    is_folder: bool = False
    size: int = 0  # bytes, of the content
    pointer: Pointer | None = None

    @property
    def etag(self) -> str:
        return self.pointer.oid if self.pointer else self.oid


@dataclass(frozen=True)
class Operation:
    """One step of a commit: write the file `path` if there is a `blob`, or else delete the file or folder `path`."""

    path: str
    blob: pygit2.Oid | None = None
    is_folder: bool = False


@dataclass(frozen=True)
class Settings:
    private: bool = False
    gated: str | bool = False  # False, "auto" or "manual"
    created_at: str = ""

    @classmethod
    def load(cls, path: Path) -> "Settings":
        """Raises ValueError for settings that `save` did not write: a damaged file must not make a repo public."""
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict) or not content.keys() <= cls.__dataclass_fields__.keys():
            raise ValueError("unknown settings")
        settings = cls(**content)
        is_valid = type(settings.private) is bool and settings.gated in (False, "auto", "manual")
        if not is_valid or not isinstance(settings.created_at, str):
            raise ValueError("settings out of range")
        return settings

    def save(self, path: Path) -> None:
        tmp_path = path.with_suffix(".new")
        tmp_path.write_text(json.dumps(vars(self)))
        os.replace(tmp_path, path)


def format_time(commit: pygit2.Commit) -> str:
    return datetime.fromtimestamp(commit.commit_time, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def make_signature() -> pygit2.Signature:
    return pygit2.Signature(OWNER, f"{OWNER}@localhost")


class Repository:
    """One repo. A request opens its own: libgit2's objects are not thread-safe."""

    def __init__(self, folder: Path, *, repo_type: str, repo_id: str, lock: threading.Lock, tmp_dir: Path) -> None:
        """`lock` is shared by all requests: held while a branch moves, settings change or the repo is moved."""
        self.folder = folder
        self.repo_type = repo_type
        self.repo_id = repo_id
        self.lock = lock
        self.git = pygit2.Repository(str(folder / "git"))
        self.tmp_dir = tmp_dir
        self.lfs_store = LfsStore(folder / "large_files", tmp_dir=tmp_dir)

    @property
    def url_path(self) -> str:
        return url_path(self.repo_id, repo_type=self.repo_type)

    # Settings

    @property
    def settings(self) -> Settings:
        try:
            return Settings.load(self.folder / "settings.json")
        except ValueError as error:
            name = f"{self.repo_type}s/{self.repo_id}/settings.json"
            raise DamagedError(f'{name} (restore it, or write {{"private": true}} into it)') from error

    def change_settings(self, **changes: Any) -> None:
        with self.lock:
            Settings(**(vars(self.settings) | changes)).save(self.folder / "settings.json")

    # Reading at a commit

    def commit_at(self, revision: str) -> pygit2.Commit:
        """The commit at a branch, a tag, a full ref, or a commit id (its first 7 digits are enough)."""
        for ref in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if ref.startswith("refs/") and is_ref_name(ref):
                try:
                    return self.git.lookup_reference(ref).peel(pygit2.Commit)
                except GIT_ERRORS:
                    continue
        if re.fullmatch(rf"[0-9a-f]{{{COMMIT_ID_LENGTH_MIN},40}}", revision):
            try:
                found = self.git[revision]
            except GIT_ERRORS:  # no such object, or an ambiguous id
                found = None
            if isinstance(found, pygit2.Commit):
                return found
        raise revision_not_found(revision)

    def entry(self, commit: pygit2.Commit, path: str) -> Entry | None:
        if not is_file_path(path):
            return None
        try:
            item = commit.tree[path]
        except KeyError:
            return None
        return self.make_entry(path, item)

    def make_entry(self, path: str, item: pygit2.Object) -> Entry:
        if item.type != ObjectType.BLOB:
            return Entry(path, str(item.id), is_folder=True)
        try:
            _, size = self.git.odb.read_header(item.id)
        except KeyError as error:
            raise DamagedError(f"the git object {item.id} of {path}") from error
        pointer = parse_pointer(self.read_blob(str(item.id))) if size <= POINTER_SIZE_MAX else None
        return Entry(path, str(item.id), size=pointer.size if pointer else size, pointer=pointer)

    def walk(
        self, commit: pygit2.Commit, *, under: str = "", recursive: bool = True
    ) -> list[tuple[str, pygit2.Object]]:
        """List the files and folders below the folder `under`.

        Listing is cheap. `make_entry` is not: it reads the header of each blob, so call it for one page at a time.
        """
        folder = self.entry(commit, under) if under else Entry("", str(commit.tree.id), is_folder=True)
        if folder is None or not folder.is_folder:
            raise entry_not_found(f"{under} does not exist on this revision", commit_id=str(commit.id))
        tree = self.git[folder.oid].peel(pygit2.Tree)
        return list(_walk(tree, prefix=f"{under}/" if under else "", recursive=recursive))

    def read_blob(self, oid: str) -> bytes:
        return self.git.odb.read(oid)[1]

    def read_text(self, commit: pygit2.Commit, path: str) -> str:
        """The text of a file; "" if there is none or if it is an LFS file."""
        entry = self.entry(commit, path)
        if entry is None or entry.is_folder or entry.pointer:
            return ""
        return self.read_blob(entry.oid).decode("utf-8", "replace")

    def card(self, commit: pygit2.Commit) -> dict[str, Any]:
        return read_metadata(self.read_text(commit, "README.md")[:METADATA_LENGTH_MAX])

    def lfs_patterns(self, commit: pygit2.Commit) -> PatternList:
        return PatternList(parse_attributes(self.read_text(commit, ATTRIBUTES)))

    def history(self, commit: pygit2.Commit) -> Iterable[pygit2.Commit]:
        return self.git.walk(commit.id, SortMode.TOPOLOGICAL)

    def last_commits(self, commit: pygit2.Commit, paths: Iterable[str]) -> dict[str, pygit2.Commit]:
        """For each path, the newest ancestor of `commit` (or `commit` itself) that changed it or a file below it."""
        pending = set(paths)
        found = {}
        for ancestor in self.history(commit):
            if not pending:
                break
            for path in _changed_paths(ancestor) & pending:
                pending.remove(path)
                found[path] = ancestor
        return found

    # Writing a commit

    def commit(self, operations: Sequence[Operation], *, branch: str, message: str, parent: str = "") -> str:
        """Apply `operations` in order on top of `branch`, move the branch, and return the id of the new commit.

        With `parent`, a commit id or its first 7 digits, the commit is refused with 412 unless the branch is there.
        Without it, concurrent commits follow each other.
        """
        with self.lock:
            ref = self.branch(branch)
            head = ref.peel(pygit2.Commit)
            if parent and (len(parent) < COMMIT_ID_LENGTH_MIN or not str(head.id).startswith(parent)):
                raise HubError(412, f"A commit has happened since: {branch} is at {head.id}, not at {parent}")
            tree = self._write_tree(head, operations)
            author = make_signature()
            commit_id = self.git.create_commit(None, author, author, message, tree, [head.id])
            try:
                ref.set_target(commit_id)
            except GIT_ERRORS as error:  # a push by git itself does not take our lock
                raise HubError(412, f"A commit to {branch} has happened meanwhile") from error
        return str(commit_id)

    def _write_tree(self, head: pygit2.Commit, operations: Sequence[Operation]) -> pygit2.Oid:
        index = pygit2.Index()
        index.read_tree(head.tree)
        old_paths = {entry.path for entry in index}
        paths = set(old_paths)
        blobs: dict[str, pygit2.Oid] = {}
        if sum(operation.is_folder for operation in operations) > DELETED_FOLDERS_MAX:
            raise HubError(400, f"a commit may delete at most {DELETED_FOLDERS_MAX} folders")
        for operation in operations:
            if operation.blob is not None:
                paths.add(operation.path)
                blobs[operation.path] = operation.blob
                continue
            deleted = _paths_to_delete(operation, paths)
            if not deleted:
                message = (
                    f"A {'folder' if operation.is_folder else 'file'} with this name doesn't exist: {operation.path}"
                )
                raise entry_not_found(message, commit_id=str(head.id))
            paths -= deleted
        ordered = sorted(f"{path}/" for path in paths)  # a folder's files follow it
        for first, second in itertools.pairwise(ordered):
            if second.startswith(first):
                raise HubError(400, f"{first.rstrip('/')} would be a file and a folder")
        for path in old_paths - paths:
            index.remove(path)
        for path in blobs.keys() & paths:
            try:
                index.add(pygit2.IndexEntry(path, blobs[path], FileMode.BLOB))
            except pygit2.GitError as error:  # libgit2 refuses more spellings of .git than `is_file_path`
                raise HubError(400, f"not a valid path in a repo: {path!r}") from error
        return index.write_tree(self.git)

    def list_lfs_files(self) -> set[str]:
        """The sha256 of each LFS file that any commit may refer to, also those of branches that were deleted."""
        pointers = (parse_pointer(self.read_blob(str(oid))) for oid in self.git.odb if self._may_be_pointer(oid))
        return {pointer.oid for pointer in pointers if pointer}

    def _may_be_pointer(self, oid: pygit2.Oid) -> bool:
        kind, size = self.git.odb.read_header(oid)
        return kind == ObjectType.BLOB and size <= POINTER_SIZE_MAX

    # Branches and tags

    def refs(self) -> dict[str, str]:
        """The commit id of each ref, by its full name."""
        return {ref: str(self.git.lookup_reference(ref).peel(pygit2.Commit).id) for ref in self.git.references}

    def branch(self, name: str) -> pygit2.Reference:
        """The branch as it is now. Moving the reference fails if the branch has moved meanwhile."""
        ref = f"refs/heads/{name}"
        if not is_ref_name(ref) or ref not in self.git.references:
            raise revision_not_found(name)
        return self.git.lookup_reference(ref)

    def create_ref(self, ref: str, *, target: pygit2.Commit, message: str | None = None) -> None:
        """Create a branch or a tag. With a message, the tag is an annotated one."""
        if not is_ref_name(ref):
            raise HubError(400, f"not a valid name for a branch or tag: {ref}")
        with self.lock:
            if ref in self.git.references:
                raise HubError(409, f"Reference already exists: {ref}")
            try:
                if message:
                    name = ref.removeprefix("refs/tags/")
                    self.git.create_tag(name, target.id, ObjectType.COMMIT, make_signature(), message)
                else:
                    self.git.references.create(ref, target.id)
            except GIT_ERRORS as error:  # for example, a/b exists and a is to be created
                message = str(error).replace(f"{self.folder}/", "")
                raise HubError(400, f"{ref} cannot be created: {message}") from error

    def delete_ref(self, ref: str) -> None:
        if ref == f"refs/heads/{MAIN}":
            raise HubError(403, f"{MAIN} cannot be deleted")
        with self.lock:
            if not is_ref_name(ref) or ref not in self.git.references:
                raise revision_not_found(ref)
            self.git.references.delete(ref)


def _walk(tree: pygit2.Tree, *, prefix: str, recursive: bool) -> Iterator[tuple[str, pygit2.Object]]:
    for item in tree:
        yield f"{prefix}{item.name}", item
        if recursive and isinstance(item, pygit2.Tree):
            yield from _walk(item, prefix=f"{prefix}{item.name}/", recursive=True)


def _changed_paths(commit: pygit2.Commit) -> set[str]:
    """The files that `commit` changed, and the folders above them."""
    before = commit.parents[0].tree if commit.parents else None
    diff = commit.tree.diff_to_tree(before) if before else commit.tree.diff_to_tree()
    paths = set()
    for delta in diff.deltas:
        parts = delta.new_file.path.split("/")
        paths |= {"/".join(parts[:depth]) for depth in range(1, len(parts) + 1)}
    return paths


def _paths_to_delete(operation: Operation, paths: set[str]) -> set[str]:
    if operation.is_folder:
        return {path for path in paths if path.startswith(f"{operation.path}/")}
    return {operation.path} & paths
