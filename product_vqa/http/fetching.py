"""Fetches one URL: its bytes, or the reason why there are none."""

import email.utils
import random
import re
import time
import zlib
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urljoin

import urllib3
from urllib3 import exceptions

import product_vqa
from product_vqa.http.connections import Attempt, Attempts, PrivateAddressError, UntrustedCertificateError, make_pools
from product_vqa.http.rate_limit import RateLimit
from product_vqa.quoting import one_line

_CHUNK_BYTES = 256 * 1024
MAX_URL_LENGTH = 8192  # more than servers accept
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class FetchLimits:
    connect_timeout_s: float = 10
    read_timeout_s: float = 20  # between two chunks of a response
    total_timeout_s: float = 90  # of one attempt: look-up, TLS, headers, body, and all redirects
    num_attempts: int = 4
    backoff_s: float = 0.5  # doubled after every attempt, and multiplied by 0.5 to 1.5 to spread out the threads
    max_wait_s: float = 300  # of all Retry-After of a host without a response between them, or else its URLs fail
    max_redirects: int = 5
    max_bytes: int = 32 * 1024**2


DEFAULT_LIMITS = FetchLimits()


class Fetched(NamedTuple):
    data: bytes
    http_status: int | None = None
    tries: int = 1


class FetchError(Exception):
    """Why a URL could not be fetched: `token` or `token: detail`, as in `failed.csv` and `left_out.csv`.

    The detail may quote what a server sent: it is cut to one printable line.
    """

    http_status: int | None = None  # of the last response
    tries = 0

    def __init__(self, reason: str, *, is_retryable: bool = False) -> None:
        super().__init__(one_line(reason))
        self.is_retryable = is_retryable  # in another run


class _TransientError(FetchError):
    """Another attempt may succeed in this run. `wait_s`: the pause that the server asked for, if it did."""

    def __init__(self, reason: str, *, wait_s: float | None = None) -> None:
        super().__init__(reason, is_retryable=True)
        self.wait_s = wait_s


class _Pause(NamedTuple):
    until: float  # by time.monotonic()
    total_s: float  # of this pause and those before it, since the host's last response


class Fetcher:
    """Fetches over HTTP and HTTPS. `connections` threads may use it at once.

    It sends no cookies, no passwords, and nothing from the environment. When a host asks for a pause, all threads
    wait for it. Nothing that a server sends raises anything but a FetchError of its own URL.
    """

    def __init__(
        self,
        *,
        connections: int,
        allow_private_hosts: bool,
        limits: FetchLimits = DEFAULT_LIMITS,
        requests_per_second: float | None = None,
    ) -> None:
        """`requests_per_second` is for each host; None: no limit."""
        self.limits = limits
        self._rate_limit = None if requests_per_second is None else RateLimit(requests_per_second)
        self._attempts = Attempts(allow_private_hosts=allow_private_hosts)
        self._unreachable: dict[str, str] = {}  # origin -> why it accepts no connection
        self._pauses: dict[str, _Pause] = {}  # of the hosts that asked for one
        self._pools = make_pools(
            connections=connections,
            timeout=urllib3.Timeout(connect=limits.connect_timeout_s, read=limits.read_timeout_s),
            headers={
                "User-Agent": f"product-vqa/{product_vqa.__version__}",
                "Accept": "image/*",
                "Accept-Encoding": "identity",  # images are compressed already
            },
        )

    def __enter__(self) -> "Fetcher":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._pools.clear()

    def stop(self) -> None:
        """End the requests of all threads, and wake those that wait for their next attempt: their URLs fail."""
        self._attempts.stop()

    def why_unreachable(self, url: str) -> str | None:
        """Why the host of a URL accepts no connection, or "" if it accepts one. No request is sent.

        None for a URL that says nothing about the network: an invalid one, or one with a private address.
        """
        connection = None
        try:
            _host(url)
            with Attempt(self._attempts, 3 * self.limits.connect_timeout_s):
                connection = self._pools.connection_from_url(url)._new_conn()
                connection.connect()
        except (FetchError, PrivateAddressError, exceptions.LocationValueError):
            return None
        except (exceptions.HTTPError, OSError) as error:  # before ValueError, as some are both
            return _reason(error)
        except ValueError:
            return None
        finally:
            if connection is not None:
                connection.close()
        return ""

    def give_up(self, reasons: dict[str, str]) -> None:
        """Fail from now on with these reasons, by the origin of the URL, without asking the host."""
        self._unreachable |= reasons

    def fetch(self, url: str) -> Fetched:
        """Fetch a URL.

        Raises FetchError: at once where another attempt would fail too (404, an invalid URL, too many bytes), or else
        after `num_attempts` attempts.
        """
        host = _host(url)
        if reason := self._unreachable.get(origin(url)):
            raise FetchError(reason, is_retryable=True)
        attempt = 0
        while True:
            attempt += 1
            try:
                self._wait_for_turn(host)
                self._wait_for_host(host)
                status, data = self._attempt(url)
                return Fetched(data, status, attempt)
            except _TransientError as error:
                error.tries = attempt
                wait_s = error.wait_s
                if wait_s is None:
                    wait_s = self.limits.backoff_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
                if attempt >= self.limits.num_attempts or not self._wait(wait_s):
                    raise
            except FetchError as error:
                error.tries = attempt
                raise

    def _wait_for_host(self, host: str) -> None:
        pause = self._pauses.get(host)
        if pause is None:
            return
        if pause.total_s > self.limits.max_wait_s:
            raise FetchError(f"host_pauses: for {pause.total_s:.0f} s", is_retryable=True)
        pause_s = pause.until - time.monotonic()
        if pause_s > 0 and not self._wait(pause_s):
            raise FetchError("host_pauses: until the run ended", is_retryable=True)

    def _wait_for_turn(self, host: str) -> None:
        """Wait until the rate limit allows another request. This is not part of the time of an attempt.

        It comes before the wait for a host that has asked for a pause, which may begin meanwhile.
        """
        if self._rate_limit is not None:
            wait_s = self._rate_limit.reserve(host, now=time.monotonic())
            if self._attempts.stopped.wait(wait_s):
                raise FetchError("rate_limit: until the run ended", is_retryable=True)

    def _pause(self, host: str, wait_s: float) -> float:
        """Let all threads wait for a host. Returns how long, or a time that is too long to be waited for.

        Its pauses add up, or else a host that answers each request by asking for one would hold the run for days.
        """
        now = time.monotonic()
        before = self._pauses.get(host, _Pause(now, 0))
        until = max(before.until, now + wait_s)
        total_s = before.total_s + until - max(before.until, now)
        self._pauses[host] = _Pause(until, total_s)
        return wait_s if total_s <= self.limits.max_wait_s else total_s

    def _wait(self, wait_s: float) -> bool:
        """Wait, and return True. False without waiting if that would take too long, or as soon as the run ends."""
        return wait_s <= self.limits.max_wait_s and not self._attempts.stopped.wait(wait_s)

    def _attempt(self, url: str) -> tuple[int, bytes]:
        time_s = self.limits.total_timeout_s
        with Attempt(self._attempts, time_s) as attempt:
            try:
                fetched = self._follow(url, attempt)
                if attempt.is_over():
                    raise TimeoutError("the answer may be incomplete")
                return fetched
            except FetchError as error:
                error.http_status = attempt.http_status
                raise
            except Exception as error:
                failure = _fetch_error(error)
                if attempt.is_over():
                    failure = _TransientError(f"timeout: not complete after {time_s:g} s")
                failure.http_status = attempt.http_status
                raise failure from error

    def _follow(self, url: str, attempt: Attempt) -> tuple[int, bytes]:
        """The response after all redirects: its status and body."""
        for _ in range(1 + self.limits.max_redirects):
            try:
                response = self._pools.urlopen("GET", url, redirect=False, preload_content=False, decode_content=False)
            except PrivateAddressError as error:  # is_retryable: with allow_private_hosts
                raise FetchError(f"private_address: {error}", is_retryable=True) from error
            try:
                attempt.http_status = status = response.status
                location = response.get_redirect_location()
                if not location:
                    self._check_status(url, response)
                    return status, self._body(response)
            finally:
                # A connection that was read to its end is in its pool again by now, and stays open.
                response.close()
                response.release_conn()
            try:
                url = urljoin(url, location)
            except ValueError as error:
                raise FetchError(f"bad_link: {error}") from error
            host = _host(url)
            if self._rate_limit is not None:
                attempt.pause(self._rate_limit.reserve(host, now=time.monotonic()))
        raise FetchError(f"bad_answer: more than {self.limits.max_redirects} redirects")

    def _check_status(self, url: str, response: urllib3.BaseHTTPResponse) -> None:
        status = response.status
        if status in (408, 425, 429) or status >= 500:
            wait_s = parse_retry_after(response.headers.get("Retry-After"))
            if wait_s is not None:
                wait_s = self._pause(_host(url), wait_s)
            raise _TransientError(f"http_{status}", wait_s=wait_s)
        if not 200 <= status < 300:
            raise FetchError(f"http_{status}", is_retryable=status in (401, 403, 407))
        if pause := self._pauses.get(host := _host(url)):
            self._pauses[host] = pause._replace(total_s=0)

    def _body(self, response: urllib3.BaseHTTPResponse) -> bytes:
        max_bytes = self.limits.max_bytes
        declared = response.headers.get("Content-Length", "0")
        if declared.isdecimal() and float(declared) > max_bytes:  # infinite for very many digits
            raise FetchError(f"too_many_bytes: {declared}")
        is_compressed = response.headers.get("Content-Encoding", "").lower() in ("gzip", "deflate")
        decompressor = zlib.decompressobj(wbits=47) if is_compressed else None  # some servers compress unasked
        body = bytearray()
        num_received = 0  # what unpacks to nothing is not endless either
        while chunk := response.read1(_CHUNK_BYTES):
            num_received += len(chunk)
            try:
                # One byte more than allowed is enough to refuse: a decompression bomb is never unpacked further.
                body += decompressor.decompress(chunk, max_bytes + 1 - len(body)) if decompressor else chunk
            except zlib.error as error:
                raise FetchError(f"bad_answer: {error}") from error
            if max(len(body), num_received) > max_bytes:
                raise FetchError(f"too_many_bytes: more than {max_bytes}")
        return bytes(body)


def _fetch_error(error: Exception) -> FetchError:
    """The failure of a URL. For what a server sends, libraries raise any type of exception, so none is let through."""
    if isinstance(error, exceptions.LocationValueError | UnicodeError):  # UnicodeError: IDNA
        return FetchError(f"bad_link: {error}")
    if isinstance(error, UntrustedCertificateError):
        return FetchError(_reason(error), is_retryable=True)
    if isinstance(error, exceptions.HTTPError | OSError):
        return _TransientError(_reason(error))
    return FetchError(f"bad_answer: {type(error).__name__}: {error}", is_retryable=isinstance(error, MemoryError))


def _host(url: str) -> str:
    """The host of an http or https URL. Raises FetchError for any other URL, and for one with a password."""
    if len(url) > MAX_URL_LENGTH:
        raise FetchError(f"bad_link: {len(url)} characters, more than {MAX_URL_LENGTH}")
    if _CONTROL.search(url):
        raise FetchError("bad_link: contains a line break or a control character")
    try:
        parts = urllib3.util.parse_url(url)
    except exceptions.LocationParseError as error:
        raise FetchError(f"bad_link: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.host:
        raise FetchError(f"bad_link: {url[:100]!r} is not an http or https URL")
    if parts.auth:
        raise FetchError("bad_link: contains a user name or a password")
    return parts.host


def _reason(error: exceptions.HTTPError | OSError) -> str:
    """`connection: ...`, `timeout: ...` or `certificate: ...`"""
    if isinstance(error, UntrustedCertificateError):
        return f"certificate: {error}"
    is_refused = isinstance(error, exceptions.NewConnectionError)  # a TimeoutError too, for urllib3
    kind = "timeout" if isinstance(error, exceptions.TimeoutError) and not is_refused else "connection"
    # The other arguments of urllib3's errors repeat the first one. That of an OSError is a number.
    detail = error.args[0] if isinstance(error, exceptions.HTTPError) and error.args else error
    return f"{kind}: {type(error).__name__}: {detail}"


def is_unreached(reason: str) -> bool:
    """Whether a reason means that no connection to the host could be made."""
    return reason.startswith(
        ("connection: NewConnectionError", "connection: NameResolutionError", "timeout: ConnectTimeoutError")
    )


def origin(url: str) -> str:
    """The `https://host:port` of a URL, as written."""
    return "/".join(url.split("/")[:3]).lower()


def parse_retry_after(value: str | None) -> float | None:
    """Seconds from `Retry-After: 120` or `Retry-After: Wed, 21 Oct 2026 07:28:00 GMT`; None for anything else."""
    if value is None:
        return None
    if value.isdecimal():
        return float(value)  # infinite for very many digits, so longer than any limit
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except Exception:  # not a date, or out of range, or without a time: the parser has several ways to fail
        return None
