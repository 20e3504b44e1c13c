"""Endpoints that write to a repo: what goes where, large files, the commit."""

import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from local_hub.access import endpoint_of, open_repository, segment, store_of, url_of
from local_hub.drafts import Draft
from local_hub.errors import HubError, repo_not_found
from local_hub.large_files import OID, Pointer
from local_hub.names import is_file_path
from local_hub.patterns import is_matched, parse_ignored

REGULAR_SIZE_MAX = 10_000_000  # above, a file is a large file whatever its name
LINE_SIZE_MAX = 16 * 2**20  # of a commit: such a file in base64, and room for its path
NO_PULL_REQUESTS = "This hub has no pull requests: commit to a branch instead"


def preupload(request: Request, body: dict[str, Any]) -> Response:
    """Say of each file how it is to be sent, and what its path holds now, so that it is not sent again."""
    repository = open_repository(request, write=True)
    if "create_pr" in request.query_params:
        raise HubError(400, NO_PULL_REQUESTS)
    commit = repository.commit_at(segment(request, "revision"))
    large = repository.large_file_patterns(commit)
    hosted = repository.read(commit, ".gitignore") or b""
    ignored = parse_ignored(str(body.get("gitIgnore") or hosted.decode("utf-8", "replace")))
    answers = []
    for file in items_of(body, "files"):
        path, size = file.get("path"), file.get("size")
        if not is_file_path(path) or not isinstance(size, int):
            raise HubError(400, f"expected a path inside the repo and a size in bytes, got {path!r} and {size!r}")
        entry = repository.entry(commit, path)
        is_large = size > REGULAR_SIZE_MAX or is_matched(path, large)
        answers.append(
            {
                "path": path,
                "uploadMode": "lfs" if is_large else "regular",
                "shouldIgnore": is_matched(path, ignored),
                "oid": entry.etag if entry and not entry.is_folder else None,
            }
        )
    return JSONResponse({"files": answers, "commitOid": str(commit.id)})


def items_of(body: dict[str, Any], key: str) -> list[dict[str, Any]]:
    items = body.get(key, [])
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise HubError(400, f"{key} has to be a list of objects")
    return items


def pointer_of(item: dict[str, Any]) -> Pointer:
    oid, size = item.get("oid"), item.get("size")
    if not isinstance(oid, str) or not OID.fullmatch(oid) or not isinstance(size, int) or size < 0:
        raise HubError(400, f"expected a sha256 and a size in bytes, got {oid!r} and {size!r}")
    return Pointer(oid, size)


def plan_uploads(request: Request, body: dict[str, Any]) -> Response:
    """Git LFS's batch: where to put each large file that this repo does not have."""
    repository = open_repository(request, write=True)
    if body.get("operation") != "upload" or body.get("hash_algo", "sha256") != "sha256":
        raise HubError(400, "only operation upload with hash_algo sha256 is offered")
    answers = []
    for pointer in map(pointer_of, items_of(body, "objects")):
        answer: dict[str, Any] = {"oid": pointer.oid, "size": pointer.size}
        stored = repository.large_files.find(pointer.oid)
        if stored is None:
            link = f"/large_files/{repository.kind}/{repository.name}/{pointer.oid}/{pointer.size}"
            href = f"{endpoint_of(request)}{link}?{request.app.state.accounts.sign(link)}"
            verify = f"{url_of(request, kind=repository.kind, name=repository.name)}.git/info/lfs/objects/verify"
            answer["actions"] = {"upload": {"href": href}, "verify": {"href": verify}}
        elif stored.stat().st_size != pointer.size:
            message = f"{pointer.oid} has {stored.stat().st_size} bytes, not {pointer.size}"
            answer["error"] = {"code": 422, "message": message}
        answers.append(answer)
    return JSONResponse({"transfer": "basic", "objects": answers})


def verify_upload(request: Request, body: dict[str, Any]) -> Response:
    pointer = pointer_of(body)
    stored = open_repository(request, write=True).large_files.find(pointer.oid)
    if stored is None or stored.stat().st_size != pointer.size:
        raise HubError(404, f"{pointer.oid} with {pointer.size} bytes has not been uploaded to this repo")
    return JSONResponse({})


async def receive_large_file(request: Request) -> Response:
    """The upload itself. Its link, signed in `plan_uploads`, stands for the account: no token comes with it."""
    query = request.query_params
    expires, signature = query.get("expires", ""), query.get("signature", "")
    if not request.app.state.accounts.is_signed(request.scope["path"], expires=expires, signature=signature):
        raise HubError(403, "This upload link is not valid, or not any more: ask for a new one")
    kind, oid, size = (request.path_params[part] for part in ("kind", "oid", "size"))
    name = f"{request.path_params['namespace']}/{request.path_params['name']}"
    repository = await run_in_threadpool(store_of(request).find, kind, name)
    if repository is None:
        raise repo_not_found(None)
    with repository.large_files.receive(Pointer(oid, int(size))) as write:
        async for chunk in request.stream():
            await run_in_threadpool(write, chunk)
    return Response()


async def commit(request: Request) -> Response:
    """Every content is stored as its line arrives, so that a commit of many files never is in memory whole."""
    repository = await run_in_threadpool(lambda: open_repository(request, write=True))
    if "create_pr" in request.query_params:
        raise HubError(400, NO_PULL_REQUESTS)
    draft = Draft(repository)
    async for line in read_lines(request):
        await run_in_threadpool(add_line, draft, line)
    oid = await run_in_threadpool(draft.land, segment(request, "revision").removeprefix("refs/heads/"))
    url = f"{url_of(request, kind=repository.kind, name=repository.name)}/commit/{oid}"
    return JSONResponse({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})


def add_line(draft: Draft, line: bytes) -> None:
    try:
        item = json.loads(line)
        key, value = item["key"], item["value"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise HubError(400, f"a line of the commit is not {{key, value}} in JSON: {error!r}"[:200]) from error
    if not isinstance(value, dict):
        raise HubError(400, f"the value of {key!r} in the commit is not an object")
    draft.add(key, value)


async def read_lines(request: Request) -> AsyncIterator[bytes]:
    pieces: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        *ended, rest = chunk.split(b"\n")
        for end in ended:
            line = b"".join((*pieces, end))
            pieces, size = [], 0
            if line.strip():
                yield line
        pieces.append(rest)
        size += len(rest)
        if size > LINE_SIZE_MAX:
            raise HubError(413, f"a file of more than {REGULAR_SIZE_MAX} bytes has to be uploaded as a large file")
    if b"".join(pieces).strip():
        yield b"".join(pieces)
