"""Refusals: a status and the two headers from which the clients choose their exception."""

import re

from starlette.responses import JSONResponse

from local_hub.accounts import Account


class HubError(Exception):
    """A request that is answered with `status` and `message`.

    `code` is one of RepoNotFound, RevisionNotFound, EntryNotFound, GatedRepo; `content` is added to the JSON body.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        headers: dict[str, str] | None = None,
        content: dict[str, object] | None = None,
    ) -> None:
        message = message.encode("utf-8", "backslashreplace").decode()  # what JSON can spell and UTF-8 cannot
        super().__init__(message)
        self.status = status
        # A header holds one line of Latin-1; messages may quote any path.
        named = {"X-Error-Code": code, "X-Error-Message": re.sub(r"[^\x20-\x7e]", "?", message)}
        self.headers = {name: value for name, value in named.items() if value} | (headers or {})
        self.content = {"error": message} | (content or {})

    def response(self) -> JSONResponse:
        return JSONResponse(self.content, status_code=self.status, headers=self.headers)


def invalid_credentials() -> HubError:
    return HubError(401, "Invalid credentials in Authorization header")


def repo_not_found(account: Account | None) -> HubError:
    """Unknown and hidden look the same. The anonymous get 401: they may only have to log in."""
    if account is None:
        return HubError(401, "Invalid username or password.", code="RepoNotFound")
    return HubError(404, "Repository not found", code="RepoNotFound")


def revision_not_found(revision: str) -> HubError:
    return HubError(404, f"Invalid rev id: {revision}", code="RevisionNotFound")


def entry_not_found(message: str = "Entry not found", *, commit_id: str | None = None) -> HubError:
    """With `commit_id` the client remembers, for that commit, that there is no such file."""
    return HubError(404, message, code="EntryNotFound", headers={"X-Repo-Commit": commit_id} if commit_id else None)
