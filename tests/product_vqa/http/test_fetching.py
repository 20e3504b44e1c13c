import contextlib
import dataclasses
import random
import socket
import ssl
import threading
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import product_vqa
from product_vqa.http import connections
from product_vqa.http.fetching import Fetched, Fetcher, FetchError, FetchLimits, origin, parse_retry_after
from tests.commands import ROOT
from tests.dataset_builder.image_server import (
    Answer,
    ImageServer,
    closed_port,
    cut,
    drip,
    endless,
    first_then,
    full_port,
    length,
    listening,
    packed,
    send,
    slowly,
    status,
    until_closed,
)

QUICK = FetchLimits(
    connect_timeout_s=1, read_timeout_s=0.3, total_timeout_s=0.6, num_attempts=3, backoff_s=0.01, max_bytes=1000
)


def fetch(url: str, *, allow_private_hosts: bool = True, limits: FetchLimits = QUICK) -> bytes:
    with Fetcher(connections=2, allow_private_hosts=allow_private_hosts, limits=limits) as fetcher:
        return fetcher.fetch(url).data


PASSING = [status(500), status(503, Retry_After="0"), status(429), status(408), cut, slowly(b"late", pause_s=0.5)]


@pytest.mark.parametrize("trouble", PASSING, ids=["500", "503", "429", "408", "cut", "silence"])
def test_a_passing_trouble_is_tried_again(server: ImageServer, trouble: Answer) -> None:
    server.answers["/a.jpg"] = first_then(trouble, b"image")
    assert fetch(f"{server.url}/a.jpg") == b"image"
    assert server.requests["/a.jpg"] == 2


LASTING = [
    (status(404), 1, "http_404"),
    (status(410), 1, "http_410"),
    (status(403), 1, "http_403"),
    (status(304), 1, "http_304"),
    (b"x" * 1001, 1, "too_many_bytes: 1001"),
    (endless, 1, "too_many_bytes: more than 1000"),
    (packed(b"x" * 500_000), 1, "too_many_bytes: more than 1000"),
    (lambda handler: send(handler, b"no", Content_Encoding="gzip"), 1, "bad_answer: Error -3"),
    (status(500), 3, "http_500"),
    (cut, 3, "connection: ProtocolError: Connection broken"),
    (slowly(b"late", pause_s=0.5), 3, "timeout: ReadTimeoutError"),
    (drip, 3, "timeout: not complete after 0.6 s"),
    (status(302, Location="/a.jpg"), QUICK.max_redirects + 1, "bad_answer: more than 5 redirects"),
    (status(302, Location="file:///etc/hostname"), 1, "bad_link"),
    (status(302, Location="http://["), 1, "bad_link"),
    (status(302, Location="http://user:word@127.0.0.1/"), 1, "bad_link: contains a user name or a password"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "num_requests", "reason"), LASTING, ids=[case[-1] for case in LASTING])
def test_a_lasting_trouble_ends_with_its_reason(
    server: ImageServer, answer: bytes | Answer, num_requests: int, reason: str
) -> None:
    server.answers["/a.jpg"] = answer
    with pytest.raises(FetchError) as failure:
        fetch(f"{server.url}/a.jpg")
    assert str(failure.value).startswith(reason)
    assert server.requests["/a.jpg"] == num_requests


STATUSES = {  # (is_retryable, number of attempts of two): what to expect of each
    (False, 1): [300, 302, 304, 400, 402, 404, 409, 410, 426, 430, 499],
    (True, 1): [401, 403, 407],
    (True, 2): [408, 425, 429, 500, 501, 503, 511, 599],
}


@pytest.mark.parametrize(("is_retryable", "num_tries"), STATUSES)
def test_a_status_is_final_or_for_this_run_or_for_this_attempt(
    server: ImageServer, is_retryable: bool, num_tries: int
) -> None:
    limits = dataclasses.replace(QUICK, num_attempts=2, backoff_s=0)
    with Fetcher(connections=1, allow_private_hosts=True, limits=limits) as fetcher:
        for code in STATUSES[is_retryable, num_tries]:
            server.answers["/a.jpg"] = status(code)
            server.requests.clear()
            with pytest.raises(FetchError) as failure:
                fetcher.fetch(f"{server.url}/a.jpg")
            error = failure.value
            assert (str(error), error.http_status) == (f"http_{code}", code)
            assert (error.is_retryable, error.tries, server.requests["/a.jpg"]) == (is_retryable, num_tries, num_tries)


@pytest.mark.parametrize("code", [200, 206, 299])
def test_any_success_is_an_image(server: ImageServer, code: int) -> None:
    server.answers["/a.jpg"] = status(code)
    with Fetcher(connections=1, allow_private_hosts=True, limits=QUICK) as fetcher:
        assert fetcher.fetch(f"{server.url}/a.jpg") == (b"no", code, 1)


def test_the_pauses_between_attempts_double_and_are_random(server: ImageServer) -> None:
    asked_at = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked_at.append(time.monotonic())
        send(handler, b"no", status=500)

    server.answers["/a.jpg"] = answer
    random.seed(316)  # whose first numbers between 0.5 and 1.5 are 0.526 and 1.446
    with pytest.raises(FetchError, match="http_500"):
        fetch(f"{server.url}/a.jpg", limits=dataclasses.replace(QUICK, num_attempts=3, backoff_s=0.15))
    first, second, third = asked_at
    assert 0.07 < second - first < 0.2  # 0.079
    assert 0.4 < third - second < 0.6  # 0.434


def test_an_attempt_that_takes_too_long_keeps_its_status(server: ImageServer) -> None:
    server.answers["/a.jpg"] = drip
    with pytest.raises(FetchError) as failure:
        fetch(f"{server.url}/a.jpg", limits=dataclasses.replace(QUICK, total_timeout_s=0.2, num_attempts=1))
    assert str(failure.value) == "timeout: not complete after 0.2 s"
    assert failure.value.is_retryable and failure.value.http_status == 200


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "deflate"])
def test_what_was_packed_unasked_is_unpacked(server: ImageServer, encoding: str) -> None:
    server.answers["/a.jpg"] = packed(b"image", encoding=encoding)
    assert fetch(f"{server.url}/a.jpg") == b"image"


def test_what_is_not_declared_as_packed_is_not_unpacked(server: ImageServer) -> None:
    server.answers["/a.jpg"] = zlib.compress(b"image")
    assert fetch(f"{server.url}/a.jpg") == zlib.compress(b"image")


NOTHING_PACKED = b"\0\0\0\xff\xff" * 80  # deflate's empty block
SIZES: dict[str, tuple[bytes | Answer, bytes | str]] = {  # of 1000 bytes that are allowed
    "as declared": (b"x" * 1000, b"x" * 1000),
    "one more declared": (b"x" * 1001, "too_many_bytes: 1001"),
    "very many digits": (until_closed(b"x", Content_Length="9" * 5000), "too_many_bytes: 9999"),
    "no number": (until_closed(b"x" * 1000, Content_Length="many"), b"x" * 1000),
    "undeclared": (until_closed(b"x" * 500, b"x" * 500), b"x" * 1000),
    "one more undeclared": (until_closed(b"x" * 500, b"x" * 501), "too_many_bytes: more than 1000"),
    "packed": (packed(b"x" * 1000), b"x" * 1000),
    "one more packed": (packed(b"x" * 1001), "too_many_bytes: more than 1000"),
    "nothing packed": (
        until_closed(b"x\x9c", *[NOTHING_PACKED] * 3, Content_Encoding="deflate"),
        "too_many_bytes: more than 1000",
    ),
    "not packed": (
        until_closed(b"no", Content_Encoding="gzip"),
        "bad_answer: Error -3 while decompressing data: incorrect header check",
    ),
    "a chunk of 70 TB": (
        until_closed(b"400000000000\r\nx", Transfer_Encoding="chunked"),
        "connection: ProtocolError: Connection broken: IncompleteRead(0 bytes read)",
    ),
    "fewer than declared": (
        length(b"x" * 10, 1000),
        "connection: ProtocolError: Connection broken: IncompleteRead(10 bytes read, 990 more expected)",
    ),
}


@pytest.mark.parametrize(("answer", "outcome"), SIZES.values(), ids=SIZES)
def test_a_body_has_the_bytes_that_are_allowed_at_most(
    server: ImageServer, answer: bytes | Answer, outcome: bytes | str
) -> None:
    server.answers["/a.jpg"] = answer
    limits = dataclasses.replace(QUICK, num_attempts=1)
    if isinstance(outcome, bytes):
        assert fetch(f"{server.url}/a.jpg", limits=limits) == outcome
    else:
        with pytest.raises(FetchError) as failure:
            fetch(f"{server.url}/a.jpg", limits=limits)
        assert str(failure.value).startswith(outcome)


def test_a_bomb_is_unpacked_only_until_it_is_too_large(server: ImageServer) -> None:
    server.answers["/a.jpg"] = packed(bytes(16 * 1024**2))
    tracemalloc.start()
    with pytest.raises(FetchError, match="too_many_bytes: more than 20000"):
        fetch(f"{server.url}/a.jpg", limits=dataclasses.replace(QUICK, max_bytes=20_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 1024**2


def test_a_url_for_which_there_is_no_memory_may_be_retried(
    server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allocate(**_: object) -> None:
        raise MemoryError("no 40 kB")

    server.answers["/a.jpg"] = packed(b"image")
    monkeypatch.setattr(zlib, "decompressobj", allocate)
    with pytest.raises(FetchError, match=r"^bad_answer: MemoryError: no 40 kB$") as failure:
        fetch(f"{server.url}/a.jpg")
    assert failure.value.is_retryable


def test_a_redirect_is_followed(server: ImageServer) -> None:
    server.answers["/old.jpg"] = status(301, Location="/new.jpg")
    server.answers["/new.jpg"] = b"image"
    assert fetch(f"{server.url}/old.jpg") == b"image"


def test_five_redirects_are_followed(server: ImageServer) -> None:
    server.answers |= {f"/{number}": status(302, Location=f"/{number + 1}") for number in range(6)}
    server.answers["/6"] = b"image"
    with Fetcher(connections=1, allow_private_hosts=True, limits=FetchLimits()) as fetcher:
        assert fetcher.fetch(f"{server.url}/1").data == b"image"
        server.requests.clear()
        with pytest.raises(FetchError) as failure:
            fetcher.fetch(f"{server.url}/0")
    assert (str(failure.value), failure.value.http_status) == ("bad_answer: more than 5 redirects", 302)
    assert sorted(server.requests) == ["/0", "/1", "/2", "/3", "/4", "/5"]


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("file:///etc/hostname", "bad_link: 'file:///etc/hostname' is not an http or https URL"),
        ("http://[", "bad_link: Invalid IPv6 URL"),
        ("http://user:word@127.0.0.1/", "bad_link: contains a user name or a password"),
    ],
)
def test_a_redirect_to_an_invalid_url_is_not_followed(server: ImageServer, location: str, reason: str) -> None:
    server.answers["/a.jpg"] = status(302, Location=location)
    with pytest.raises(FetchError) as failure:
        fetch(f"{server.url}/a.jpg")
    assert (str(failure.value), failure.value.is_retryable, failure.value.http_status) == (reason, False, 302)
    assert server.requests == {"/a.jpg": 1}


CONTROL = "bad_link: contains a line break or a control character"
INVALID = {
    "": "bad_link: '' is not an http or https URL",
    "x": "bad_link: 'x' is not an http or https URL",
    "ftp://shop.example/a.jpg": "bad_link: 'ftp://shop.example/a.jpg' is not an http or https URL",
    "file:///etc/hostname": "bad_link: 'file:///etc/hostname' is not an http or https URL",
    "http://": "bad_link: 'http://' is not an http or https URL",
    "http://shop.example:port/a.jpg": "bad_link: Failed to parse: 'shop.example:port' is not a valid host or port",
    "http://[::1/a.jpg": "bad_link: Failed to parse: '[::1' is not a valid host or port",
    "http://user:word@shop.example/a.jpg": "bad_link: contains a user name or a password",
    "http://shop.example/a\nb.jpg": CONTROL,
    "http://shop.example/a\rHost: other": CONTROL,
    "http://shop.example/\0.jpg": CONTROL,
    "http://shop.example/\x1b[2J": CONTROL,
    "http://shop.example/\x7f.jpg": CONTROL,
    "http://shop.example/\x9f.jpg": CONTROL,
    "http://shop.example/\ud800.jpg": CONTROL,
    f"http://shop.example/{chr(0xDFFF)}.jpg": CONTROL,
    "http://shop.example/\u2028.jpg": CONTROL,
    "http://shop.example/\u2029.jpg": CONTROL,
    "http://shop.example/" + "a" * 8173: "bad_link: 8193 characters, more than 8192",
    "a" * 8192: f"bad_link: '{'a' * 100}' is not an http or https URL",
    "a" * 1_000_000: "bad_link: 1000000 characters, more than 8192",
}


def test_an_invalid_url_is_not_fetched() -> None:
    with Fetcher(connections=1, allow_private_hosts=True, limits=QUICK) as fetcher:
        for url, reason in INVALID.items():
            with pytest.raises(FetchError) as failure:
                fetcher.fetch(url)
            assert str(failure.value) == reason
            assert (failure.value.is_retryable, failure.value.http_status, failure.value.tries) == (False, None, 0)


def test_a_reason_is_one_printable_line_whatever_a_server_sends(server: ImageServer) -> None:
    server.answers["/a.jpg"] = status(302, Location="ftp://h/" + "\x1b\x85" * 500)
    with pytest.raises(FetchError, match=r"^bad_link") as failure:
        fetch(f"{server.url}/a.jpg")
    assert str(failure.value).isprintable() and len(str(failure.value)) <= 300


def test_a_url_may_have_8192_characters(server: ImageServer) -> None:
    path = "/" + "a" * (8192 - len(server.url) - 1)
    server.answers[path] = b"image"
    assert fetch(server.url + path) == b"image"


def test_the_limits_are_those_of_the_documentation() -> None:
    text = " ".join((ROOT / "docs" / "dataset.md").read_text().split())
    limits = FetchLimits()
    pauses = [limits.backoff_s * 2**number for number in range(limits.num_attempts - 1)]
    assert "retried up to three times after 0.5, 1 and 2 s" in text and pauses == [0.5, 1, 2]
    for promise in (
        f"The timeouts are {limits.connect_timeout_s} s to connect, {limits.read_timeout_s} s between two pieces of "
        f"data, and {limits.total_timeout_s} s in total.",
        f"a host that asks for more than {limits.max_wait_s} s,",
        f"`too_many_bytes` ({limits.max_bytes / 1024**2:g} MiB)",
    ):
        assert promise in text


def test_what_comes_from_a_folder_has_no_status_and_took_one_try() -> None:
    assert Fetched(b"image") == (b"image", None, 1)


def test_a_port_where_nobody_listens_is_tried_again_and_given_up() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(FetchError, match=r"^connection: NewConnectionError"):
            fetch(f"http://127.0.0.1:{unused.getsockname()[1]}/a.jpg")


def test_private_hosts_are_refused_before_any_request(server: ImageServer) -> None:
    server.answers["/a.jpg"] = b"image"
    for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
        with pytest.raises(FetchError, match=r"^private_address") as failure:
            fetch(server.url.replace("127.0.0.1", host) + "/a.jpg", allow_private_hosts=False)
        assert failure.value.is_retryable and failure.value.tries == 1  # with --allow_private_hosts
    assert not server.requests


def test_a_host_that_was_given_up_is_not_asked(server: ImageServer) -> None:
    server.answers["/a.jpg"] = b"image"
    other = closed_port()
    with Fetcher(connections=1, allow_private_hosts=True, limits=QUICK) as fetcher:
        fetcher.give_up({other: "connection: the first"})
        assert fetcher.fetch(f"{server.url}/a.jpg").data == b"image"
        fetcher.give_up({server.url: "connection: the second"})
        for url, reason in ((other, "connection: the first"), (server.url, "connection: the second")):
            with pytest.raises(FetchError) as failure:
                fetcher.fetch(f"{url.upper()}/a.jpg")
            assert (str(failure.value), failure.value.is_retryable, failure.value.tries) == (reason, True, 0)
    assert server.requests == {"/a.jpg": 1}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("HTTPS://Shop.example:8443/A/b c.jpg?x=/y", "https://shop.example:8443"),
        ("http://shop.example", "http://shop.example"),
        ("http://shop.example/a.jpg", "http://shop.example"),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, expected: str) -> None:
    assert origin(url) == expected


def test_a_host_that_accepts_a_connection_is_reachable(server: ImageServer) -> None:
    with Fetcher(connections=1, allow_private_hosts=True, limits=QUICK) as fetcher:
        assert fetcher.why_unreachable(f"{server.url}/a.jpg") == ""
        reason = fetcher.why_unreachable(f"{closed_port()}/a.jpg")
        assert reason is not None and reason.startswith("connection: NewConnectionError: ")
        for url in ("ftp://shop.example/a.jpg", "http://" + "a" * 64 + ".example/"):
            assert fetcher.why_unreachable(url) is None
    with Fetcher(connections=1, allow_private_hosts=False, limits=QUICK) as fetcher:
        assert fetcher.why_unreachable(f"{server.url}/a.jpg") is None
    assert not server.requests


def test_a_host_is_waited_for_until_the_timeouts_to_see_whether_it_is_reachable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = dataclasses.replace(QUICK, connect_timeout_s=0.1)
    with Fetcher(connections=1, allow_private_hosts=True, limits=limits) as fetcher:
        with full_port() as port:
            reason = fetcher.why_unreachable(f"http://127.0.0.1:{port}/a.jpg")
        assert reason == ("timeout: ConnectTimeoutError: Connection to 127.0.0.1 timed out. (connect timeout=0.1)")
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(2))
        started = time.monotonic()
        reason = fetcher.why_unreachable("http://shop.example/a.jpg")
    assert reason == "timeout: ConnectTimeoutError: the name shop.example was not looked up in time"
    assert 0.25 < time.monotonic() - started < 1.2


def test_a_host_whose_certificate_is_not_trusted_is_unreachable(certificate: tuple[Path, Path]) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    with (
        listening(lambda connection: context.wrap_socket(connection, server_side=True).close()) as port,
        Fetcher(connections=1, allow_private_hosts=True) as fetcher,
    ):
        reason = fetcher.why_unreachable(f"https://127.0.0.1:{port}/a.jpg")
    assert reason == "certificate: 127.0.0.1: self-signed certificate"


def test_a_public_name_that_leads_to_a_private_address_is_refused(
    server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, **_: [(2, 1, 6, "", ("10.1.2.3", port))])
    with pytest.raises(FetchError, match=r"^private_address: shop\.example is 10\.1\.2\.3"):
        fetch("http://shop.example/a.jpg", allow_private_hosts=False)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_name_is_looked_up_once_for_a_connection(
    server: ImageServer, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """DNS rebinding: the name server gives a public address first, and then a private one."""
    server.answers["/a.jpg"] = b"secret"
    port = int(server.url.rpartition(":")[2])
    addresses = iter(["203.0.114.1", "127.0.0.1"])
    looked_up = []

    def look_up(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        looked_up.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(addresses), port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    limits = dataclasses.replace(QUICK, connect_timeout_s=0.2, num_attempts=1)
    with pytest.raises(FetchError, match=r"^(connection|timeout):"):
        fetch(f"{scheme}://shop.example:{port}/a.jpg", allow_private_hosts=False, limits=limits)
    assert looked_up == ["shop.example"]
    checked = iter([True, False])  # of the look-up, and of the connection
    monkeypatch.setattr(connections, "is_public_address", lambda address: next(checked))
    addresses = iter(["127.0.0.1"])
    with pytest.raises(FetchError, match=r"^private_address: shop\.example is 127\.0\.0\.1"):
        fetch(f"{scheme}://shop.example:{port}/a.jpg", allow_private_hosts=False)
    assert not server.requests


def test_a_redirect_to_a_private_host_is_refused(server: ImageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first host passes for public (its address alone is let through), the second does not."""
    server.answers["/a.jpg"] = status(302, Location=server.url.replace("127.0.0.1", "127.0.0.2") + "/secret.jpg")
    server.answers["/secret.jpg"] = b"secret"
    monkeypatch.setattr(connections, "is_public_address", lambda address: address == "127.0.0.1")
    with pytest.raises(FetchError, match=r"^private_address: 127\.0\.0\.2"):
        fetch(f"{server.url}/a.jpg", allow_private_hosts=False)
    assert server.requests == {"/a.jpg": 1}


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> str:
    """A Retry-After of half a second: a date, which has whole seconds, by a clock that was stopped."""
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.5)
    return format_datetime(datetime.fromtimestamp(1_800_000_001, UTC), usegmt=True)


def test_retry_after_is_obeyed_by_every_url_of_the_host(server: ImageServer, soon: str) -> None:
    asked_at = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked_at.append(time.monotonic())
        if len(asked_at) == 1:
            send(handler, b"busy", status=429, Retry_After=soon)
        else:
            send(handler, b"image")

    server.answers |= {"/a.jpg": answer, "/b.jpg": answer}
    with (
        Fetcher(connections=2, allow_private_hosts=True, limits=FetchLimits(backoff_s=4, max_wait_s=0.5)) as fetcher,
        ThreadPoolExecutor() as pool,
    ):
        first = pool.submit(fetcher.fetch, f"{server.url}/a.jpg")
        deadline = time.monotonic() + 10
        while not fetcher._pauses and time.monotonic() < deadline:
            time.sleep(0.01)
        assert fetcher._pauses
        assert fetcher.fetch(f"{server.url}/b.jpg") == (b"image", 200, 1)
        assert first.result(timeout=20) == (b"image", 200, 2)
    assert len(asked_at) == 3 and all(0.45 < at - asked_at[0] < 1.5 for at in asked_at[1:])


def test_the_pauses_of_a_host_add_up_until_it_answers(server: ImageServer, soon: str) -> None:
    asked_at = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked_at.append(time.monotonic())
        send(handler, b"busy", status=503, Retry_After=soon)

    server.answers |= {"/busy.jpg": answer, "/good.jpg": b"image"}
    limits = dataclasses.replace(QUICK, num_attempts=4, max_wait_s=1)
    with Fetcher(connections=2, allow_private_hosts=True, limits=limits) as fetcher:
        for reason in ("http_503", "host_pauses: for 2 s", "host_pauses: for 2 s"):  # 1.5, rounded
            with pytest.raises(FetchError, match=reason):
                fetcher.fetch(f"{server.url}/busy.jpg")
    first, second, third = asked_at
    assert 0.45 < second - first < 0.9 and 0.45 < third - second < 0.9


def test_a_response_ends_the_sum_of_its_hosts_pauses(server: ImageServer, soon: str) -> None:
    server.answers |= {"/busy.jpg": status(503, Retry_After=soon), "/good.jpg": b"image"}
    limits = dataclasses.replace(QUICK, num_attempts=1, max_wait_s=0.75)
    with Fetcher(connections=2, allow_private_hosts=True, limits=limits) as fetcher, ThreadPoolExecutor() as pool:
        with pytest.raises(FetchError, match="http_503"):
            fetcher.fetch(f"{server.url}/busy.jpg")
        assert fetcher.fetch(f"{server.url}/good.jpg").data == b"image"
        with pytest.raises(FetchError, match="http_503"):
            fetcher.fetch(f"{server.url}/busy.jpg")
        waiting = pool.submit(fetcher.fetch, f"{server.url}/good.jpg")
        time.sleep(0.1)
        fetcher.stop()
        with pytest.raises(FetchError, match=r"^host_pauses: until the run ended$"):  # and not: for 1 s
            waiting.result(timeout=20)


def test_a_run_that_ends_during_a_pause_fails_the_url_so_that_the_next_run_tries_it(server: ImageServer) -> None:
    server.answers |= {"/busy.jpg": status(503, Retry_After="200"), "/b.jpg": b"image"}
    limits = dataclasses.replace(QUICK, num_attempts=1)
    with Fetcher(connections=2, allow_private_hosts=True, limits=limits) as fetcher, ThreadPoolExecutor() as pool:
        with pytest.raises(FetchError, match="http_503"):
            fetcher.fetch(f"{server.url}/busy.jpg")
        waiting = pool.submit(fetcher.fetch, f"{server.url}/b.jpg")
        time.sleep(0.1)
        assert not waiting.done()
        fetcher.stop()
        with pytest.raises(FetchError, match=r"^host_pauses: until the run ended$") as raised:
            waiting.result(timeout=20)
    assert raised.value.is_retryable and server.requests["/b.jpg"] == 0


def test_a_host_that_asks_for_too_long_a_pause_is_left_alone(server: ImageServer) -> None:
    server.answers["/a.jpg"] = status(503, Retry_After="1000")
    with Fetcher(connections=2, allow_private_hosts=True) as fetcher:
        for name, reason in (("a", "http_503"), ("a", "host_pauses: for 1000 s"), ("b", "host_pauses: for 1000 s")):
            with pytest.raises(FetchError) as failure:
                fetcher.fetch(f"{server.url}/{name}.jpg")
            assert (str(failure.value), failure.value.is_retryable) == (reason, True)
    assert server.requests == {"/a.jpg": 1}


def test_nothing_is_sent_but_the_request(server: ImageServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password word\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    seen = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append({name.lower(): value for name, value in handler.headers.items()})
        send(handler, b"image", Set_Cookie="session=1; Path=/")

    server.answers["/a.jpg"] = answer
    with Fetcher(connections=1, allow_private_hosts=True) as fetcher:
        for _ in range(2):
            fetcher.fetch(f"{server.url}/a.jpg")
    request = {
        "host": server.url.removeprefix("http://"),
        "accept": "image/*",
        "accept-encoding": "identity",
        "user-agent": f"product-vqa/{product_vqa.__version__}",
    }
    assert seen == [request] * 2


ODD_PAUSES = [
    "soon", "-5", "1.5", "", "1e3", "Wed, 21 Oct 2026 07:28:00 -9223372036854775808", "Wed, 99 Oct 2026 07:28:00 GMT",
    "Wed, 21 Oct 99999999999 07:28:00 GMT", "Mon, 01 Jan 0001 00:00:00 +2359", "Fri, 31 Dec 9999 23:59:59 -2359",
    "GMT", "Wed, 21 Oct 2026", ",", "21 Oct", "\xe9", "²",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("pause", ODD_PAUSES)
def test_a_retry_after_that_says_nothing_sensible_does_not_end_the_run(server: ImageServer, pause: str) -> None:
    server.answers["/a.jpg"] = first_then(status(503, Retry_After=pause), b"image")
    limits = dataclasses.replace(QUICK, max_wait_s=4)
    with contextlib.suppress(FetchError):  # for a pause that is too long to be waited for
        assert fetch(f"{server.url}/a.jpg", limits=limits) == b"image"
    assert 1 <= server.requests["/a.jpg"] <= 2


@pytest.mark.slow
@given(
    value=st.text(max_size=60) | st.from_regex(r"\w{3}, \d+ Oct \d+ \d+:\d+:\d+ ([-+]\d{1,20}|GMT)", fullmatch=True)
)
def test_any_retry_after_is_a_number_of_seconds_or_none(value: str) -> None:
    seconds = parse_retry_after(value)
    assert seconds is None or seconds >= 0


def test_a_pause_of_very_many_digits_is_one_that_is_too_long(server: ImageServer) -> None:
    server.answers["/a.jpg"] = status(503, Retry_After="9" * 400)
    with pytest.raises(FetchError, match="http_503"):
        fetch(f"{server.url}/a.jpg")
    assert server.requests == {"/a.jpg": 1}


def test_retry_after_is_read_as_seconds_or_as_a_date() -> None:
    assert parse_retry_after("120") == 120
    assert parse_retry_after(None) is None
    assert parse_retry_after("soon") is None
    assert parse_retry_after(format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True)) == 0
    in_a_minute = parse_retry_after(format_datetime(datetime.now(UTC) + timedelta(minutes=1), usegmt=True))
    assert in_a_minute is not None and 57 < in_a_minute <= 60


def test_requests_to_one_host_keep_the_rate_and_so_do_redirects(server: ImageServer) -> None:
    """The moments are those of the server: a slow machine only makes the pauses longer."""
    moments: list[float] = []

    def timed(answer: Answer) -> Answer:
        def send_timed(handler: BaseHTTPRequestHandler) -> None:
            moments.append(time.monotonic())
            answer(handler)

        return send_timed

    server.answers |= {f"/{number}": timed(status(302, Location="/image")) for number in range(6)}
    server.answers["/image"] = timed(lambda handler: send(handler, b"image"))
    with (
        Fetcher(connections=4, allow_private_hosts=True, limits=FetchLimits(), requests_per_second=40) as fetcher,
        ThreadPoolExecutor(4) as pool,
    ):
        fetched = list(pool.map(lambda number: fetcher.fetch(f"{server.url}/{number}").data, range(6)))
    assert fetched == [b"image"] * 6 and len(moments) == 12
    assert max(moments) - min(moments) > 0.9 * 11 / 40


def test_the_wait_for_a_turn_ends_with_the_run(server: ImageServer) -> None:
    server.answers["/a.jpg"] = b"image"
    with Fetcher(connections=1, allow_private_hosts=True, limits=QUICK, requests_per_second=1e-6) as fetcher:
        assert fetcher.fetch(f"{server.url}/a.jpg").data == b"image"
        threading.Timer(0.2, fetcher.stop).start()
        with pytest.raises(FetchError, match="rate_limit: until the run ended") as raised:
            fetcher.fetch(f"{server.url}/a.jpg")
    assert raised.value.is_retryable and server.requests["/a.jpg"] == 1
