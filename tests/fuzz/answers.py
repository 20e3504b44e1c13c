"""Targets: what a server answers, byte by byte over a raw socket on loopback, and where redirects lead."""

import gzip
import random
import socket
import ssl
import threading
import zlib
from functools import cache
from unittest import mock

import certifi

from product_vqa.http.fetching import Fetcher, FetchError, FetchLimits
from tests.fuzz.target import Target, assert_one_line, text_of

_LIMITS = FetchLimits(
    connect_timeout_s=5, read_timeout_s=5, total_timeout_s=5, num_attempts=1, max_redirects=3, max_bytes=64 * 1024
)
_TOKENS = (
    "bad_link",
    "private_address",
    "bad_answer",
    "too_many_bytes",
    "timeout",
    "connection",
    "certificate",
    "host_pauses",
    "http_",
)


class _RawServer:
    """Accepts one connection after the other, reads the request, sends `answer`, and hangs up."""

    def __init__(self) -> None:
        self.answer = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                try:
                    connection.settimeout(5)
                    connection.recv(65536)
                    connection.sendall(self.answer)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):  # until the client hangs up: a reset would cut the answer
                        pass
                except OSError:
                    pass


@cache
def _ssl_context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certifi.where())  # takes 20 ms


def _fetcher(*, allow_private_hosts: bool) -> Fetcher:
    """A new one for each case: it remembers which hosts asked for a pause."""
    context = _ssl_context()
    with mock.patch.object(ssl, "create_default_context", return_value=context):
        return Fetcher(connections=1, allow_private_hosts=allow_private_hosts, limits=_LIMITS)


@cache
def _server() -> _RawServer:
    return _RawServer()


def _check_error(error: FetchError) -> None:
    assert_one_line(error)
    assert str(error).startswith(_TOKENS), str(error)


def fuzz_server_answer(data: bytes) -> None:
    """Whatever a server answers is bytes within the limit, or the reason of that one URL."""
    server = _server()
    server.answer = data
    with _fetcher(allow_private_hosts=True) as fetcher:
        try:
            fetched = fetcher.fetch(f"http://127.0.0.1:{server.port}/a.jpg")
        except FetchError as error:
            _check_error(error)
        else:
            assert isinstance(fetched.data, bytes) and len(fetched.data) <= _LIMITS.max_bytes
            assert fetched.http_status is not None and 200 <= fetched.http_status < 300


def fuzz_redirect(data: bytes) -> None:
    """A URL, also one that a redirect names, leads to no private address, and never ends more than itself."""
    url = text_of(data)
    with _fetcher(allow_private_hosts=False) as fetcher:
        try:
            fetcher.fetch(url)
        except FetchError as error:
            _check_error(error)
        else:
            raise AssertionError(f"{url!r} was fetched from a private address")


_BODY = b"\xff\xd8 an image \xff\xd9"


def _answer(*headers: bytes, body: bytes = _BODY, status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([status, *headers, b"", body])


def _seeds() -> list[bytes]:
    return [
        _answer(b"Content-Length: 14"),
        _answer(b"Content-Type: image/jpeg"),
        _answer(b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n3;x=y\r\nabc\r\n0\r\nTrailer: x\r\n\r\n"),
        _answer(b"Content-Encoding: gzip", body=gzip.compress(_BODY, mtime=0)),
        _answer(b"Content-Encoding: deflate", body=zlib.compress(_BODY * 100)),
        _answer(b"Content-Encoding: gzip", body=gzip.compress(bytes(10**6), mtime=0)),
        _answer(b"Retry-After: 120", status=b"HTTP/1.1 429 Too Many Requests"),
        _answer(b"Retry-After: Wed, 21 Oct 2026 07:28:00 GMT", status=b"HTTP/1.1 503 x"),
        _answer(b"Retry-After: Wed, 21 Oct 2026 07:28:00 -9223372036854775808", status=b"HTTP/1.1 503 x"),
        _answer(b"Location: /b.jpg", status=b"HTTP/1.1 302 Found"),
        _answer(b"Location: ftp://x/y", status=b"HTTP/1.1 301 Moved"),
        _answer(b"Content-Length: 14", status=b"HTTP/1.0 404 Not Found"),
        _answer(b"Link: <x>; rel=y", status=b"HTTP/1.1 103 Early Hints") + _answer(b"Content-Length: 14"),
        _answer(status=b"HTTP/1.1 204 No Content", body=b""),
        b"", b"HTTP/1.1", b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-OpenSSH\r\n", b"\x15\x03\x01\x00\x02\x02F",
    ]  # fmt: skip


_STATUSES = [b"200 OK", b"206 x", b"301 x", b"302 x", b"304 x", b"307 x", b"308 x", b"400 x", b"403 x", b"404 x",
             b"408 x", b"425 x", b"429 x", b"500 x", b"503 x", b"999 x", b"100 x", b"101 x", b"0 x", b"-1 x",
             b"2000 x",
             b"abc", b""]  # fmt: skip
_HEADERS = [b"Content-Length", b"Transfer-Encoding", b"Content-Encoding", b"Location", b"Retry-After", b"Connection",
            b"Set-Cookie", b"Content-Type", b"Keep-Alive", b"Upgrade", b"Content-Range", b"Trailer", b"X\x00Y", b"",
            b" X", "Ä".encode(), b"Refresh"]  # fmt: skip
_VALUES = [
    b"0", b"14", b"-1", b"99999999999999999999", b"1e3", b"chunked", b"gzip", b"deflate", b"br", b"gzip, gzip",
    b"zstd",
    b"identity", b"GZIP", b"/b", b"//", b"http://", b"http://[::1", b"http://[fe80::1%25eth0]/", b"http://127.0.0.1:99999/",
    b"http://\xff/", b"http://user:secret@x/", b"file:///etc/passwd", b"javascript:1", b"\\\\x\\y", b"http://xn--\xc3\xa4/",
    b"?", b"#", b"http:///x", b"120", b"0.5", b"1" * 5000, b"Wed, 21 Oct 2026 07:28:00 GMT",
    b"Wed, 99 Foo 99999 1:1:1 +9999",
    b"Mon, 1 Jan 0001 00:00:00 +2359", b"Fri, 31 Dec 9999 23:59:59 -2359", b"\xc2\xb2", "٣".encode(), b"close",
    b"keep-alive", b"\x00", b"a" * 70000, b" " * 3000, b"",
]  # fmt: skip
_HOSTS = (
    "127.0.0.1", "localhost", "[::1]", "0", "0x7f.1", "2130706433", "127.1", "[::ffff:127.0.0.1]", "[fec0::1]",
    "[64:ff9b::a9fe:a9fe]", "169.254.169.254", "10.0.0.1", "192.168.0.1", "[fe80::1%25lo]", "[2002:7f00:1::]", "[::]",
    "224.0.0.1", "255.255.255.255", "100.64.0.1", "127.0.0.1.", "①②⑦.0.0.1", "０", "[::127.0.0.1]", "[ff02::1]", "",
    "localhost.", "LOCALHOST", "127.0.0.1%00.com", "x\x00y", "a" * 300, "-", "xn--", "..", "[", "[]", "[v1.x]",
)  # fmt: skip


def _generate(rng: random.Random) -> bytes:
    headers = [
        rng.choice(_HEADERS) + rng.choice((b": ", b":", b" : ", b"")) + rng.choice(_VALUES)
        for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 5, 150)))
    ]
    body = rng.choice(
        (_BODY, b"", gzip.compress(_BODY, mtime=0), b"5\r\nhello\r\n0\r\n\r\n", b"ffffffffffff\r\nx", b"-5\r\nx\r\n")
    )
    status = rng.choice((b"HTTP/1.1 ", b"HTTP/1.0 ", b"HTTP/9.9 ", b"ICY ")) + rng.choice(_STATUSES)
    return _answer(*headers, status=status, body=body)


def _generate_url(rng: random.Random) -> bytes:
    scheme = rng.choice(("http", "http", "http", "HTTP", "https", "ftp", "file", "", "http+unix", " http"))
    user = rng.choice(("", "", "", "user@", "user:secret@", "@", "%40@"))
    port = rng.choice(("", "", ":0", ":1", ":65536", ":-1", ":x", ":", ":00009"))
    path = rng.choice(("", "/", "/a.jpg", "/ä ö", "/%", "/\n", "?x", "#y", "/" + "a" * 3000, "/\ud800"))
    separator = rng.choice(("://", "://", "://", ":", ":/", ":///", ":\\\\"))
    return f"{scheme}{separator}{user}{rng.choice(_HOSTS)}{port}{path}".encode("utf-8", "surrogatepass")


TARGETS = [
    Target("server_answer", fuzz_server_answer, _seeds, words=(*_HEADERS, *_VALUES, b"\r\n"), generate=_generate),
    Target(
        "redirect", fuzz_redirect, lambda: [b"http://127.0.0.1:1/a.jpg", b"http://[::1]:1/"],
        words=tuple(host.encode() for host in _HOSTS), generate=_generate_url, max_bytes=2000,
    ),
]  # fmt: skip
