"""Endpoints for commits, in the order in which a client calls them, and the history.

`preupload` says which files are LFS files. For each of them, `lfs_batch` gives a signed URL, `lfs_upload` receives the
content there, and `lfs_verify` confirms it. `commit` receives the other files and moves the branch.
"""

import base64
from collections.abc import Sequence
from typing import Any

import pygit2
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from local_hub.admission import run_in_thread
from local_hub.auth import Accounts, open_repository, path_param
from local_hub.bodies import read_chunks, read_lines
from local_hub.errors import DamagedError, HubError, repo_not_found
from local_hub.lfs import (
    REGULAR_SIZE_MAX,
    SHA256,
    Pointer,
    is_lfs_file,
    parse_gitignore,
    parse_pointer,
)
from local_hub.patterns import PatternList
from local_hub.repository import OWNER, Operation, Repository, format_time, is_file_path
from local_hub.routes.query import paginate
from local_hub.store import Store
from product_vqa.documents import DocumentError, parse_json

FILES_MAX = 1000  # of one preupload or LFS batch; the clients send at most 256
OPERATIONS_MAX = 50_000  # of one commit
LFS_SIZE_MAX = 10**15  # bytes
COMMIT_SIZE_MAX = 4 * 2**30  # bytes
SMALL_LINE_SIZE_MAX = 64 * 2**10  # bytes; only the content of a file is larger, and has no commas
COMMAS_MAX = 1000  # in a larger line: without them it cannot hold many values
LINE_SIZE_MAX = 16 * 2**20  # bytes of a commit's line: room for the largest regular file in base64, and its path
COMMITS_PER_PAGE = 100


def preupload(request: Request, body: dict[str, Any]) -> Response:
    """Say how each file is to be uploaded, and what its path holds now, so that the client can skip it."""
    repository = open_repository(request, write=True)
    refuse_pull_request(request)
    commit = repository.commit_at(path_param(request, "revision"))
    lfs_patterns = repository.lfs_patterns(commit)
    gitignore = body.get("gitIgnore") or repository.read_text(commit, ".gitignore")
    if not isinstance(gitignore, str):
        raise HubError(400, "gitIgnore must be the text of a .gitignore")
    ignored = PatternList(parse_gitignore(gitignore))
    files = []
    for file in parse_objects(body, "files"):
        path, size = file.get("path"), file.get("size")
        if not is_file_path(path) or type(size) is not int:
            raise HubError(
                400, f"each file needs a path inside the repo and a size in bytes, got {path!r} and {size!r}"
            )
        try:
            entry = repository.entry(commit, path)
        except DamagedError:
            entry = None  # the upload replaces it
        files.append(
            {
                "path": path,
                "uploadMode": "lfs" if is_lfs_file(path, size=size, patterns=lfs_patterns) else "regular",
                "shouldIgnore": ignored.is_matched(path),
                "oid": entry.etag if entry and not entry.is_folder else None,
            }
        )
    return JSONResponse({"files": files, "commitOid": str(commit.id)})


def lfs_batch(request: Request, body: dict[str, Any]) -> Response:
    """Give a signed upload URL for each LFS file that the repo does not have: the batch API of Git LFS."""
    repository = open_repository(request, write=True)
    if body.get("operation") != "upload" or body.get("hash_algo", "sha256") != "sha256":
        raise HubError(400, "operation must be upload, and hash_algo sha256")
    accounts: Accounts = request.app.state.accounts
    objects = []
    for item in parse_objects(body, "objects"):
        pointer = parse_oid_and_size(item)
        described: dict[str, Any] = {"oid": pointer.oid, "size": pointer.size}
        stored = repository.lfs_store.find(pointer.oid)
        if stored is None:
            path = f"large_files/{repository.repo_type}s/{repository.repo_id}/{pointer.oid}/{pointer.size}"
            upload = f"{request.base_url}{path}?{accounts.sign(f'/{path}')}"
            verify = f"{request.base_url}{repository.url_path}.git/info/lfs/objects/verify"
            described["actions"] = {"upload": {"href": upload}, "verify": {"href": verify}}
        elif stored.stat().st_size != pointer.size:
            message = f"{pointer.oid} has {stored.stat().st_size} bytes, not {pointer.size}"
            described["error"] = {"code": 422, "message": message}
        objects.append(described)
    return JSONResponse({"transfer": "basic", "objects": objects})


async def lfs_upload(request: Request) -> Response:
    """Receive an LFS file. The signature of the URL is the authorization: the client sends no token."""
    if not request.state.is_signed_upload:
        raise HubError(403, "This upload URL is invalid or has expired. Request a new one.")
    store: Store = request.app.state.store
    params = request.path_params
    repo_id = f"{params['namespace']}/{params['name']}"
    repository = await run_in_thread(request, store.find, repo_id, repo_type=params["repo_type"])
    if repository is None:
        raise repo_not_found(is_anonymous=True)
    pointer = Pointer(params["oid"], int(params["size"]))
    with repository.lfs_store.receive(pointer) as write:
        too_large = HubError(400, f"LFS file {pointer.oid}: expected {pointer.size} bytes, got more")
        async for chunk in read_chunks(request, size_max=pointer.size, too_large=too_large):
            await run_in_thread(request, write, chunk)
    return Response()


def lfs_verify(request: Request, body: dict[str, Any]) -> Response:
    pointer = parse_oid_and_size(body)
    if not open_repository(request, write=True).lfs_store.holds(pointer):
        raise HubError(404, f"{pointer.oid} with {pointer.size} bytes has not been uploaded to this repo")
    return JSONResponse({})


async def commit(request: Request) -> Response:
    """Commit to a branch. Each line of the body is a header or an operation, stored as it arrives to save memory."""
    repository = await run_in_thread(request, open_repository, request, write=True)
    refuse_pull_request(request)
    branch = path_param(request, "revision").removeprefix("refs/heads/")
    await run_in_thread(request, repository.branch, branch)
    builder = CommitBuilder(repository)
    lines: list[bytes] = []
    size = 0
    async for line in read_lines(
        request,
        line_size_max=LINE_SIZE_MAX,
        size_max=COMMIT_SIZE_MAX,
        tmp_dir=repository.tmp_dir,
        too_long=f"a file of more than {REGULAR_SIZE_MAX} bytes must be uploaded as an LFS file",
    ):
        lines.append(line)
        size += len(line)
        if size > SMALL_LINE_SIZE_MAX:
            await run_in_thread(request, builder.add_lines, lines)
            lines, size = [], 0
    await run_in_thread(request, builder.add_lines, lines)
    commit_id = await run_in_thread(request, builder.commit, branch)
    url = f"{request.base_url}{repository.url_path}/commit/{commit_id}"
    return JSONResponse({"success": True, "commitOid": commit_id, "commitUrl": url, "hookOutput": ""})


class CommitBuilder:
    """Collects the header and the operations of one commit. File contents go to the repo at once, as git blobs."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._header: dict[str, Any] = {}
        self._operations: list[Operation] = []
        self._lfs_files: set[str] = set()  # their sha256

    def add_lines(self, lines: Sequence[bytes]) -> None:
        for line in lines:
            self._add_line(line)

    def _add_line(self, line: bytes) -> None:
        if len(line) > SMALL_LINE_SIZE_MAX and line.count(b",") > COMMAS_MAX:
            raise HubError(413, "a line of the commit holds too many values")
        try:
            item = parse_json(line, max_bytes=LINE_SIZE_MAX)
            key, value = item["key"], item["value"]
        except (DocumentError, KeyError, TypeError) as error:
            raise HubError(
                400, f"a line of the commit is not a JSON object with key and value: {error!r}"[:200]
            ) from error
        if not isinstance(value, dict):
            raise HubError(400, f"the value of {key!r} in the commit is not a JSON object")
        if len(self._operations) >= OPERATIONS_MAX:
            raise HubError(413, f"a commit may have at most {OPERATIONS_MAX} operations")
        if key == "header":
            self._header = value
        else:
            self._operations.append(self._parse_operation(key, value))

    def _parse_operation(self, key: object, value: dict[str, Any]) -> Operation:
        path = value.get("path")
        if key == "deletedFolder" and isinstance(path, str):
            path = path.rstrip("/")
        if not is_file_path(path):
            raise HubError(400, f"not a valid path in a repo: {path!r}")
        if key == "file":
            return Operation(path, blob=self._store_file(path, value))
        if key == "lfsFile":
            return Operation(path, blob=self._store_pointer(path, value))
        if key in ("deletedFile", "deletedFolder"):
            return Operation(path, is_folder=key == "deletedFolder")
        raise HubError(400, f"unknown operation in a commit: {key!r}")

    def _store_file(self, path: str, value: dict[str, Any]) -> pygit2.Oid:
        if value.get("encoding") != "base64":
            raise HubError(400, f"{path}: encoding must be base64, got {value.get('encoding')!r}")
        try:
            content = base64.b64decode(value["content"], validate=True)
        except (KeyError, TypeError, ValueError) as error:
            raise HubError(400, f"{path}: content must be encoded in base64") from error
        pointer = parse_pointer(content)
        if pointer and not self._repository.lfs_store.holds(pointer):
            raise HubError(400, f"{path} points to {pointer.oid}, which has not been uploaded to this repo")
        if pointer:
            self._lfs_files.add(pointer.oid)
        return self._repository.git.create_blob(content)

    def _store_pointer(self, path: str, value: dict[str, Any]) -> pygit2.Oid:
        oid = str(value.get("oid"))
        stored = self._repository.lfs_store.find(oid) if value.get("algo", "sha256") == "sha256" else None
        if stored is None:
            raise HubError(400, f"{path}: LFS file {oid} has not been uploaded to this repo")
        size = stored.stat().st_size
        if value.get("size", size) != size:
            raise HubError(400, f"{path}: LFS file {oid} has {size} bytes, not {value['size']}")
        self._lfs_files.add(oid)
        return self._repository.git.create_blob(Pointer(oid, size).format())

    def commit(self, branch: str) -> str:
        """Commit to `branch` and return the id of the commit."""
        summary = str(self._header.get("summary") or "")
        description = str(self._header.get("description") or "")
        parent = str(self._header.get("parentCommit") or "")
        if not summary:
            raise HubError(400, "a commit needs a header with a summary")
        message = f"{summary}\n\n{description}".strip()
        commit_id = self._repository.commit(self._operations, branch=branch, message=message, parent=parent)
        for oid in self._lfs_files:
            self._repository.lfs_store.mark_committed(oid)
        return commit_id


def history(request: Request) -> Response:
    repository = open_repository(request)
    newest = repository.commit_at(request.query_params.get("at") or path_param(request, "revision"))
    commits = list(repository.history(newest))
    return paginate(request, commits, size=COMMITS_PER_PAGE, describe=describe_commits, commit_id=str(newest.id))


def describe_commits(commits: Sequence[pygit2.Commit]) -> list[dict[str, Any]]:
    described = []
    for commit in commits:
        title, _, message = commit.message.partition("\n")
        described.append(
            {
                "id": str(commit.id),
                "title": title,
                "message": message.strip(),
                "date": format_time(commit),
                "authors": [{"user": OWNER, "avatar": ""}],
            }
        )
    return described


def refuse_pull_request(request: Request) -> None:
    if "create_pr" in request.query_params:
        raise HubError(400, "This hub has no pull requests: commit to a branch instead")


def parse_objects(body: dict[str, Any], key: str) -> list[dict[str, Any]]:
    objects = body.get(key, [])
    if not isinstance(objects, list) or not all(isinstance(item, dict) for item in objects):
        raise HubError(400, f"{key} must be a list of JSON objects")
    if len(objects) > FILES_MAX:
        raise HubError(413, f"{key} may have at most {FILES_MAX} entries")
    return objects


def parse_oid_and_size(item: dict[str, Any]) -> Pointer:
    oid, size = item.get("oid"), item.get("size")
    if not isinstance(oid, str) or not SHA256.fullmatch(oid) or type(size) is not int or not 0 <= size <= LFS_SIZE_MAX:
        raise HubError(400, f"expected oid (a sha256) and size (in bytes), got {oid!r} and {size!r}")
    return Pointer(oid, size)
