"""What a request asks for, and whether whoever sends it may have it."""

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, cast
from urllib.parse import unquote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from local_hub.accounts import Account
from local_hub.errors import HubError, repo_not_found
from local_hub.repository import Repository
from local_hub.store import Store


def segment(request: Request, name: str) -> str:
    """A part of the path, decoded. The path is routed undecoded: a branch `dev/x` is one segment, `dev%2Fx`."""
    try:
        return unquote(request.path_params[name], errors="strict")
    except UnicodeDecodeError as error:
        raise HubError(400, f"{name} is not UTF-8: {request.path_params[name]}") from error


def store_of(request: Request) -> Store:
    return cast(Store, request.app.state.store)


def account_of(request: Request) -> Account | None:
    return cast(Account | None, request.scope["account"])


def endpoint_of(request: Request) -> str:
    """The address by which the client reached us; its links have to start with it."""
    return f"http://{request.headers['host']}"


def url_of(request: Request, *, kind: str, name: str) -> str:
    return f"{endpoint_of(request)}/{'' if kind == 'models' else kind + '/'}{name}"


def writer_of(request: Request) -> Account:
    account = account_of(request)
    if account is None:
        raise HubError(401, "Invalid username or password.")
    if not account.may_write:
        raise HubError(403, "Forbidden: this token may only read")
    return account


def is_visible(repository: Repository, account: Account | None) -> bool:
    return not repository.settings.private or (account is not None and account.may_write)


def open_named(request: Request, *, kind: str, name: str, write: bool = False, files: bool = False) -> Repository:
    """The repo, if the account may see it; with `write` change it, with `files` read what its files hold."""
    account = account_of(request)
    repository = store_of(request).find(kind, name)
    if repository is None or not is_visible(repository, account):
        raise repo_not_found(account)
    if write:
        writer_of(request)
    if files and repository.settings.gated and not (account and account.may_write):
        page = url_of(request, kind=kind, name=name)
        ask = "" if account else " You must be authenticated to access it."
        message = f"Access to {kind[:-1]} {name} is restricted.{ask} Visit {page} to ask for access."
        raise HubError(403 if account else 401, message, code="GatedRepo")
    return repository


def open_repository(request: Request, *, write: bool = False, files: bool = False) -> Repository:
    """The repo that the path names; a model if it does not say what kind."""
    kind = request.path_params.get("kind", "models")
    name = f"{segment(request, 'namespace')}/{segment(request, 'name')}"
    return open_named(request, kind=kind, name=name, write=write, files=files)


def is_set(request: Request, parameter: str) -> bool:
    return request.query_params.get(parameter, "").lower() in ("true", "1")


def number(request: Request, parameter: str, *, default: int) -> int:
    given = request.query_params.get(parameter, "")
    return int(given) if re.fullmatch(r"[0-9]{1,18}", given) else default


def page(
    request: Request, items: list[Any], *, size: int, describe: Callable[[list[Any]], list[Any]], at: str = ""
) -> JSONResponse:
    """One page of `items`, described, with the link to the next. `at` is the commit that the pages are of."""
    start = number(request, "cursor", default=0)
    response = JSONResponse(describe(items[start : start + size]))
    if start + size < len(items):
        query = request.url.include_query_params(cursor=start + size, **({"at": at} if at else {})).query
        response.headers["Link"] = f'<{endpoint_of(request)}{request.scope["path"]}?{query}>; rel="next"'
    return response


def with_json(function: Callable[[Request, dict[str, Any]], Response]) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint whose function gets the request's JSON object, and runs beside the event loop."""

    async def endpoint(request: Request) -> Response:
        try:
            body = json.loads(await request.body() or b"{}")
        except (ValueError, RecursionError) as error:
            raise HubError(400, f"The body is not JSON: {error}") from error
        if not isinstance(body, dict):
            raise HubError(400, "The body has to be a JSON object")
        return await run_in_threadpool(function, request, body)

    return endpoint
