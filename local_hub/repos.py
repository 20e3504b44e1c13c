"""Endpoints about the account and its repos: who am I, create, delete, move, settings, search."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from local_hub.access import (
    account_of,
    is_set,
    is_visible,
    number,
    open_named,
    open_repository,
    page,
    store_of,
    url_of,
    writer_of,
)
from local_hub.cards import list_tags, parse_card
from local_hub.errors import HubError
from local_hub.names import is_repo_name
from local_hub.repository import MAIN, Repository, format_time
from local_hub.store import KINDS

REPOS_PER_PAGE = 100


def whoami(request: Request) -> Response:
    account = account_of(request)
    if account is None:
        raise HubError(401, "Invalid username or password.")
    return JSONResponse(account.describe())


def kind_of(body: dict[str, Any]) -> str:
    kind = f"{body.get('type') or 'model'}s"
    if kind not in KINDS:
        raise HubError(400, f"type must be model, dataset or space, got {body.get('type')!r}")
    return kind


def name_of(request: Request, name: object) -> str:
    """`name` as namespace/name, if it is a name that the account may give to a repo."""
    account = writer_of(request)
    parts = name.split("/") if isinstance(name, str) else []
    if len(parts) != 2 or not all(map(is_repo_name, parts)):
        raise HubError(400, f"not a valid repo name (letters, digits, - _ . and at most 96 of them): {name!r}")
    if parts[0] != account.name:
        raise HubError(403, f"You don't have the rights to create a repo under the namespace {parts[0]}")
    return "/".join(parts)


def is_private(body: dict[str, Any]) -> bool:
    if body.get("visibility") not in (None, "private", "public"):
        raise HubError(400, f"visibility must be private or public, got {body['visibility']!r}")
    return body.get("visibility") == "private" or body.get("private") is True


def create(request: Request, body: dict[str, Any]) -> Response:
    account = writer_of(request)
    kind = kind_of(body)
    name = name_of(request, f"{body.get('organization') or account.name}/{body.get('name') or ''}")
    url = url_of(request, kind=kind, name=name)
    try:
        store_of(request).create(kind, name, private=is_private(body))
    except FileExistsError as error:
        raise HubError(409, f"You already created this {kind[:-1]} repo: {name}", content={"url": url}) from error
    return JSONResponse({"url": url, "name": name, "private": is_private(body)})


def delete(request: Request, body: dict[str, Any]) -> Response:
    account = writer_of(request)
    name = f"{body.get('organization') or account.name}/{body.get('name') or ''}"
    store_of(request).delete(open_named(request, kind=kind_of(body), name=name, write=True))
    return JSONResponse({})


def move(request: Request, body: dict[str, Any]) -> Response:
    kind = kind_of(body)
    repository = open_named(request, kind=kind, name=str(body.get("fromRepo")), write=True)
    name = name_of(request, body.get("toRepo"))
    try:
        store_of(request).move(repository, name)
    except FileExistsError as error:
        raise HubError(409, f"There is a {kind[:-1]} {name} already") from error
    return JSONResponse({"url": url_of(request, kind=kind, name=name)})


def change_settings(request: Request, body: dict[str, Any]) -> Response:
    repository = open_repository(request, write=True)
    changes: dict[str, Any] = {}
    if "visibility" in body or "private" in body:
        changes["private"] = is_private(body)
    if "gated" in body:
        if body["gated"] not in ("auto", "manual", False):
            raise HubError(400, f"gated must be auto, manual or false, got {body['gated']!r}")
        changes["gated"] = body["gated"]
    repository.change_settings(**changes)
    settings = repository.settings
    return JSONResponse({"private": settings.private, "gated": settings.gated})


def validate_card(request: Request, body: dict[str, Any]) -> Response:
    try:
        card = parse_card(str(body.get("content")))
    except ValueError as error:
        errors = [{"message": str(error)}]
        raise HubError(400, "Invalid metadata in README.md", content={"errors": errors, "warnings": []}) from error
    warnings = [] if card else [{"message": "empty or missing yaml metadata in repo card"}]
    return JSONResponse({"errors": [], "warnings": warnings})


def check_access(request: Request) -> Response:
    open_repository(request, files=True, write=request.scope["path"].endswith("/write"))
    return JSONResponse({})


def describe_repository(repository: Repository, *, revision: str = MAIN) -> dict[str, Any]:
    """What the Hub tells about a repo, but for its files."""
    commit = repository.commit_at(revision)
    settings, card = repository.settings, repository.card(commit)
    named = {key: card[key] for key in ("library_name", "pipeline_tag") if isinstance(card.get(key), str)}
    return named | {
        "_id": repository.name,
        "id": repository.name,
        "modelId": repository.name,
        "author": repository.name.split("/")[0],
        "sha": str(commit.id),
        "private": settings.private,
        "gated": settings.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "createdAt": settings.created_at,
        "lastModified": format_time(commit),
        "tags": list_tags(card),
        "cardData": card or None,
    }


def search(request: Request) -> Response:
    """Repos that the account may see, the last changed first."""
    wanted = request.query_params
    found = []
    for repository in store_of(request).repositories(request.path_params["kind"]):
        if is_visible(repository, account_of(request)):
            described = describe_repository(repository)
            if (
                wanted.get("author", described["author"]) == described["author"]
                and wanted.get("search", "").lower() in described["id"].lower()
                and set(wanted.getlist("filter")) <= set(described["tags"])
                and wanted.get("pipeline_tag", described.get("pipeline_tag")) == described.get("pipeline_tag")
                and ("gated" not in wanted or is_set(request, "gated") == bool(described["gated"]))
            ):
                found.append(described)
    key = "createdAt" if wanted.get("sort") == "createdAt" else "lastModified"
    found.sort(key=lambda described: described[key], reverse=True)
    size = min(number(request, "limit", default=REPOS_PER_PAGE) or REPOS_PER_PAGE, REPOS_PER_PAGE)
    return page(request, found, size=size, describe=list)
