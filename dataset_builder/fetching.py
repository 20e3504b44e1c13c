"""One link to the bytes behind it, or to the reason why there are none."""

import email.utils
import http.cookiejar
import ipaddress
import random
import socket
import threading
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpcore2
import httpx2

import product_vqa


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


class _PublicNetwork(httpcore2.SyncBackend):
    """Connects to public addresses only. Here and not beforehand, so that what is checked is what is connected to,
    after a redirect too, and whatever a name server says the second time."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        try:
            addresses = [info[4][0] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except OSError as error:
            raise httpcore2.ConnectError(f"{host}: {error.strerror}") from error
        for address in addresses:
            if not _is_public(address):
                raise _PrivateAddressError(f"{host} is {address}")
        for address in addresses[:-1]:
            try:
                return super().connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue  # the last one's error is the one to report
        return super().connect_tcp(addresses[-1], port, timeout, local_address, socket_options)


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
        self._resumes_at: dict[str, float] = {}  # host -> when it wants to be asked again, by time.monotonic()
        transport = httpx2.HTTPTransport()
        # httpx2 has no public way to say how to connect; the pool beneath it has.
        transport._pool = httpcore2.ConnectionPool(
            ssl_context=httpx2.create_ssl_context(),
            max_connections=connections,
            max_keepalive_connections=connections,
            network_backend=None if allow_private_hosts else _PublicNetwork(),
        )
        self._client = httpx2.Client(
            transport=transport,
            timeout=httpx2.Timeout(limits.read_timeout_s, connect=limits.connect_timeout_s, pool=None),
            follow_redirects=True,
            max_redirects=limits.max_redirects,
            trust_env=False,
            cookies=http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[])),
            headers={
                "User-Agent": f"product-vqa/{product_vqa.__version__}",
                "Accept": "image/*",
                "Accept-Encoding": "identity",  # pictures do not shrink
            },
        )

    def __enter__(self) -> "Fetcher":
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()  # no thread waits for its next attempt any longer
        self._client.close()

    def fetch(self, link: str) -> Fetched:
        """Raises FetchError, at once where another attempt would end the same (404, a bad link, too many bytes), else
        after `num_attempts` of them."""
        url = _url(link)
        for attempt in range(1, self.limits.num_attempts + 1):
            try:
                pause_s = self._resumes_at.get(url.host, 0) - time.monotonic()
                if pause_s > 0:
                    self._wait(pause_s, FetchError(f"host_pauses: for {pause_s:.0f} s", could_succeed=True))
                status, data = self._attempt(url)
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

    def _attempt(self, url: httpx2.URL) -> tuple[int, bytes]:
        deadline = time.monotonic() + self.limits.whole_timeout_s
        try:
            with self._client.stream("GET", url) as response:
                self._check_status(response)
                return response.status_code, self._body(response, deadline=deadline)
        except _PrivateAddressError as error:
            raise FetchError(f"private_address: {error}", could_succeed=True) from error  # --allow_private_hosts
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, UnicodeError) as error:
            raise FetchError(f"bad_link: {error}") from error
        except httpx2.TimeoutException as error:
            raise _TransientError(f"timeout: {type(error).__name__}") from error
        except httpx2.TransportError as error:
            raise _TransientError(f"connection: {type(error).__name__}: {error}") from error
        except httpx2.RequestError as error:  # TooManyRedirects
            raise FetchError(f"bad_answer: {type(error).__name__}: {error}") from error

    def _check_status(self, response: httpx2.Response) -> None:
        status = response.status_code
        if status in (408, 425, 429) or status >= 500:
            wait_s = _retry_after_s(response.headers.get("Retry-After"))
            if wait_s is not None:
                self._resumes_at[response.url.host] = time.monotonic() + wait_s
            raise _TransientError(f"http_{status}", http_status=status, wait_s=wait_s)
        if not response.is_success:
            raise FetchError(f"http_{status}", http_status=status, could_succeed=status in (401, 403))

    def _body(self, response: httpx2.Response, *, deadline: float) -> bytes:
        max_bytes = self.limits.max_bytes
        status = response.status_code
        if int(response.headers.get("Content-Length", 0)) > max_bytes:
            raise FetchError(f"too_many_bytes: {response.headers['Content-Length']}", http_status=status)
        is_packed = response.headers.get("Content-Encoding", "identity").lower() in ("gzip", "deflate")
        unpacking = zlib.decompressobj(wbits=47) if is_packed else None  # by some servers, though they were not asked
        body = bytearray()
        for piece in response.iter_raw():
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


def _url(link: str) -> httpx2.URL:
    try:
        url = httpx2.URL(link)
    except (httpx2.InvalidURL, UnicodeError) as error:
        raise FetchError(f"bad_link: {error}") from error
    if url.userinfo:
        raise FetchError("bad_link: it holds a user name or a password")
    return url


def _retry_after_s(value: str | None) -> float | None:
    """Seconds from `Retry-After: 120` or `Retry-After: Wed, 21 Oct 2026 07:28:00 GMT`; None where it says neither."""
    if value is None:
        return None
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
