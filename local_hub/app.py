"""The application: its routes, middleware and exception handlers."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from local_hub.auth import Accounts, AuthenticationMiddleware
from local_hub.errors import HubError, repo_not_found
from local_hub.routes import commits, files, pages, refs, repos
from local_hub.store import REPO_TYPES, Store


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


def with_json(endpoint: Callable[[Request, dict[str, Any]], Response]) -> Callable[[Request], Awaitable[Response]]:
    """Make an endpoint that parses the JSON object in the request's body and passes it to `endpoint`."""

    async def parse_and_call(request: Request) -> Response:
        try:
            body = json.loads(await request.body() or b"{}")
        except (ValueError, RecursionError) as error:
            raise HubError(400, f"The request body is not valid JSON: {error}") from error
        if not isinstance(body, dict):
            raise HubError(400, "The request body must be a JSON object")
        return await run_in_threadpool(endpoint, request, body)

    return parse_and_call


def api_routes() -> list[Route]:
    repo = f"/api/{TYPE}/{REPO}"
    return [
        Route("/api/whoami-v2", repos.whoami),
        Route("/api/validate-yaml", with_json(repos.validate_card), methods=["POST"]),
        Route("/api/repos/create", with_json(repos.create), methods=["POST"]),
        Route("/api/repos/delete", with_json(repos.delete), methods=["DELETE"]),
        Route("/api/repos/move", with_json(repos.move), methods=["POST"]),
        Route(f"/api/{TYPE}", repos.search),
        Route(repo, repos.info),
        Route(f"{repo}/revision/{REVISION}", repos.info),
        Route(f"{repo}/settings", with_json(repos.change_settings), methods=["PUT"]),
        Route(f"{repo}/auth-check", repos.check_access),
        Route(f"{repo}/auth-check/write", repos.check_write_access),
        Route(f"{repo}/tree/{REVISION}", files.tree),
        Route(f"{repo}/tree/{REVISION}/{PATH}", files.tree),
        Route(f"{repo}/paths-info/{REVISION}", files.paths_info, methods=["POST"]),
        Route(f"{repo}/refs", refs.list_refs),
        Route(f"{repo}/branch/{REF}", with_json(refs.create_branch), methods=["POST"]),
        Route(f"{repo}/branch/{REF}", refs.delete_branch, methods=["DELETE"]),
        Route(f"{repo}/tag/{REF}", with_json(refs.create_tag), methods=["POST"]),
        Route(f"{repo}/tag/{REF}", refs.delete_tag, methods=["DELETE"]),
        Route(f"{repo}/commits/{REVISION}", commits.history),
        Route(f"{repo}/preupload/{REVISION}", with_json(commits.preupload), methods=["POST"]),
        Route(f"{repo}/commit/{REVISION}", commits.commit, methods=["POST"]),
    ]


def repo_routes(prefix: str) -> list[Route]:
    """The routes under a repo's own URL, next to which git and Git LFS expect theirs."""
    repo = f"{prefix}/{REPO}"
    return [
        Route(f"{repo}/resolve/{REVISION}/{PATH}", files.resolve),
        Route(f"{repo}.git/info/lfs/objects/batch", with_json(commits.lfs_batch), methods=["POST"]),
        Route(f"{repo}.git/info/lfs/objects/verify", with_json(commits.lfs_verify), methods=["POST"]),
        Route(repo, pages.repository_page),
    ]


def unknown(request: Request) -> Response:
    """There is no such endpoint, or the URL names a repo without a namespace; this hub has no such repos."""
    parts = request.scope["path"].split("/")
    is_repo = len(parts) == 4 and parts[1] == "api" and parts[2] in [f"{repo_type}s" for repo_type in REPO_TYPES]
    if is_repo or "resolve" in parts:
        raise repo_not_found(is_anonymous=request.state.account is None)
    raise HubError(404, f"No such endpoint: {request.scope['path']}")


class RawPathMiddleware:
    """Routes by the path as the client sent it, in which %2F is no separator."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": scope["raw_path"].decode("ascii")}
        await self._app(scope, receive, send)


async def handle_hub_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HubError)
    return error.response()


async def handle_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)


async def handle_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # the client is gone and never reads it


async def handle_internal_error(request: Request, error: Exception) -> Response:
    """Starlette raises the error again after this response, so its traceback is printed to standard error."""
    return HubError(500, "Internal error: see the output of the local hub").response()


def create_app(store: Store, *, accounts: Accounts) -> Starlette:
    app = Starlette(
        routes=[
            *api_routes(),
            Route(f"/large_files/{TYPE}/{REPO}/{{oid}}/{{size}}", commits.lfs_upload, methods=["PUT"]),
            *repo_routes(f"/{TYPE}"),
            *repo_routes(""),
            Route("/", pages.home),
            Route(f"/{PATH}", unknown, methods=["GET", "POST", "PUT", "DELETE", "PATCH"]),
        ],
        middleware=[
            # A web page whose host name resolves to 127.0.0.1 must not read this hub (DNS rebinding).
            Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"]),
            Middleware(AuthenticationMiddleware, accounts=accounts),
            Middleware(RawPathMiddleware),
        ],
        exception_handlers={
            HubError: handle_hub_error,
            HTTPException: handle_http_exception,
            ClientDisconnect: handle_disconnect,
            Exception: handle_internal_error,
        },
    )
    app.router.redirect_slashes = False
    app.state.store = store
    app.state.accounts = accounts
    return app
