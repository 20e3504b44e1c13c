"""Endpoints for branches and tags."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from local_hub.auth import open_repository, path_param
from local_hub.repository import MAIN

GROUPS = {
    "refs/heads/": "branches",
    "refs/convert/": "converts",
    "refs/tags/": "tags",
    "refs/pr/": "pullRequests",
}


def list_refs(request: Request) -> Response:
    groups: dict[str, list[dict[str, str]]] = {group: [] for group in GROUPS.values()}
    for ref, commit_id in open_repository(request).refs().items():
        for prefix, group in GROUPS.items():
            if ref.startswith(prefix):
                groups[group].append({"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": commit_id})
    return JSONResponse(groups)


def create_branch(request: Request, body: dict[str, Any]) -> Response:
    repository = open_repository(request, write=True)
    start = repository.commit_at(str(body.get("startingPoint") or MAIN))
    repository.create_ref(f"refs/heads/{path_param(request, 'ref')}", target=start)
    return JSONResponse({})


def delete_branch(request: Request) -> Response:
    open_repository(request, write=True).delete_ref(f"refs/heads/{path_param(request, 'ref')}")
    return JSONResponse({})


def create_tag(request: Request, body: dict[str, Any]) -> Response:
    repository = open_repository(request, write=True)
    target = repository.commit_at(path_param(request, "ref"))
    repository.create_ref(f"refs/tags/{body.get('tag')}", target=target, message=str(body.get("message") or ""))
    return JSONResponse({})


def delete_tag(request: Request) -> Response:
    open_repository(request, write=True).delete_ref(f"refs/tags/{path_param(request, 'ref')}")
    return JSONResponse({})
