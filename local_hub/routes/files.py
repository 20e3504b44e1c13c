"""Endpoints that read the files of a repo: tree, paths info, and the files themselves."""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pygit2
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse

from local_hub.admission import run_in_thread
from local_hub.auth import authorize_reader, open_repository, path_param
from local_hub.blobs import BlobFile, open_blob
from local_hub.bodies import read_form
from local_hub.errors import DamagedError, entry_not_found
from local_hub.repository import Entry, Repository, format_time
from local_hub.routes.query import flag, paginate

ENTRIES_PER_PAGE = 1000
EXPANDED_ENTRIES_PER_PAGE = 50
PATHS_MAX = 1000  # of one request
CHUNK_SIZE = 64 * 2**10  # bytes of a regular file in memory while it is sent
MEDIA_TYPE = "application/octet-stream"
# Browsers must not guess the type of a file: HTML in a repo would run as a page of this hub.
CACHE_HEADERS = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}


def tree(request: Request) -> Response:
    repository = open_repository(request)
    commit = repository.commit_at(request.query_params.get("at") or path_param(request, "revision"))
    under = path_param(request, "path").strip("/") if "path" in request.path_params else ""
    expand = flag(request.query_params, "expand")

    def describe(items: Sequence[tuple[str, pygit2.Object]]) -> list[dict[str, Any]]:
        entries = [repository.make_entry(path, item) for path, item in items]
        return describe_entries(repository, commit, entries, expand=expand)

    items = repository.walk(commit, under=under, recursive=flag(request.query_params, "recursive"))
    size = EXPANDED_ENTRIES_PER_PAGE if expand else ENTRIES_PER_PAGE
    return paginate(request, items, size=size, describe=describe, commit_id=str(commit.id))


async def paths_info(request: Request) -> Response:
    await run_in_thread(request, authorize_reader, request)
    form = await read_form(request, num_fields_max=PATHS_MAX + 1)

    def find_and_describe() -> Response:
        repository = open_repository(request)
        commit = repository.commit_at(path_param(request, "revision"))
        paths = dict.fromkeys(path.strip("/") for path in form.get("paths", []))
        entries = [repository.entry(commit, path) for path in paths]
        found = [entry for entry in entries if entry]
        expand = form.get("expand", ["false"])[0].lower() == "true"
        return JSONResponse(describe_entries(repository, commit, found, expand=expand))

    return await run_in_thread(request, find_and_describe)


def describe_entries(
    repository: Repository, commit: pygit2.Commit, entries: list[Entry], *, expand: bool
) -> list[dict[str, Any]]:
    """What the Hub's API returns for each entry; with `expand`, also the last commit that changed it."""
    last_commits = repository.last_commits(commit, [entry.path for entry in entries]) if expand else {}
    described = []
    for entry in entries:
        item: dict[str, Any] = {"path": entry.path, "oid": entry.oid, "size": entry.size}
        item["type"] = "directory" if entry.is_folder else "file"
        if entry.pointer:
            item["lfs"] = {"oid": entry.pointer.oid, "size": entry.size, "pointerSize": len(entry.pointer.format())}
        if entry.path in last_commits:
            last = last_commits[entry.path]
            title = last.message.partition("\n")[0]
            item["lastCommit"] = {"id": str(last.id), "title": title, "date": format_time(last)}
        described.append(item)
    return described


def resolve(request: Request) -> Response:
    """Send a file at a commit, or a range of its bytes."""
    repository = open_repository(request, files=True)
    commit = repository.commit_at(path_param(request, "revision"))
    entry = repository.entry(commit, path_param(request, "path"))
    if entry is None or entry.is_folder:
        raise entry_not_found(commit_id=str(commit.id))
    headers = CACHE_HEADERS | {"X-Repo-Commit": str(commit.id), "ETag": f'"{entry.etag}"', "Accept-Ranges": "bytes"}
    if entry.pointer:
        headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(entry.size)}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if entry.pointer is None:
        return send_range(repository, entry, request=request, headers=headers)
    path = repository.lfs_store.find(entry.pointer.oid)
    if path is None:
        raise DamagedError(f"the LFS file {entry.pointer.oid} of {entry.path}")
    return FileResponse(path, headers=headers, media_type=MEDIA_TYPE)


def send_range(repository: Repository, entry: Entry, *, request: Request, headers: dict[str, str]) -> Response:
    """Send the range of a regular file that a Range header requests, or all of it.

    Several ranges in one header are answered with all of it, which HTTP allows.
    """
    start, end, status_code = 0, entry.size, 200
    requested = request.headers.get("range", "").replace(" ", "")
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", requested, re.ASCII)
    if match and match[0] != "bytes=-":
        first, last = match.groups()
        start = int(first) if first else max(entry.size - int(last), 0)
        end = min(int(last) + 1, entry.size) if first and last else entry.size
        if start >= end:
            return Response(status_code=416, headers=headers | {"Content-Range": f"bytes */{entry.size}"})
        headers |= {"Content-Range": f"bytes {start}-{end - 1}/{entry.size}"}
        status_code = 206
    headers |= {"Content-Length": str(end - start)}
    if request.method == "HEAD":
        return Response(status_code=status_code, headers=headers, media_type=MEDIA_TYPE)
    if entry.size <= CHUNK_SIZE:
        content = repository.read_blob(entry.oid)[start:end]
        return Response(content, status_code, headers=headers, media_type=MEDIA_TYPE)
    chunks = read_in_chunks(open_blob(repository, entry.oid), start=start, end=end)
    return StreamingResponse(chunks, status_code, headers=headers, media_type=MEDIA_TYPE)


async def read_in_chunks(blob: BlobFile, *, start: int, end: int) -> AsyncIterator[bytes]:
    for offset in range(start, end, CHUNK_SIZE):
        yield blob.read(offset, min(CHUNK_SIZE, end - offset))
