"""Retry requests to the Hub whose failure is transient."""

import email.utils
import json
import logging
import math
import re
import time
from collections.abc import Callable
from typing import TypeVar

import httpx2  # huggingface_hub's own client
import huggingface_hub
from huggingface_hub import errors
from huggingface_hub.utils._http import default_client_factory, parse_ratelimit_headers

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Seconds before each further attempt. A push follows hours of work and may wait for minutes. A request before that
# work should not: if the address is wrong, waiting does not help.
WAITS_S = (1, 2, 5, 15, 30, 60)
BRIEF_WAITS_S = (1, 2)
MAX_WAIT_S = 300  # longest wait that a Hub may ask for
# The client has no time limits of its own: a Hub that stops answering would hold a command forever. While it makes a
# commit of many files, the Hub may be silent for a minute.
TIMEOUTS_S = {"connect": 10.0, "read": 120.0, "write": 120.0, "pool": 120.0}
_TRANSIENT_STATUS = (408, 412, 425, 429, 500, 502, 503, 504)  # 412: somebody else committed in between
_PERMANENT = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, httpx2.ProxyError)


class Backoff:
    """The waits between attempts at one request."""

    def __init__(self, waits_s: tuple[float, ...] = WAITS_S) -> None:
        self._waits_s = list(waits_s)
        self._left_s = sum(waits_s) + MAX_WAIT_S

    def wait(self, error: Exception) -> None:
        """Sleep before the next attempt. Raises `error` if another attempt cannot help, or none is left."""
        cause = _transient_cause(error)
        if cause is None or not self._waits_s:
            raise error
        wait_s = self._waits_s.pop(0)
        reason = type(cause).__name__
        if isinstance(cause, errors.HfHubHTTPError):
            reason = f"HTTP {cause.response.status_code}"
            _limit_waits(cause.response)
            wait_s = max(wait_s, float(cause.response.headers.get("Retry-After", 0)))
        if wait_s > self._left_s:
            raise error
        self._left_s -= wait_s
        logger.warning("Request to the Hub failed (%s). Retrying in %g s.", reason, wait_s)
        time.sleep(wait_s)


def retry(request: Callable[[], T], *, waits_s: tuple[float, ...] = WAITS_S) -> T:
    """Return what `request` returns; call it again, after each of `waits_s`, where a failure is transient.

    HTTP 429 and 5xx, a lost connection and a truncated response are transient. If the Hub asks for a longer wait, it
    gets it, up to MAX_WAIT_S. Raises what `request` raises last.
    """
    backoff = Backoff(waits_s)
    while True:
        try:
            return request()
        except Exception as error:
            backoff.wait(error)


def _transient_cause(error: BaseException | None) -> BaseException | None:
    """Find the error in the chain of causes that another attempt may avoid; None if there is none."""
    while error is not None:
        if isinstance(error, errors.HfHubHTTPError):
            return error if error.response is not None and error.response.status_code in _TRANSIENT_STATUS else None
        if isinstance(error, httpx2.TransportError):
            return None if isinstance(error, _PERMANENT) else error
        if isinstance(error, json.JSONDecodeError | ConnectionResetError | BrokenPipeError | TimeoutError):
            return error  # a JSONDecodeError: a proxy answered instead of the Hub
        if type(error) is RuntimeError and re.search(r"CAS|Data processing|reconstruction", str(error)):
            return error  # raised by hf_xet for network failures
        error = error.__cause__ or error.__context__  # transformers raises new errors without a cause
    return None


def _limit_waits(response: httpx2.Response) -> None:
    """Replace the headers that say how long to wait by one Retry-After in seconds, and drop waits that are too long.

    For some of its requests, the client obeys any value: it would sleep for a day, or crash on a malformed number.
    """
    asked = response.headers.pop("Retry-After", "").strip()
    limit = parse_ratelimit_headers(response.headers) if response.status_code == 429 else None
    response.headers.pop("RateLimit", None)
    seconds: float | None = None
    if limit is not None and limit.remaining == 0:
        seconds = limit.reset_in_seconds
    elif re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", asked):
        seconds = float(asked)
    elif asked:
        try:
            seconds = email.utils.parsedate_to_datetime(asked).timestamp() - time.time()
        except (ValueError, OverflowError, OSError):
            seconds = None
    if seconds is not None and 0 <= seconds <= MAX_WAIT_S:
        response.headers["Retry-After"] = str(math.ceil(seconds))


def _check_names(response: httpx2.Response) -> None:
    """Raise ValueError for an ETag that is a path: the client gives a file in its cache the name that the ETag is."""
    for header in ("ETag", "X-Linked-ETag"):
        name = response.headers.get(header, "").removeprefix("W/").strip('"')
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise ValueError(f"the server's {header} is {name!r}, not a hash")


def _limit_time(request: httpx2.Request) -> None:
    """Set the time limits that the client did not set: the longest silence, not the whole transfer."""
    asked = {name: limit for name, limit in request.extensions.get("timeout", {}).items() if limit is not None}
    request.extensions["timeout"] = {**TIMEOUTS_S, **asked}


def _make_client() -> httpx2.Client:
    client = default_client_factory()
    client.event_hooks = {
        "request": [*client.event_hooks["request"], _limit_time],
        "response": [*client.event_hooks["response"], _check_names, _limit_waits],
    }
    return client


huggingface_hub.set_client_factory(_make_client)
