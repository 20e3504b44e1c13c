"""One link to the bytes behind it, or to the reason why there are none."""

import email.utils
import ipaddress
import random
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

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
    max_wait_s: float = 60  # what a server may ask for with Retry-After
    max_redirects: int = 5
    max_bytes: int = 32 * 1024**2


class FetchError(Exception):
    """Why a link gave nothing: `token` or `token: detail`, as `failed.csv` and `left_out.csv` give it."""


class _TransientError(Exception):
    """As FetchError, but another attempt may succeed, after `wait_s` if the server said so."""

    def __init__(self, reason: str, *, wait_s: float | None = None) -> None:
        super().__init__(reason)
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
    """Fetches over HTTP and HTTPS; safe to use from `connections` threads at once."""

    def __init__(self, *, connections: int, allow_private_hosts: bool, limits: FetchLimits = FetchLimits()) -> None:
        self.limits = limits
        self._stopped = threading.Event()
        transport = httpx2.HTTPTransport()
        # httpx2 has no public way to say how to connect; the pool beneath it has.
        transport._pool = httpcore2.ConnectionPool(
            ssl_context=httpx2.create_ssl_context(),
            max_connections=connections,
            network_backend=None if allow_private_hosts else _PublicNetwork(),
        )
        self._client = httpx2.Client(
            transport=transport,
            timeout=httpx2.Timeout(limits.read_timeout_s, connect=limits.connect_timeout_s, pool=None),
            follow_redirects=True,
            max_redirects=limits.max_redirects,
            headers={
                "User-Agent": f"product-vqa/{product_vqa.__version__}",
                "Accept": "image/*",
                "Accept-Encoding": "identity",  # pictures do not shrink, and nothing can be hidden in the packing
            },
        )

    def __enter__(self) -> "Fetcher":
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()  # no thread waits for its next attempt any longer
        self._client.close()

    def fetch(self, link: str) -> bytes:
        """Raises FetchError, at once where another attempt would end the same (404, a bad link, too many bytes), else
        after `num_attempts` of them."""
        for attempt in range(1, self.limits.num_attempts + 1):
            try:
                return self._attempt(link)
            except _TransientError as error:
                if attempt == self.limits.num_attempts:
                    raise FetchError(str(error)) from error
                wait_s = error.wait_s
                if wait_s is None:
                    wait_s = self.limits.backoff_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
                if self._stopped.wait(min(wait_s, self.limits.max_wait_s)):
                    raise FetchError("stopped") from error
        raise AssertionError("num_attempts must be positive")

    def _attempt(self, link: str) -> bytes:
        deadline = time.monotonic() + self.limits.whole_timeout_s
        try:
            with self._client.stream("GET", link) as response:
                _check_status(response)
                return self._body(response, deadline=deadline)
        except _PrivateAddressError as error:
            raise FetchError(f"private_address: {error}") from error
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, UnicodeError) as error:
            raise FetchError(f"bad_link: {error}") from error
        except httpx2.TimeoutException as error:
            raise _TransientError(f"timeout: {type(error).__name__}") from error
        except httpx2.TransportError as error:
            raise _TransientError(f"connection: {type(error).__name__}: {error}") from error
        except httpx2.RequestError as error:  # TooManyRedirects, DecodingError
            raise FetchError(f"bad_answer: {type(error).__name__}: {error}") from error

    def _body(self, response: httpx2.Response, *, deadline: float) -> bytes:
        body = bytearray()
        for piece in response.iter_bytes():
            body += piece
            if len(body) > self.limits.max_bytes:
                raise FetchError(f"too_many_bytes: more than {self.limits.max_bytes}")
            if time.monotonic() > deadline:
                raise _TransientError(f"timeout: not complete after {self.limits.whole_timeout_s:g} s")
        return bytes(body)


def _check_status(response: httpx2.Response) -> None:
    status = response.status_code
    if status in (408, 425, 429) or status >= 500:
        raise _TransientError(f"http_{status}", wait_s=_retry_after_s(response.headers.get("Retry-After")))
    if not response.is_success:
        raise FetchError(f"http_{status}")


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
