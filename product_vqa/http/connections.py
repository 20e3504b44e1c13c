"""Connections to public addresses only, whose deadline holds for everything that a server can draw out."""

import contextlib
import http.client
import socket
import ssl
import threading
import time
from concurrent.futures import Future, wait
from typing import Any, BinaryIO

import certifi
import urllib3
from urllib3 import exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection

from product_vqa.http.addresses import is_public_address

CHECK_INTERVAL_S = 0.1  # between two checks of the deadlines
MAX_HEAD_BYTES = 64 * 1024  # of the status line and headers, with all 1xx answers before them. Servers send 1 kB

_current = threading.local()  # .attempt: the attempt that the thread makes


class PrivateAddressError(Exception):
    """The host is this machine, or one of the local network."""


class UntrustedCertificateError(exceptions.HTTPError):
    """`host: reason` why the certificate of a host is not trusted."""


class Attempts:
    """The attempts in progress, one per thread, each with a deadline for everything that it waits for.

    The timeouts of a socket do not bound an answer: each byte of a header, of a chunk's size or of a TLS record renews
    them. So a thread shuts down the sockets of attempts whose deadline has passed, which ends any read and write.
    """

    def __init__(self, *, allow_private_hosts: bool) -> None:
        self.allow_private_hosts = allow_private_hosts
        self.in_progress: set[Attempt] = set()
        self.stopped = threading.Event()
        threading.Thread(target=self._enforce_deadlines, daemon=True).start()

    def stop(self) -> None:
        """End all attempts, and refuse new ones."""
        self.stopped.set()
        for attempt in list(self.in_progress):
            attempt.shut_down()

    def _enforce_deadlines(self) -> None:
        while not self.stopped.wait(CHECK_INTERVAL_S):
            for attempt in list(self.in_progress):
                if attempt.is_over():
                    attempt.shut_down()


class Attempt:
    """`with Attempt(attempts, time_s)`: the connections of this thread belong to it."""

    def __init__(self, attempts: Attempts, time_s: float) -> None:
        self.allow_private_hosts = attempts.allow_private_hosts
        self._attempts = attempts
        self._deadline = time.monotonic() + time_s
        self._socket: socket.socket | None = None
        self.http_status: int | None = None  # of the last response

    def __enter__(self) -> "Attempt":
        _current.attempt = self
        self._attempts.in_progress.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._attempts.in_progress.discard(self)
        del _current.attempt

    def is_over(self) -> bool:
        """Whether the time is up or the run ends. What was read since then may be incomplete."""
        return time.monotonic() >= self._deadline or self._attempts.stopped.is_set()

    def pause(self, wait_s: float) -> None:
        """Wait, without using up the time. Raises TimeoutError if the run ends."""
        self._deadline += wait_s
        if self._attempts.stopped.wait(wait_s):
            raise TimeoutError("the run ends")

    def use(self, connection: socket.socket) -> None:
        """Wait on this socket from now on. Raises TimeoutError if the time is up."""
        self._socket = connection
        if self.is_over():  # checked last: `stop` shuts down the sockets that it finds
            raise TimeoutError("the time is up")

    def shut_down(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # not connected, or closed
                # Not the method of SSLSocket, which forgets its TLS state: the reader would continue without it.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _Response(http.client.HTTPResponse):
    """Refuses a head of more than MAX_HEAD_BYTES. http.client allows 6.5 MB, which take a minute to parse."""

    def begin(self) -> None:
        if self.headers is None:
            head = _Head(self.fp)
            self.fp = head
            try:
                super().begin()
            finally:
                if self.fp is head:  # or else it was closed
                    self.fp = head.stream


class _Head:
    """The lines of a response until its body."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.close = stream.close
        self._num_bytes = 0

    def readline(self, limit: int) -> bytes:
        line = self.stream.readline(limit)
        self._num_bytes += len(line)
        if self._num_bytes > MAX_HEAD_BYTES:
            raise http.client.LineTooLong("status line and headers")
        return line


class _Connection(HTTPConnection):
    response_class = _Response

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            _current.attempt.use(self.sock)
        super().request(*args, **kwargs)

    def _new_conn(self) -> socket.socket:
        """Connect to the first address of the host that accepts.

        The name is looked up once, so that a name server cannot pass one address off as public and then give another.
        """
        attempt: Attempt = _current.attempt
        addresses = self._look_up(attempt)
        if not attempt.allow_private_hosts:
            for *_, address in addresses:
                self._check(str(address[0]))
        error: OSError = OSError("no address")
        for family, *_, address in addresses:
            connection = socket.socket(family)
            try:
                attempt.use(connection)
                for option in self.socket_options or ():
                    connection.setsockopt(*option)
                connection.settimeout(self.timeout)
                connection.connect(address)
                if not attempt.allow_private_hosts:
                    self._check(str(connection.getpeername()[0]))
                return connection
            except OSError as failure:
                connection.close()
                error = failure
            except BaseException:
                connection.close()
                raise
        if isinstance(error, TimeoutError):
            message = f"Connection to {self.host} timed out. (connect timeout={self.timeout})"
            raise exceptions.ConnectTimeoutError(message) from error
        raise exceptions.NewConnectionError(self, f"Failed to establish a new connection: {error}") from error

    def _look_up(self, attempt: Attempt) -> list[tuple[Any, ...]]:
        """The addresses of the host. A look-up cannot be interrupted, so it is left to itself when the time is up."""
        found: Future[list[tuple[Any, ...]]] = Future()

        def look_up() -> None:
            try:
                found.set_result(socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM))
            except Exception as error:
                found.set_exception(error)

        try:
            threading.Thread(target=look_up, daemon=True).start()
            while not attempt.is_over():
                if wait([found], timeout=CHECK_INTERVAL_S).done:
                    return found.result()
        except socket.gaierror as error:
            raise exceptions.NameResolutionError(self.host, self, error) from error
        except UnicodeError as error:
            raise exceptions.LocationParseError(f"{self._dns_host!r}, label empty or too long") from error
        except (OSError, RuntimeError) as error:  # RuntimeError: this machine can start no more threads
            raise exceptions.NewConnectionError(self, f"no address ({error})") from error
        raise exceptions.ConnectTimeoutError(f"the name {self.host} was not looked up in time")

    def _check(self, address: str) -> None:
        if not is_public_address(address):
            raise PrivateAddressError(f"{self.host} is {address}")


class _TLSSocket(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        _current.attempt.use(self)
        super().do_handshake(block)


class _TLSConnection(_Connection, HTTPSConnection):
    """The same over TLS."""

    def connect(self) -> None:
        try:
            super().connect()
        except ssl.SSLCertVerificationError as error:
            raise UntrustedCertificateError(f"{self.host}: {error.verify_message}") from error


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


def make_pools(*, connections: int, timeout: urllib3.Timeout, headers: dict[str, str]) -> urllib3.PoolManager:
    """Persistent connections to several hosts. They can only be used within an Attempt."""
    context = ssl.create_default_context(cafile=certifi.where())
    context.sslsocket_class = _TLSSocket
    pools = urllib3.PoolManager(
        num_pools=connections,  # hosts with connections that stay open
        maxsize=connections,
        timeout=timeout,
        retries=False,
        ssl_context=context,
        headers=headers,
    )
    pools.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
    return pools
