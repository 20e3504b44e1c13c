"""One link to the bytes behind it, or to the reason why there are none."""

import email.utils
import ipaddress
import random
import socket
import ssl
import threading
import time
import zlib
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urljoin

import certifi
import urllib3
from urllib3 import exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection

import product_vqa

_PIECE_BYTES = 256 * 1024


@dataclass(frozen=True)
class FetchLimits:
    connect_timeout_s: float = 10
    read_timeout_s: float = 20  # between two pieces of an answer
    whole_timeout_s: float = 90  # of one attempt, redirects and all
    num_attempts: int = 4
    backoff_s: float = 0.5  # doubled after every attempt, and multiplied by 0.5 to 1.5 so that threads spread out
    max_wait_s: float = 300  # what a server may ask for with Retry-After; for longer, its links are given up
    max_redirects: int = 5
    max_bytes: int = 32 * 1024**2


class Fetched(NamedTuple):
    data: bytes
    http_status: int | None = None
    tries: int = 1


class FetchError(Exception):
    """Why a link gave nothing: `token` or `token: detail`, as `failed.csv` and `left_out.csv` give it."""

    def __init__(self, reason: str, *, http_status: int | None = None, could_succeed: bool = False) -> None:
        super().__init__(reason)
        self.http_status = http_status
        self.could_succeed = could_succeed  # in another run
        self.tries = 0


class _TransientError(FetchError):
    """Another attempt may succeed in this run, after `wait_s` if the server said so."""

    def __init__(self, reason: str, *, http_status: int | None = None, wait_s: float | None = None) -> None:
        super().__init__(reason, http_status=http_status, could_succeed=True)
        self.wait_s = wait_s


class _PrivateAddressError(Exception):
    """The host is a machine of the local network, or this one."""


class _PublicOnly(HTTPConnection):
    """Connects to public addresses only: after a redirect too, and whatever a name server says the second time."""

    def _new_conn(self) -> socket.socket:
        try:
            for *_, address in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):
                self._check(str(address[0]))
        except OSError as error:
            raise exceptions.NewConnectionError(self, f"no address ({error.strerror})") from error
        connected = super()._new_conn()
        try:
            self._check(connected.getpeername()[0])
        except _PrivateAddressError:
            connected.close()
            raise
        return connected

    def _check(self, address: str) -> None:
        if not _is_public(address):
            raise _PrivateAddressError(f"{self.host} is {address}")


class _PublicOnlyHTTPS(_PublicOnly, HTTPSConnection):
    """The same beneath TLS."""


class _PublicOnlyPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _PublicOnly


class _PublicOnlyHTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _PublicOnlyHTTPS


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip.sixtofour or ip
    return ip.is_global and not ip.is_multicast


class Fetcher:
    """Fetches over HTTP and HTTPS; safe to use from `connections` threads at once.

    Sends no cookie, no password and nothing from the environment. A host that asks for a pause gets it from all
    threads.
    """

    def __init__(self, *, connections: int, allow_private_hosts: bool, limits: FetchLimits = FetchLimits()) -> None:
        self.limits = limits
        self._stopped = threading.Event()
        self._down: dict[str, str] = {}  # origin -> why it takes no connection
        self._resumes_at: dict[str, float] = {}  # host -> when it wants to be asked again, by time.monotonic()
        self._pools = urllib3.PoolManager(
            num_pools=connections,  # hosts whose connections stay open
            maxsize=connections,
            timeout=urllib3.Timeout(connect=limits.connect_timeout_s, read=limits.read_timeout_s),
            retries=False,
            ssl_context=ssl.create_default_context(cafile=certifi.where()),
            headers={
                "User-Agent": f"product-vqa/{product_vqa.__version__}",
                "Accept": "image/*",
                "Accept-Encoding": "identity",  # pictures do not shrink
            },
        )
        if not allow_private_hosts:
            self._pools.pool_classes_by_scheme = {"http": _PublicOnlyPool, "https": _PublicOnlyHTTPSPool}

    def __enter__(self) -> "Fetcher":
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()  # no thread waits for its next attempt any longer
        self._pools.clear()

    def why_unreachable(self, url: str) -> str | None:
        """Why the host of a URL takes no connection, "" if it does. Nothing is asked of it.

        None for a URL that says nothing about the network: a bad one, or one of a private address.
        """
        connection = None
        try:
            _host(url)
            connection = self._pools.connection_from_url(url)._new_conn()
            connection.connect()
        except (FetchError, _PrivateAddressError, ValueError):
            return None
        except (exceptions.HTTPError, OSError) as error:
            return _reason(error)
        finally:
            if connection is not None:
                connection.close()
        return ""

    def give_up(self, reasons: dict[str, str]) -> None:
        """Fetch nothing more from these hosts (as `origin` names them), but fail with the reason."""
        self._down |= reasons

    def fetch(self, link: str) -> Fetched:
        """Raises FetchError, at once where another attempt would end the same (404, a bad link, too many bytes), else
        after `num_attempts` of them."""
        host = _host(link)
        if reason := self._down.get(origin(link)):
            raise FetchError(reason, could_succeed=True)
        for attempt in range(1, self.limits.num_attempts + 1):
            try:
                pause_s = self._resumes_at.get(host, 0) - time.monotonic()
                if pause_s > 0:
                    self._wait(pause_s, FetchError(f"host_pauses: for {pause_s:.0f} s", could_succeed=True))
                status, data = self._attempt(link)
                return Fetched(data, status, attempt)
            except _TransientError as error:
                error.tries = attempt
                if attempt == self.limits.num_attempts:
                    raise
                wait_s = error.wait_s
                if wait_s is None:
                    wait_s = self.limits.backoff_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
                self._wait(wait_s, error)
            except FetchError as error:
                error.tries = attempt
                raise
        raise AssertionError("num_attempts must be positive")

    def _wait(self, wait_s: float, error: FetchError) -> None:
        """Raises `error` where the wait is too long to be waited for, or the run ends."""
        if wait_s > self.limits.max_wait_s or self._stopped.wait(wait_s):
            raise error

    def _attempt(self, url: str) -> tuple[int, bytes]:
        deadline = time.monotonic() + self.limits.whole_timeout_s
        try:
            for _ in range(1 + self.limits.max_redirects):
                response = self._pools.request("GET", url, redirect=False, preload_content=False, decode_content=False)
                try:
                    location = response.get_redirect_location()
                    if not location:
                        self._check_status(url, response)
                        return response.status, self._body(response, deadline=deadline)
                finally:
                    # One that was read to its end is back in its pool by now, and stays open.
                    response.close()
                    response.release_conn()
                url = urljoin(url, location)
                _host(url)
        except _PrivateAddressError as error:
            raise FetchError(f"private_address: {error}", could_succeed=True) from error  # --allow_private_hosts
        except ValueError as error:  # urllib3's LocationValueError, and what urljoin and IDNA raise
            raise FetchError(f"bad_link: {error}") from error
        except exceptions.HTTPError as error:
            raise _TransientError(_reason(error)) from error
        raise FetchError(f"bad_answer: more than {self.limits.max_redirects} redirects")

    def _check_status(self, url: str, response: urllib3.BaseHTTPResponse) -> None:
        status = response.status
        if status in (408, 425, 429) or status >= 500:
            wait_s = _retry_after_s(response.headers.get("Retry-After"))
            if wait_s is not None:
                self._resumes_at[_host(url)] = time.monotonic() + wait_s
            raise _TransientError(f"http_{status}", http_status=status, wait_s=wait_s)
        if not 200 <= status < 300:
            raise FetchError(f"http_{status}", http_status=status, could_succeed=status in (401, 403))

    def _body(self, response: urllib3.BaseHTTPResponse, *, deadline: float) -> bytes:
        max_bytes = self.limits.max_bytes
        status = response.status
        declared = response.headers.get("Content-Length", "0")
        if declared.isdecimal() and int(declared) > max_bytes:
            raise FetchError(f"too_many_bytes: {declared}", http_status=status)
        is_packed = response.headers.get("Content-Encoding", "identity").lower() in ("gzip", "deflate")
        unpacking = zlib.decompressobj(wbits=47) if is_packed else None  # by some servers, though they were not asked
        body = bytearray()
        while piece := response.read1(_PIECE_BYTES):
            try:
                # never unpacked further than what is too much already
                body += unpacking.decompress(piece, max_bytes + 1 - len(body)) if unpacking else piece
            except zlib.error as error:
                raise FetchError(f"bad_answer: {error}", http_status=status) from error
            if len(body) > max_bytes:
                raise FetchError(f"too_many_bytes: more than {max_bytes}", http_status=status)
            if time.monotonic() > deadline:
                raise _TransientError(
                    f"timeout: not complete after {self.limits.whole_timeout_s:g} s", http_status=status
                )
        return bytes(body)


def _host(url: str) -> str:
    """Raises FetchError where there is none, or it is not one to be asked over HTTP."""
    try:
        parts = urllib3.util.parse_url(url)
    except exceptions.LocationParseError as error:
        raise FetchError(f"bad_link: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.host:
        raise FetchError(f"bad_link: {url[:100]!r} is no http or https address")
    if parts.auth:
        raise FetchError("bad_link: it holds a user name or a password")
    return parts.host


def _reason(error: exceptions.HTTPError | OSError) -> str:
    """`connection: ...` or `timeout: ...`"""
    is_refused = isinstance(error, exceptions.NewConnectionError)  # which urllib3 counts among its time-outs
    kind = "timeout" if isinstance(error, exceptions.TimeoutError) and not is_refused else "connection"
    detail = error.args[0] if error.args else ""  # what follows it repeats it
    return f"{kind}: {type(error).__name__}: {detail}"


def is_unreached(reason: str) -> bool:
    """Whether not even a connection to the host was made."""
    return reason.startswith(
        ("connection: NewConnectionError", "connection: NameResolutionError", "timeout: ConnectTimeoutError")
    )


def origin(url: str) -> str:
    """`https://host:port` of a URL, as it is written."""
    return "/".join(url.split("/", 3)[:3]).lower()


def _retry_after_s(value: str | None) -> float | None:
    """Seconds from `Retry-After: 120` or `Retry-After: Wed, 21 Oct 2026 07:28:00 GMT`; None where it says neither."""
    if value is None:
        return None
    if value.isdecimal():
        return float(value)  # infinite for very many digits: a host that asks for too long a pause
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError, TypeError):  # no date, one beyond all calendars, one without its time
        return None
