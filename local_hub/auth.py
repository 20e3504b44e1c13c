"""Authentication and authorization: whose request it is, and which repos it may open.

There is one user, `local`, who owns every repo. A second account, `reader`, is optional. It shows what other users
see: it finds no private repo, reads no file of a gated repo, and writes nothing.
"""

import hashlib
import hmac
import time
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote

from starlette.datastructures import Headers, QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from local_hub.admission import GuestShare, OwnerShare, Share, is_client_gone
from local_hub.errors import DamagedError, HubError, authentication_required, repo_not_found
from local_hub.repository import OWNER, Repository, url_path
from local_hub.store import Store

READER = "reader"
UPLOAD_PATH = "/large_files/"
UPLOAD_URL_LIFETIME_S = 3600  # an upload has to start within it


@dataclass(frozen=True)
class Account:
    name: str

    @property
    def may_write(self) -> bool:
        return self.name == OWNER

    def describe(self) -> dict[str, Any]:
        """The response of whoami."""
        role = "write" if self.may_write else "read"
        token = {"displayName": self.name, "role": role, "createdAt": "2024-01-01T00:00:00.000Z"}
        return {
            "name": self.name,
            "fullname": self.name,
            "email": f"{self.name}@localhost",
            "type": "user",
            "orgs": [],
            "auth": {"type": "access_token", "accessToken": token},
        }


class Accounts:
    """The accounts, by their tokens, and the signatures of upload URLs."""

    def __init__(self, *, token: str, reader_token: str | None = None) -> None:
        self._tokens = {OWNER: token.encode()}
        if reader_token:
            self._tokens[READER] = reader_token.encode()

    def authenticate(self, authorization: str) -> Account | None:
        """The account of an `Authorization` header, None if the token is not valid."""
        scheme, _, token = authorization.partition(" ")
        given = token.strip().encode()
        for name, expected in self._tokens.items():
            if hmac.compare_digest(given, expected) and scheme.lower() == "bearer":
                return Account(name)
        return None

    def sign(self, path: str) -> str:
        """The query that authorizes one hour of uploads to `path`: the clients upload LFS files without a token."""
        expires = str(int(time.time()) + UPLOAD_URL_LIFETIME_S)
        return f"expires={expires}&signature={self._signature(path, expires)}"

    def is_signed(self, path: str, *, query: QueryParams) -> bool:
        """Whether the query is from `sign`, for this `path`, and still valid."""
        expires, signature = query.get("expires", ""), query.get("signature", "")
        is_genuine = hmac.compare_digest(signature.encode(), self._signature(path, expires).encode())
        return is_genuine and time.time() <= int(expires)

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self._tokens[OWNER], f"{path} {expires}".encode(), hashlib.sha256).hexdigest()


class AdmissionMiddleware:
    """Finds out whose request it is, and lets it wait for its turn. It refuses nothing.

    Sets `account` (None if anonymous), `share`, `has_invalid_token` and `is_signed_upload` in `request.state`.
    """

    def __init__(self, app: ASGIApp, *, accounts: Accounts) -> None:
        self._app = app
        self._accounts = accounts
        self._owner = OwnerShare()
        self._guests = {READER: GuestShare(), None: GuestShare()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        authorization = Headers(scope=scope).get("authorization")
        account = self._accounts.authenticate(authorization) if authorization else None
        path = scope["path"]
        is_signed_upload = path.startswith(UPLOAD_PATH) and self._accounts.is_signed(
            path, query=QueryParams(scope["query_string"])
        )
        is_owner = is_signed_upload or (account is not None and account.may_write)
        share: Share = self._owner if is_owner else self._guests[account.name if account else None]
        if is_owner and (connection := scope.get("extensions", {}).get("local_hub.connection")):
            connection.is_owners = True
        try:
            await share.admit(partial(is_client_gone, scope))
        except ClientDisconnect:
            return
        state = {
            "account": account,
            "share": share,
            "has_invalid_token": bool(authorization) and account is None,
            "is_signed_upload": is_signed_upload,
        }

        async def send_within_share(message: Message) -> None:
            if body := message.get("body"):
                await share.send(len(body))
            await send(message)

        await self._app({**scope, "state": state}, receive, send_within_share)


class AuthenticationMiddleware:
    """Rejects an invalid token with 401, whatever the path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["state"]["has_invalid_token"]:
            await HubError(401, "Invalid credentials in Authorization header").response()(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def require_writer(request: Request) -> Account:
    account: Account | None = request.state.account
    if account is None:
        raise authentication_required()
    if not account.may_write:
        raise HubError(403, "Forbidden: this token has no write access")
    return account


def authorize_nobody(request: Request) -> None:
    """For an endpoint that is open to all."""


def authorize_reader(request: Request) -> None:
    """For an endpoint that reads the repo in its URL."""
    open_repository(request)


def authorize_writer(request: Request) -> None:
    """For an endpoint that changes the repo in its URL."""
    open_repository(request, write=True)


def is_visible(repository: Repository, account: Account | None) -> bool:
    if account is not None and account.may_write:
        return True
    try:
        return not repository.settings.private
    except DamagedError:  # nobody knows whether it is private
        return False


def open_repository(request: Request, *, write: bool = False, files: bool = False) -> Repository:
    """Open the repo that the URL names; see `open_by_id`."""
    repo_type = request.path_params.get("repo_type", "model")
    repo_id = f"{path_param(request, 'namespace')}/{path_param(request, 'name')}"
    return open_by_id(request, repo_id, repo_type=repo_type, write=write, files=files)


def open_by_id(request: Request, repo_id: str, *, repo_type: str, write: bool, files: bool = False) -> Repository:
    """Open a repo if the account may see it and, with `write`, change it and, with `files`, read its files."""
    account: Account | None = request.state.account
    store: Store = request.app.state.store
    repository = store.find(repo_id, repo_type=repo_type)
    if repository is None or not is_visible(repository, account):
        raise repo_not_found(is_anonymous=account is None)
    if write:
        require_writer(request)
    if files and repository.settings.gated and not (account and account.may_write):
        page = f"{request.base_url}{url_path(repo_id, repo_type=repo_type)}"
        login = "" if account else " You must be authenticated to access it."
        message = f"Access to {repo_type} {repo_id} is restricted.{login} Visit {page} to ask for access."
        raise HubError(403 if account else 401, message, code="GatedRepo")
    return repository


def path_param(request: Request, name: str) -> str:
    """A path parameter, decoded. URLs are matched undecoded, so that the branch dev/x (dev%2Fx) is one parameter."""
    try:
        return unquote(request.path_params[name], errors="strict")
    except UnicodeDecodeError as error:
        raise HubError(400, f"{name} is not UTF-8: {request.path_params[name]}") from error
