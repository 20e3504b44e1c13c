"""The application: its routes, who is let in, and how refusals and failures are answered."""

from starlette.applications import Starlette
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from local_hub import contents, pages, repos, uploads
from local_hub.access import account_of, with_json
from local_hub.accounts import Accounts
from local_hub.errors import HubError, invalid_credentials, repo_not_found
from local_hub.store import KINDS, Store

REPO = "/{namespace}/{name}"
API = "/api/{kind:kind}" + REPO
REVISION = "/{revision}"


class KindConvertor(StringConvertor):
    regex = "|".join(KINDS)


register_url_convertor("kind", KindConvertor())


def api_routes() -> list[Route]:
    return [
        Route("/api/whoami-v2", repos.whoami),
        Route("/api/validate-yaml", with_json(repos.validate_card), methods=["POST"]),
        Route("/api/repos/create", with_json(repos.create), methods=["POST"]),
        Route("/api/repos/delete", with_json(repos.delete), methods=["DELETE"]),
        Route("/api/repos/move", with_json(repos.move), methods=["POST"]),
        Route("/api/{kind:kind}", repos.search),
        Route(API, contents.info),
        Route(API + "/revision" + REVISION, contents.info),
        Route(API + "/settings", with_json(repos.change_settings), methods=["PUT"]),
        Route(API + "/auth-check", repos.check_access),
        Route(API + "/auth-check/write", repos.check_access),
        Route(API + "/refs", contents.refs),
        Route(API + "/tree" + REVISION, contents.tree),
        Route(API + "/tree" + REVISION + "/{path:path}", contents.tree),
        Route(API + "/paths-info" + REVISION, contents.paths_info, methods=["POST"]),
        Route(API + "/commits" + REVISION, contents.commits),
        Route(API + "/branch/{ref}", with_json(contents.create_branch), methods=["POST"]),
        Route(API + "/branch/{ref}", contents.delete_branch, methods=["DELETE"]),
        Route(API + "/tag/{ref}", with_json(contents.create_tag), methods=["POST"]),
        Route(API + "/tag/{ref}", contents.delete_tag, methods=["DELETE"]),
        Route(API + "/preupload" + REVISION, with_json(uploads.preupload), methods=["POST"]),
        Route(API + "/commit" + REVISION, uploads.commit, methods=["POST"]),
    ]


def file_routes(prefix: str) -> list[Route]:
    """Models live at the root of the address, datasets and spaces under their kind."""
    repo = prefix + REPO
    return [
        Route(repo + "/resolve" + REVISION + "/{path:path}", contents.resolve),
        Route(repo + ".git/info/lfs/objects/batch", with_json(uploads.plan_uploads), methods=["POST"]),
        Route(repo + ".git/info/lfs/objects/verify", with_json(uploads.verify_upload), methods=["POST"]),
        Route(repo, pages.repository_page),
    ]


def unknown(request: Request) -> Response:
    """No such endpoint; or one of a repo without a namespace, and there are none of these here."""
    parts = request.scope["path"].split("/")
    if "resolve" in parts or (parts[1] == "api" and parts[2:3] and parts[2] in KINDS and len(parts) == 4):
        raise repo_not_found(account_of(request))
    raise HubError(404, f"No such endpoint: {request.scope['path']}")


class Door:
    """Routes by the path as it was sent, where %2F is no slash, and lets no wrong token pass, wherever it goes."""

    def __init__(self, app: ASGIApp, *, accounts: Accounts) -> None:
        self._app = app
        self._accounts = accounts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            authorization = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
            account = self._accounts.identify(authorization) if authorization else None
            if authorization and account is None:
                await invalid_credentials().response()(scope, receive, send)
                return
            scope = {**scope, "path": scope["raw_path"].decode("ascii"), "account": account}
        await self._app(scope, receive, send)


async def answer_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HubError)
    return error.response()


async def answer_routing(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)


async def answer_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody is there to read it


async def answer_failure(request: Request, error: Exception) -> Response:
    """Starlette raises the error again after this answer: its traceback goes to standard error."""
    return HubError(500, "Internal error: the hub's own output says more").response()


def create_app(store: Store, *, accounts: Accounts) -> Starlette:
    upload = "/large_files/{kind:kind}" + REPO + "/{oid}/{size}"
    app = Starlette(
        routes=[
            *api_routes(),
            Route(upload, uploads.receive_large_file, methods=["PUT"]),
            *file_routes("/{kind:kind}"),
            *file_routes(""),
            Route("/", pages.home),
            Route("/{path:path}", unknown, methods=["GET", "POST", "PUT", "DELETE", "PATCH"]),
        ],
        middleware=[
            # A page on the internet whose name leads to 127.0.0.1 is not to read this hub.
            Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"]),
            Middleware(Door, accounts=accounts),
        ],
        exception_handlers={
            HubError: answer_refusal,
            HTTPException: answer_routing,
            ClientDisconnect: answer_disconnect,
            Exception: answer_failure,
        },
    )
    app.router.redirect_slashes = False
    app.state.store = store
    app.state.accounts = accounts
    return app
