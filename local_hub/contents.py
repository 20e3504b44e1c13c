"""Endpoints that read a repo: info, tree, paths, refs, commits, and the files themselves."""

import re
from typing import Any
from urllib.parse import parse_qs

import pygit2
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from local_hub.access import is_set, open_repository, page, segment
from local_hub.accounts import OWNER
from local_hub.errors import HubError, entry_not_found
from local_hub.repos import describe_repository
from local_hub.repository import MAIN, Entry, Repository, format_time

ENTRIES_PER_PAGE = 1000
EXPANDED_ENTRIES_PER_PAGE = 50
COMMITS_PER_PAGE = 100
CACHE_HEADERS = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}


def info(request: Request) -> Response:
    repository = open_repository(request)
    revision = segment(request, "revision") if "revision" in request.path_params else MAIN
    described = describe_repository(repository, revision=revision)
    files = [pair for pair in repository.walk(repository.commit_at(described["sha"])) if pair[1].type_str == "blob"]
    if is_set(request, "blobs"):
        siblings = [describe_sibling(repository.describe(*pair)) for pair in files]
    else:
        siblings = [{"rfilename": path} for path, _ in files]
    return JSONResponse(described | {"siblings": siblings})


def describe_sibling(entry: Entry) -> dict[str, Any]:
    described: dict[str, Any] = {"rfilename": entry.path, "size": entry.size, "blobId": entry.oid}
    if entry.pointer:
        pointer_size = len(entry.pointer.format())
        described["lfs"] = {"sha256": entry.pointer.oid, "size": entry.size, "pointerSize": pointer_size}
    return described


def describe_entries(
    repository: Repository, commit: pygit2.Commit, entries: list[Entry], *, expand: bool
) -> list[dict[str, Any]]:
    commits = repository.last_commits(commit, [entry.path for entry in entries]) if expand else {}
    described = []
    for entry in entries:
        item: dict[str, Any] = {"path": entry.path, "oid": entry.oid, "size": entry.size}
        item["type"] = "directory" if entry.is_folder else "file"
        if entry.pointer:
            item["lfs"] = {"oid": entry.pointer.oid, "size": entry.size, "pointerSize": len(entry.pointer.format())}
        if entry.path in commits:
            last = commits[entry.path]
            title = last.message.partition("\n")[0]
            item["lastCommit"] = {"id": str(last.id), "title": title, "date": format_time(last)}
        described.append(item)
    return described


def tree(request: Request) -> Response:
    repository = open_repository(request)
    commit = repository.commit_at(request.query_params.get("at") or segment(request, "revision"))
    under = segment(request, "path").strip("/") if "path" in request.path_params else ""
    expand = is_set(request, "expand")

    def describe(pairs: list[tuple[str, pygit2.Object]]) -> list[dict[str, Any]]:
        entries = [repository.describe(*pair) for pair in pairs]
        return describe_entries(repository, commit, entries, expand=expand)

    pairs = repository.walk(commit, under=under, recursive=is_set(request, "recursive"))
    size = EXPANDED_ENTRIES_PER_PAGE if expand else ENTRIES_PER_PAGE
    return page(request, pairs, size=size, describe=describe, at=str(commit.id))


async def paths_info(request: Request) -> Response:
    form = parse_qs((await request.body()).decode("utf-8", "replace"))

    def answer() -> Response:
        repository = open_repository(request)
        commit = repository.commit_at(segment(request, "revision"))
        entries = [repository.entry(commit, path.strip("/")) for path in form.get("paths", [])]
        expand = form.get("expand", ["false"])[0].lower() == "true"
        found = [entry for entry in entries if entry]
        return JSONResponse(describe_entries(repository, commit, found, expand=expand))

    return await run_in_threadpool(answer)


def refs(request: Request) -> Response:
    groups: dict[str, list[dict[str, str]]] = {"branches": [], "converts": [], "tags": [], "pullRequests": []}
    prefixes = {
        "refs/heads/": "branches",
        "refs/convert/": "converts",
        "refs/tags/": "tags",
        "refs/pr/": "pullRequests",
    }
    for ref, commit_id in open_repository(request).refs().items():
        for prefix, group in prefixes.items():
            if ref.startswith(prefix):
                groups[group].append({"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": commit_id})
    return JSONResponse(groups)


def commits(request: Request) -> Response:
    repository = open_repository(request)
    commit = repository.commit_at(request.query_params.get("at") or segment(request, "revision"))

    def describe(some: list[pygit2.Commit]) -> list[dict[str, Any]]:
        described = []
        for each in some:
            title, _, message = each.message.partition("\n")
            author = {"user": OWNER, "avatar": ""}
            item = {"id": str(each.id), "title": title, "message": message.strip(), "date": format_time(each)}
            described.append(item | {"authors": [author]})
        return described

    history = list(repository.history(commit))
    return page(request, history, size=COMMITS_PER_PAGE, describe=describe, at=str(commit.id))


def create_branch(request: Request, body: dict[str, Any]) -> Response:
    repository = open_repository(request, write=True)
    start = repository.commit_at(str(body.get("startingPoint") or MAIN))
    repository.create_ref(f"refs/heads/{segment(request, 'ref')}", target=start)
    return JSONResponse({})


def create_tag(request: Request, body: dict[str, Any]) -> Response:
    repository = open_repository(request, write=True)
    target = repository.commit_at(segment(request, "ref"))
    repository.create_ref(f"refs/tags/{body.get('tag')}", target=target, message=str(body.get("message") or ""))
    return JSONResponse({})


def delete_branch(request: Request) -> Response:
    open_repository(request, write=True).delete_ref(f"refs/heads/{segment(request, 'ref')}")
    return JSONResponse({})


def delete_tag(request: Request) -> Response:
    open_repository(request, write=True).delete_ref(f"refs/tags/{segment(request, 'ref')}")
    return JSONResponse({})


def resolve(request: Request) -> Response:
    """One file at one commit, whole or a range of it."""
    repository = open_repository(request, files=True)
    commit = repository.commit_at(segment(request, "revision"))
    entry = repository.entry(commit, segment(request, "path"))
    if entry is None or entry.is_folder:
        raise entry_not_found(commit_id=str(commit.id))
    headers = CACHE_HEADERS | {"X-Repo-Commit": str(commit.id), "ETag": f'"{entry.etag}"', "Accept-Ranges": "bytes"}
    if entry.pointer:
        headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(entry.size)}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if entry.pointer is None:
        return answer_range(repository.blob(entry.oid), request.headers.get("range", ""), headers=headers)
    path = repository.large_files.find(entry.pointer.oid)
    if path is None:
        raise HubError(500, f"the content of {entry.path} ({entry.pointer.oid}) is missing from this hub's root")
    return FileResponse(path, headers=headers, media_type="application/octet-stream")


def answer_range(content: bytes, asked: str, *, headers: dict[str, str]) -> Response:
    """`content`, or the one range of it that the header `asked` names (more than one: all, as HTTP allows)."""
    size, media_type = len(content), "application/octet-stream"
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", asked.replace(" ", ""), re.ASCII)
    if match is None or match[0] == "bytes=-":
        return Response(content, headers=headers, media_type=media_type)
    first, last = match.groups()
    start = int(first) if first else max(size - int(last), 0)
    end = min(int(last) + 1, size) if first and last else size
    if start >= end:
        return Response(status_code=416, headers=headers | {"Content-Range": f"bytes */{size}"})
    headers |= {"Content-Range": f"bytes {start}-{end - 1}/{size}"}
    return Response(content[start:end], status_code=206, headers=headers, media_type=media_type)
