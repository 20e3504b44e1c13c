"""Errors as HTTP responses, with the two headers from which the clients choose their exception."""

import re

from starlette.responses import JSONResponse

MESSAGE_LENGTH_MAX = 1000  # characters


class HubError(Exception):
    """Ends a request with `status` and `message`.

    `code` is one of RepoNotFound, RevisionNotFound, EntryNotFound, GatedRepo. `content` is added to the JSON body.
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
        # JSON can hold lone surrogates, UTF-8 cannot. The clients limit the length of a header.
        message = message[:MESSAGE_LENGTH_MAX].encode("utf-8", "backslashreplace").decode()
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": re.sub(r"[^\x20-\x7e]", "?", message)}  # a header is one line of Latin-1
        if code:
            self.headers["X-Error-Code"] = code
        self.headers |= headers or {}
        self.content = {"error": message} | (content or {})

    def response(self) -> JSONResponse:
        return JSONResponse(self.content, status_code=self.status, headers=self.headers)


class DamagedError(HubError):
    """Ends a request that needs a file which is missing or damaged in the root of the hub."""

    def __init__(self, what: str) -> None:
        super().__init__(500, f"{what} is missing or damaged in the root of this hub")


def authentication_required() -> HubError:
    return HubError(401, "Invalid username or password.")


def repo_not_found(*, is_anonymous: bool) -> HubError:
    """The same error for a repo that does not exist and for one that the account may not see.

    An anonymous client gets 401, as on the Hub, because a login may help.
    """
    if is_anonymous:
        return HubError(401, "Invalid username or password.", code="RepoNotFound")
    return HubError(404, "Repository not found", code="RepoNotFound")


def revision_not_found(revision: str) -> HubError:
    return HubError(404, f"Invalid rev id: {revision}", code="RevisionNotFound")


def entry_not_found(message: str = "Entry not found", *, commit_id: str | None = None) -> HubError:
    """With `commit_id`, the client caches that this commit has no such file."""
    return HubError(404, message, code="EntryNotFound", headers={"X-Repo-Commit": commit_id} if commit_id else None)
