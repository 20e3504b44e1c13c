"""Requests that a web page of another site makes a browser send. None of them is answered."""

import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from local_hub.errors import HubError

HOST = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]{1,5})?", re.IGNORECASE)
OWN_SITES = ("same-origin", "none")  # of Sec-Fetch-Site; none is an address that the user typed


class OriginMiddleware:
    """Refuses a host name that is not the hub's (DNS rebinding), and every page that the hub has not served itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = find_foreign_origin(Headers(scope=scope)) if scope["type"] == "http" else None
        if error is None:
            await self._app(scope, receive, send)
        else:
            await error.response()(scope, receive, send)


def find_foreign_origin(headers: Headers) -> HubError | None:
    host = headers.get("host", "")
    if not HOST.fullmatch(host):
        return HubError(400, "Invalid host header: the hub is at 127.0.0.1 and localhost")
    if any(origin.lower() != f"http://{host.lower()}" for origin in headers.getlist("origin")):
        return HubError(403, "Forbidden: a page of another site sent this request (Origin)")
    if any(site.lower() not in OWN_SITES for site in headers.getlist("sec-fetch-site")):
        return HubError(403, "Forbidden: a page of another site sent this request (Sec-Fetch-Site)")
    return None
