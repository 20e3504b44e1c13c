"""A commit in the making: contents are stored as they arrive, the branch moves at the end."""

import base64
from typing import Any

import pygit2
from pygit2.enums import FileMode

from local_hub.errors import HubError, entry_not_found
from local_hub.large_files import Pointer, parse_pointer
from local_hub.names import is_file_path
from local_hub.repository import SHORTEST_COMMIT_ID, Repository, sign


class Draft:
    """The operations of one commit, in the order in which they are to be applied."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.header: dict[str, Any] = {}
        self._operations: list[tuple[str, str, pygit2.Oid | None]] = []

    def add(self, key: str, value: dict[str, Any]) -> None:
        """One line of the request. What is not understood is refused, not left out."""
        if key == "header":
            self.header = value
            return
        path = value.get("path")
        if key == "deletedFolder" and isinstance(path, str):
            path = path.rstrip("/")
        if not is_file_path(path):
            raise HubError(400, f"not a valid path in a repo: {path!r}")
        if key == "file":
            self._operations.append((key, path, self._store(path, value)))
        elif key == "lfsFile":
            self._operations.append((key, path, self._point(path, value)))
        elif key in ("deletedFile", "deletedFolder"):
            self._operations.append((key, path, None))
        else:
            raise HubError(400, f"unknown operation in a commit: {key!r}")

    def _store(self, path: str, value: dict[str, Any]) -> pygit2.Oid:
        try:
            content = base64.b64decode(value["content"], validate=True) if value["encoding"] == "base64" else None
        except (KeyError, TypeError, ValueError):
            content = None
        if content is None:
            raise HubError(400, f"{path}: expected content in base64")
        pointer = parse_pointer(content)
        if pointer and self.repository.large_files.find(pointer.oid) is None:
            raise HubError(400, f"{path} points to {pointer.oid}, which has not been uploaded to this repo")
        return self.repository.git.create_blob(content)

    def _point(self, path: str, value: dict[str, Any]) -> pygit2.Oid:
        oid = str(value.get("oid"))
        stored = self.repository.large_files.find(oid) if value.get("algo", "sha256") == "sha256" else None
        if stored is None:
            raise HubError(400, f"{path}: large file {oid} has not been uploaded to this repo")
        size = stored.stat().st_size
        if value.get("size", size) != size:
            raise HubError(400, f"{path}: large file {oid} has {size} bytes, not {value['size']}")
        return self.repository.git.create_blob(Pointer(oid, size).format())

    def land(self, branch: str) -> str:
        """Commit to `branch` on top of what it then is, and return the commit's id.

        Refused with 412 if the request names another parent than the branch's commit; without a parent, commits
        that arrive together land one after the other.
        """
        summary, description, expected = (
            str(self.header.get(key) or "") for key in ("summary", "description", "parentCommit")
        )
        if not summary:
            raise HubError(400, "a commit needs a header with a summary")
        with self.repository.lock:
            ref = self.repository.branch(branch)
            parent = ref.peel(pygit2.Commit)
            if expected and not (len(expected) >= SHORTEST_COMMIT_ID and str(parent.id).startswith(expected)):
                raise HubError(412, f"A commit has happened since: {branch} is at {parent.id}, not at {expected}.")
            message = f"{summary}\n\n{description}".strip()
            tree = self._write_tree(parent)
            commit = self.repository.git.create_commit(None, sign(), sign(), message, tree, [parent.id])
            try:
                ref.set_target(commit)
            except pygit2.GitError as error:  # git itself may have pushed to this branch, without our lock
                raise HubError(412, f"A commit to {branch} has happened meanwhile: {error}") from error
        return str(commit)

    def _write_tree(self, parent: pygit2.Commit) -> pygit2.Oid:
        index = pygit2.Index()
        index.read_tree(parent.tree)
        before = {item.path for item in index}
        after, changed = set(before), dict[str, pygit2.Oid]()
        for key, path, blob in self._operations:
            if blob is not None:
                after.add(path)
                changed[path] = blob
                continue
            gone = {path} & after if key == "deletedFile" else {p for p in after if p.startswith(f"{path}/")}
            if not gone:
                kind = "file" if key == "deletedFile" else "folder"
                raise entry_not_found(f"A {kind} with this name doesn't exist: {path}", commit_id=str(parent.id))
            after -= gone
        folders = {path[:end] for path in after for end, letter in enumerate(path) if letter == "/"}
        if both := after & folders:
            raise HubError(400, f"{min(both)} would be a file and a folder at once")
        for path in before - after:
            index.remove(path)
        for path in changed.keys() & after:
            try:
                index.add(pygit2.IndexEntry(path, changed[path], FileMode.BLOB))
            except pygit2.GitError as error:  # libgit2 knows more spellings of .git than we do
                raise HubError(400, f"not a valid path in a repo: {path!r}") from error
        return index.write_tree(self.repository.git)
