"""Fetches one URL: its bytes, or the reason why there are none."""

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

_CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True)
class FetchLimits:
    connect_timeout_s: float = 10
    read_timeout_s: float = 20  # between two chunks of a response
    total_timeout_s: float = 90  # of one attempt with all its redirects
    num_attempts: int = 4
    backoff_s: float = 0.5  # doubled after every attempt, and multiplied by 0.5 to 1.5 to spread out the threads
    max_wait_s: float = 300  # longest Retry-After that is obeyed; if a host asks for more, its URLs fail
    max_redirects: int = 5
    max_bytes: int = 32 * 1024**2


DEFAULT_LIMITS = FetchLimits()


class Fetched(NamedTuple):
    data: bytes
    http_status: int | None = None
    tries: int = 1


class FetchError(Exception):
    """Why a URL could not be fetched: `token` or `token: detail`, as in `failed.csv` and `left_out.csv`."""

    def __init__(self, reason: str, *, http_status: int | None = None, is_retryable: bool = False) -> None:
        super().__init__(reason)
        self.http_status = http_status
        self.is_retryable = is_retryable  # in another run
        self.tries = 0


class _TransientError(FetchError):
    """Another attempt may succeed in this run. `wait_s`: the pause that the server asked for, if it did."""

    def __init__(self, reason: str, *, http_status: int | None = None, wait_s: float | None = None) -> None:
        super().__init__(reason, http_status=http_status, is_retryable=True)
        self.wait_s = wait_s


class _PrivateAddressError(Exception):
    """The host is this machine, or one of the local network."""


class _PublicOnly(HTTPConnection):
    """Connects to public addresses only, after a redirect too.

    The address is checked before and after connecting, because a name server may answer differently the second time.
    """

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
        if not is_public_address(address):
            raise _PrivateAddressError(f"{self.host} is {address}")


class _PublicOnlyHTTPS(_PublicOnly, HTTPSConnection):
    """The same over TLS."""


class _PublicOnlyPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _PublicOnly


class _PublicOnlyHTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _PublicOnlyHTTPS


def is_public_address(address: str) -> bool:
    """Whether an IP address belongs to the internet: not private, loopback, link-local or multicast."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip.sixtofour or ip
    return ip.is_global and not ip.is_multicast


class Fetcher:
    """Fetches over HTTP and HTTPS. `connections` threads may use it at once.

    It sends no cookies, no passwords, and nothing from the environment. When a host asks for a pause, all threads
    wait for it.
    """

    def __init__(self, *, connections: int, allow_private_hosts: bool, limits: FetchLimits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self._stopped = threading.Event()
        self._unreachable: dict[str, str] = {}  # origin -> why it accepts no connection
        self._paused_until: dict[str, float] = {}  # host -> when it may be asked again, by time.monotonic()
        self._pools = urllib3.PoolManager(
            num_pools=connections,  # hosts with connections that stay open
            maxsize=connections,
            timeout=urllib3.Timeout(connect=limits.connect_timeout_s, read=limits.read_timeout_s),
            retries=False,
            ssl_context=ssl.create_default_context(cafile=certifi.where()),
            headers={
                "User-Agent": f"product-vqa/{product_vqa.__version__}",
                "Accept": "image/*",
                "Accept-Encoding": "identity",  # images are compressed already
            },
        )
        if not allow_private_hosts:
            self._pools.pool_classes_by_scheme = {"http": _PublicOnlyPool, "https": _PublicOnlyHTTPSPool}

    def __enter__(self) -> "Fetcher":
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()  # wakes the threads that wait for their next attempt
        self._pools.clear()

    def why_unreachable(self, url: str) -> str | None:
        """Why the host of a URL accepts no connection, or "" if it accepts one. No request is sent.

        None for a URL that says nothing about the network: an invalid one, or one with a private address.
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
        for attempt in range(1, self.limits.num_attempts + 1):
            try:
                self._wait_for_host(host)
                status, data = self._attempt(url)
                return Fetched(data, status, attempt)
            except _TransientError as error:
                error.tries = attempt
                wait_s = error.wait_s
                if wait_s is None:
                    wait_s = self.limits.backoff_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
                if attempt == self.limits.num_attempts or not self._wait(wait_s):
                    raise
            except FetchError as error:
                error.tries = attempt
                raise
        raise AssertionError("num_attempts must be positive")

    def _wait_for_host(self, host: str) -> None:
        pause_s = self._paused_until.get(host, 0) - time.monotonic()
        if pause_s > 0 and not self._wait(pause_s):
            raise FetchError(f"host_pauses: for {pause_s:.0f} s", is_retryable=True)

    def _wait(self, wait_s: float) -> bool:
        """Wait, and return True. False without waiting if that would take too long, or as soon as the run ends."""
        return wait_s <= self.limits.max_wait_s and not self._stopped.wait(wait_s)

    def _attempt(self, url: str) -> tuple[int, bytes]:
        deadline = time.monotonic() + self.limits.total_timeout_s
        try:
            for _ in range(1 + self.limits.max_redirects):
                response = self._pools.request("GET", url, redirect=False, preload_content=False, decode_content=False)
                try:
                    location = response.get_redirect_location()
                    if not location:
                        self._check_status(url, response)
                        return response.status, self._body(response, deadline=deadline)
                finally:
                    # A connection that was read to its end is in its pool again by now, and stays open.
                    response.close()
                    response.release_conn()
                url = urljoin(url, location)
                _host(url)
        except _PrivateAddressError as error:
            raise FetchError(f"private_address: {error}", is_retryable=True) from error  # allow_private_hosts
        except ValueError as error:  # urllib3's LocationValueError, and what urljoin and IDNA raise
            raise FetchError(f"bad_link: {error}") from error
        except exceptions.HTTPError as error:
            raise _TransientError(_reason(error)) from error
        raise FetchError(f"bad_answer: more than {self.limits.max_redirects} redirects")

    def _check_status(self, url: str, response: urllib3.BaseHTTPResponse) -> None:
        status = response.status
        if status in (408, 425, 429) or status >= 500:
            wait_s = parse_retry_after(response.headers.get("Retry-After"))
            if wait_s is not None:
                self._paused_until[_host(url)] = time.monotonic() + wait_s
            raise _TransientError(f"http_{status}", http_status=status, wait_s=wait_s)
        if not 200 <= status < 300:
            raise FetchError(f"http_{status}", http_status=status, is_retryable=status in (401, 403))

    def _body(self, response: urllib3.BaseHTTPResponse, *, deadline: float) -> bytes:
        max_bytes = self.limits.max_bytes
        status = response.status
        declared = response.headers.get("Content-Length", "0")
        if declared.isdecimal() and int(declared) > max_bytes:
            raise FetchError(f"too_many_bytes: {declared}", http_status=status)
        is_compressed = response.headers.get("Content-Encoding", "identity").lower() in ("gzip", "deflate")
        decompressor = zlib.decompressobj(wbits=47) if is_compressed else None  # some servers compress unasked
        body = bytearray()
        while chunk := response.read1(_CHUNK_BYTES):
            try:
                # One byte more than allowed is enough to refuse: a decompression bomb is never unpacked further.
                body += decompressor.decompress(chunk, max_bytes + 1 - len(body)) if decompressor else chunk
            except zlib.error as error:
                raise FetchError(f"bad_answer: {error}", http_status=status) from error
            if len(body) > max_bytes:
                raise FetchError(f"too_many_bytes: more than {max_bytes}", http_status=status)
            if time.monotonic() > deadline:
                raise _TransientError(
                    f"timeout: not complete after {self.limits.total_timeout_s:g} s", http_status=status
                )
        return bytes(body)


def _host(url: str) -> str:
    """The host of an http or https URL. Raises FetchError for any other URL, and for one with a password."""
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
    """`connection: ...` or `timeout: ...`"""
    is_refused = isinstance(error, exceptions.NewConnectionError)  # a TimeoutError too, for urllib3
    kind = "timeout" if isinstance(error, exceptions.TimeoutError) and not is_refused else "connection"
    detail = error.args[0] if error.args else ""  # the other arguments repeat it
    return f"{kind}: {type(error).__name__}: {detail}"


def is_unreached(reason: str) -> bool:
    """Whether a reason means that no connection to the host could be made."""
    return reason.startswith(
        ("connection: NewConnectionError", "connection: NameResolutionError", "timeout: ConnectTimeoutError")
    )


def origin(url: str) -> str:
    """The `https://host:port` of a URL, as written."""
    return "/".join(url.split("/", 3)[:3]).lower()


def parse_retry_after(value: str | None) -> float | None:
    """Seconds from `Retry-After: 120` or `Retry-After: Wed, 21 Oct 2026 07:28:00 GMT`; None for anything else."""
    if value is None:
        return None
    if value.isdecimal():
        return float(value)  # infinite for very many digits, so longer than any limit
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError, TypeError):  # not a date, or out of range, or without a time
        return None
