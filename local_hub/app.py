"""The application: its routes, middleware and exception handlers."""

import errno
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pygit2
from starlette.applications import Starlette
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from local_hub.admission import run_in_thread
from local_hub.auth import (
    UPLOAD_PATH,
    Accounts,
    AdmissionMiddleware,
    AuthenticationMiddleware,
    authorize_nobody,
    authorize_writer,
    require_writer,
)
from local_hub.bodies import read_json
from local_hub.errors import HubError, repo_not_found
from local_hub.origins import OriginMiddleware
from local_hub.routes import commits, files, pages, refs, repos
from local_hub.store import REPO_TYPES, Store

logger = logging.getLogger(__name__)
FULL = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


class RepoTypeConvertor(StringConvertor):
    """Converts models, datasets or spaces in a URL to model, dataset or space."""

    regex = "|".join(f"{repo_type}s" for repo_type in REPO_TYPES)

    def convert(self, value: str) -> str:
        return value.removesuffix("s")


register_url_convertor("repo_type", RepoTypeConvertor())

TYPE = "{repo_type:repo_type}"
REPO = "{namespace}/{name}"
REVISION = "{revision}"
REF = "{ref}"
PATH = "{path:path}"


Endpoint = Callable[[Request], Awaitable[Response]]


def without_body(endpoint: Callable[[Request], Response]) -> Endpoint:
    async def call(request: Request) -> Response:
        return await run_in_thread(request, endpoint, request)

    return call


def with_json(
    endpoint: Callable[[Request, dict[str, Any]], Response], *, authorize: Callable[[Request], object]
) -> Endpoint:
    """Make an endpoint that authorizes the request, and only then reads its body, the JSON object for `endpoint`."""

    async def authorize_and_call(request: Request) -> Response:
        await run_in_thread(request, authorize, request)
        body = await read_json(request)
        return await run_in_thread(request, endpoint, request, body)

    return authorize_and_call


def get(path: str, endpoint: Callable[[Request], Response]) -> Route:
    return Route(path, without_body(endpoint))


def delete(path: str, endpoint: Callable[[Request], Response]) -> Route:
    return Route(path, without_body(endpoint), methods=["DELETE"])


def write(method: str, path: str, endpoint: Callable[[Request, dict[str, Any]], Response]) -> Route:
    """An endpoint that changes the repo in its URL."""
    return Route(path, with_json(endpoint, authorize=authorize_writer), methods=[method])


def write_account(method: str, path: str, endpoint: Callable[[Request, dict[str, Any]], Response]) -> Route:
    """An endpoint that changes the repo in its body."""
    return Route(path, with_json(endpoint, authorize=require_writer), methods=[method])


def api_routes() -> list[Route]:
    repo = f"/api/{TYPE}/{REPO}"
    return [
        get("/api/whoami-v2", repos.whoami),
        # As on the Hub, no account is needed: `ModelCard.validate` sends no token.
        Route("/api/validate-yaml", with_json(repos.validate_card, authorize=authorize_nobody), methods=["POST"]),
        write_account("POST", "/api/repos/create", repos.create),
        write_account("DELETE", "/api/repos/delete", repos.delete),
        write_account("POST", "/api/repos/move", repos.move),
        get(f"/api/{TYPE}", repos.search),
        get(repo, repos.info),
        get(f"{repo}/revision/{REVISION}", repos.info),
        write("PUT", f"{repo}/settings", repos.change_settings),
        get(f"{repo}/auth-check", repos.check_access),
        get(f"{repo}/auth-check/write", repos.check_write_access),
        get(f"{repo}/tree/{REVISION}", files.tree),
        get(f"{repo}/tree/{REVISION}/{PATH}", files.tree),
        Route(f"{repo}/paths-info/{REVISION}", files.paths_info, methods=["POST"]),
        get(f"{repo}/refs", refs.list_refs),
        write("POST", f"{repo}/branch/{REF}", refs.create_branch),
        delete(f"{repo}/branch/{REF}", refs.delete_branch),
        write("POST", f"{repo}/tag/{REF}", refs.create_tag),
        delete(f"{repo}/tag/{REF}", refs.delete_tag),
        get(f"{repo}/commits/{REVISION}", commits.history),
        write("POST", f"{repo}/preupload/{REVISION}", commits.preupload),
        Route(f"{repo}/commit/{REVISION}", commits.commit, methods=["POST"]),
    ]


def repo_routes(prefix: str) -> list[Route]:
    """The routes under a repo's own URL, next to which git and Git LFS expect theirs."""
    repo = f"{prefix}/{REPO}"
    return [
        get(f"{repo}/resolve/{REVISION}/{PATH}", files.resolve),
        write("POST", f"{repo}.git/info/lfs/objects/batch", commits.lfs_batch),
        write("POST", f"{repo}.git/info/lfs/objects/verify", commits.lfs_verify),
        get(repo, pages.repository_page),
    ]


async def unknown(request: Request) -> Response:
    """There is no such endpoint, or the URL names a repo without a namespace; this hub has no such repos."""
    parts = request.scope["path"].split("/")
    is_repo = len(parts) == 4 and parts[1] == "api" and parts[2] in [f"{repo_type}s" for repo_type in REPO_TYPES]
    if is_repo or "resolve" in parts:
        raise repo_not_found(is_anonymous=request.state.account is None)
    raise HubError(404, f"No such endpoint: {request.scope['path']}")


class RawPathMiddleware:
    """Routes by the path as the client sent it, in which %2F is not a separator."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": scope["raw_path"].decode("ascii")}
        await self._app(scope, receive, send)


class BrokenResponseMiddleware:
    """Cuts a response that fails midway, such as a file that the disk cannot read any further.

    It cannot become an answer with another status any more. The client notices that the response is too short.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_started = False

        async def send_and_note(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except RuntimeError as error:  # Starlette's, for an error that a handler would have answered
            if not has_started or error.__cause__ is None:
                raise
            reason = " ".join(str(error.__cause__).split()) or type(error.__cause__).__name__
            logger.error("%s %s: %s: the response is cut", scope["method"], scope["path"], reason)


async def handle_hub_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HubError)
    return error.response()


async def handle_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return HubError(error.status_code, error.detail, headers=dict(error.headers or {})).response()


async def handle_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # the client is gone and never reads it


async def handle_disk_error(request: Request, error: Exception) -> Response:
    """A file could not be read or written: 507 for a full disk, as for an upload that does not fit."""
    is_full = any(reason in str(error) for reason in FULL)  # libgit2 gives no number
    reason = " ".join(str(error).split()) or type(error).__name__
    logger.error("%s %s: %s", request.method, request.url.path, reason)
    message = "no space left" if is_full else "a file could not be read or written"
    return HubError(507 if is_full else 500, f"{message}: see the output of the local hub").response()


async def handle_internal_error(request: Request, error: Exception) -> Response:
    """Starlette raises the error again after this response, so its traceback is printed to standard error."""
    return HubError(500, "Internal error: see the output of the local hub").response()


def create_app(store: Store, *, accounts: Accounts) -> Starlette:
    app = Starlette(
        routes=[
            *api_routes(),
            Route(f"{UPLOAD_PATH}{TYPE}/{REPO}/{{oid}}/{{size}}", commits.lfs_upload, methods=["PUT"]),
            *repo_routes(f"/{TYPE}"),
            *repo_routes(""),
            get("/", pages.home),
            Route(f"/{PATH}", unknown, methods=["GET", "POST", "PUT", "DELETE", "PATCH"]),
        ],
        middleware=[
            Middleware(BrokenResponseMiddleware),
            Middleware(RawPathMiddleware),
            Middleware(AdmissionMiddleware, accounts=accounts),
            Middleware(OriginMiddleware),
            Middleware(AuthenticationMiddleware),
        ],
        exception_handlers={
            HubError: handle_hub_error,
            HTTPException: handle_http_exception,
            ClientDisconnect: handle_disconnect,
            OSError: handle_disk_error,
            pygit2.GitError: handle_disk_error,
            Exception: handle_internal_error,
        },
    )
    app.router.redirect_slashes = False
    app.state.store = store
    app.state.accounts = accounts
    return app
