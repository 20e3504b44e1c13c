"""Endpoints for the account and its repos: whoami, create, delete, move, settings, info and search."""

from typing import Any

import pygit2
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from local_hub.auth import Account, is_visible, open_by_id, open_repository, path_param, require_writer
from local_hub.cards import list_tags, parse_card
from local_hub.errors import HubError, authentication_required
from local_hub.repository import GIT_ERRORS, MAIN, Entry, Repository, format_time, url_path
from local_hub.routes.query import flag, number, paginate
from local_hub.store import REPO_TYPES, Store, is_repo_id

REPOS_PER_PAGE = 100


def whoami(request: Request) -> Response:
    account: Account | None = request.state.account
    if account is None:
        raise authentication_required()
    return JSONResponse(account.describe())


def create(request: Request, body: dict[str, Any]) -> Response:
    account = require_writer(request)
    repo_type = parse_repo_type(body)
    repo_id = parse_own_repo_id(body_repo_id(body, account), account)
    private = parse_private(body)
    url = f"{request.base_url}{url_path(repo_id, repo_type=repo_type)}"
    store: Store = request.app.state.store
    try:
        store.create(repo_id, repo_type=repo_type, private=private)
    except FileExistsError as error:
        raise HubError(409, f"You already created this {repo_type} repo: {repo_id}", content={"url": url}) from error
    return JSONResponse({"url": url, "name": repo_id, "private": private})


def delete(request: Request, body: dict[str, Any]) -> Response:
    account = require_writer(request)
    repo_id = body_repo_id(body, account)
    store: Store = request.app.state.store
    store.delete(open_by_id(request, repo_id, repo_type=parse_repo_type(body), write=True))
    return JSONResponse({})


def move(request: Request, body: dict[str, Any]) -> Response:
    repo_type = parse_repo_type(body)
    repository = open_by_id(request, str(body.get("fromRepo")), repo_type=repo_type, write=True)
    repo_id = parse_own_repo_id(body.get("toRepo"), require_writer(request))
    store: Store = request.app.state.store
    try:
        store.move(repository, repo_id=repo_id)
    except FileExistsError as error:
        raise HubError(409, f"The {repo_type} repo {repo_id} already exists") from error
    return JSONResponse({"url": f"{request.base_url}{url_path(repo_id, repo_type=repo_type)}"})


def change_settings(request: Request, body: dict[str, Any]) -> Response:
    repository = open_repository(request, write=True)
    changes: dict[str, Any] = {}
    if "visibility" in body or "private" in body:
        changes["private"] = parse_private(body)
    if "gated" in body:
        if body["gated"] not in ("auto", "manual", False):
            raise HubError(400, f"gated must be auto, manual or false, got {body['gated']!r}")
        changes["gated"] = body["gated"]
    repository.change_settings(**changes)
    settings = repository.settings
    return JSONResponse({"private": settings.private, "gated": settings.gated})


def parse_repo_type(body: dict[str, Any]) -> str:
    repo_type = body.get("type") or "model"
    if repo_type not in REPO_TYPES:
        raise HubError(400, f"type must be model, dataset or space, got {repo_type!r}")
    return str(repo_type)


def body_repo_id(body: dict[str, Any], account: Account) -> str:
    return f"{body.get('organization') or account.name}/{body.get('name') or ''}"


def parse_own_repo_id(repo_id: object, account: Account) -> str:
    """Check that `account` may create a repo `repo_id`."""
    if not is_repo_id(repo_id):
        message = "a repo id is namespace/name, each of at most 96 letters, digits, '-', '_' and '.'"
        raise HubError(400, f"{message}; got {repo_id!r}")
    namespace = repo_id.split("/")[0]
    if namespace != account.name:
        raise HubError(403, f"You don't have the rights to create a repo under the namespace {namespace}")
    return repo_id


def parse_private(body: dict[str, Any]) -> bool:
    visibility = body.get("visibility")
    if visibility not in (None, "private", "public"):
        raise HubError(400, f"visibility must be private or public, got {visibility!r}")
    return visibility == "private" or body.get("private") is True


def validate_card(request: Request, body: dict[str, Any]) -> Response:
    try:
        card = parse_card(str(body.get("content") or ""))
    except ValueError as error:
        errors = [{"message": str(error)}]
        raise HubError(400, "Invalid metadata in README.md", content={"errors": errors, "warnings": []}) from error
    warnings = [] if card else [{"message": "empty or missing yaml metadata in repo card"}]
    return JSONResponse({"errors": [], "warnings": warnings})


def check_access(request: Request) -> Response:
    open_repository(request, files=True)
    return JSONResponse({})


def check_write_access(request: Request) -> Response:
    open_repository(request, files=True, write=True)
    return JSONResponse({})


def info(request: Request) -> Response:
    repository = open_repository(request)
    revision = path_param(request, "revision") if "revision" in request.path_params else MAIN
    commit = repository.commit_at(revision)
    files = [(path, item) for path, item in repository.walk(commit) if item.type_str == "blob"]
    if flag(request.query_params, "blobs"):
        siblings = [describe_sibling(repository.make_entry(path, item)) for path, item in files]
    else:
        siblings = [{"rfilename": path} for path, _ in files]
    return JSONResponse(describe_repository(repository, commit) | {"siblings": siblings})


def describe_repository(repository: Repository, commit: pygit2.Commit) -> dict[str, Any]:
    """What the Hub's API returns for a repo at `commit`, without its files."""
    settings = repository.settings
    card = repository.card(commit)
    described = {
        "_id": repository.repo_id,
        "id": repository.repo_id,
        "modelId": repository.repo_id,
        "author": repository.repo_id.split("/")[0],
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
    for key in ("library_name", "pipeline_tag"):
        if isinstance(card.get(key), str):
            described[key] = card[key]
    return described


def describe_sibling(entry: Entry) -> dict[str, Any]:
    described: dict[str, Any] = {"rfilename": entry.path, "size": entry.size, "blobId": entry.oid}
    if entry.pointer:
        pointer_size = len(entry.pointer.format())
        described["lfs"] = {"sha256": entry.pointer.oid, "size": entry.size, "pointerSize": pointer_size}
    return described


def search(request: Request) -> Response:
    """List the repos that the account may see, newest first."""
    store: Store = request.app.state.store
    found = []
    for repository in store.list_repositories(request.path_params["repo_type"]):
        try:
            if not is_visible(repository, request.state.account):
                continue
            described = describe_repository(repository, repository.commit_at(MAIN))
        except (HubError, *GIT_ERRORS):  # deleted meanwhile, or damaged
            continue
        if is_match(described, request.query_params):
            found.append(described)
    sort_key = "createdAt" if request.query_params.get("sort") == "createdAt" else "lastModified"
    found.sort(key=lambda described: described[sort_key], reverse=True)
    size = min(number(request.query_params, "limit", default=REPOS_PER_PAGE) or REPOS_PER_PAGE, REPOS_PER_PAGE)
    return paginate(request, found, size=size, describe=list)


def is_match(described: dict[str, Any], query: QueryParams) -> bool:
    """Whether a repo passes every filter of a search."""
    if "author" in query and query["author"] != described["author"]:
        return False
    if query.get("search", "").lower() not in described["id"].lower():
        return False
    if not set(query.getlist("filter")) <= set(described["tags"]):
        return False
    if "pipeline_tag" in query and query["pipeline_tag"] != described.get("pipeline_tag"):
        return False
    return "gated" not in query or flag(query, "gated") == bool(described["gated"])
