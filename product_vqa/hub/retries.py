"""Requests to the Hub, sent again where a failure may pass."""

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

# Seconds before each further attempt. A push comes after hours of work and waits for minutes; a question before it
# does not, for a wrong address answers no better later.
WAITS_S = (1, 2, 5, 15, 30, 60)
BRIEF_WAITS_S = (1, 2)
MAX_WAIT_S = 300  # that a Hub may ask for by Retry-After


class Backoff:
    """The waits between attempts at one request."""

    def __init__(self, waits_s: tuple[float, ...] = WAITS_S) -> None:
        self._waits_s = list(waits_s)
        self._left_s = sum(waits_s) + MAX_WAIT_S

    def wait(self, error: Exception) -> None:
        """Sleep before the next attempt. Raises `error` where another attempt cannot help, or none is left."""
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
        logger.warning("The Hub: %s. Trying again in %g s.", reason, wait_s)
        time.sleep(wait_s)


def retry(request: Callable[[], T], *, waits_s: tuple[float, ...] = WAITS_S) -> T:
    """Return what `request` returns; call it again, after each of `waits_s`, where a failure is transient.

    Transient are HTTP 429 and 5xx, a lost connection and a truncated response. If the Hub asks for a longer wait, that
    is used, up to MAX_WAIT_S. Raises what `request` raises last.
    """
    backoff = Backoff(waits_s)
    while True:
        try:
            return request()
        except Exception as error:
            backoff.wait(error)


_TRANSIENT_STATUS = (408, 412, 425, 429, 500, 502, 503, 504)  # 412: somebody else's commit came between
_PERMANENT = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, httpx2.ProxyError)


def _transient_cause(error: BaseException | None) -> BaseException | None:
    """What, in the chain of causes, may be gone at another attempt; None if nothing is."""
    while error is not None:
        if isinstance(error, errors.HfHubHTTPError):
            return error if error.response is not None and error.response.status_code in _TRANSIENT_STATUS else None
        if isinstance(error, httpx2.TransportError):
            return None if isinstance(error, _PERMANENT) else error
        if isinstance(error, json.JSONDecodeError | ConnectionResetError | BrokenPipeError | TimeoutError):
            return error  # the first: a proxy's page in place of the Hub's answer
        if type(error) is RuntimeError and re.search(r"CAS|Data processing|reconstruction", str(error)):
            return error  # hf_xet's, about the network
        error = error.__cause__ or error.__context__  # transformers raises others' errors anew, without a cause
    return None


def _limit_waits(response: httpx2.Response) -> None:
    """Leave one header that says how long to wait, Retry-After in seconds, and none that asks for too long.

    The client obeys whatever it finds at some of its requests: a day, or a number that crashes it.
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


def _make_client() -> httpx2.Client:
    client = default_client_factory()
    client.event_hooks = {**client.event_hooks, "response": [*client.event_hooks["response"], _limit_waits]}
    return client


huggingface_hub.set_client_factory(_make_client)
