import contextlib
import dataclasses
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builder import connections
from dataset_builder.fetching import Fetcher, FetchError, FetchLimits, parse_retry_after
from tests.dataset_builder.image_server import (
    Answer,
    ImageServer,
    cut,
    drip,
    endless,
    first_then,
    packed,
    send,
    slowly,
    status,
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


def test_what_was_packed_unasked_is_unpacked(server: ImageServer) -> None:
    server.answers["/a.jpg"] = packed(b"image")
    assert fetch(f"{server.url}/a.jpg") == b"image"


def test_a_redirect_is_followed(server: ImageServer) -> None:
    server.answers["/old.jpg"] = status(301, Location="/new.jpg")
    server.answers["/new.jpg"] = b"image"
    assert fetch(f"{server.url}/old.jpg") == b"image"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "ftp://shop.example/a.jpg",
        "file:///etc/hostname",
        "http://",
        "http://shop.example:port/a.jpg",
        "http://[::1/a.jpg",
        "http://" + "a" * 64 + ".example/",
        "http://user:word@shop.example/a.jpg",
        "http://shop.example/a\nb.jpg",
        "http://shop.example/a\rHost: other",
        "http://shop.example/\0.jpg",
        "http://shop.example/\x1b[2J",
        "http://shop.example/\ud800.jpg",
        "http://shop.example/\u2028.jpg",
        "http://shop.example/" + "a" * 1_000_000,
        "a" * 1_000_000,
    ],
)
def test_an_invalid_url_is_not_fetched(url: str) -> None:
    with pytest.raises(FetchError, match=r"^bad_link") as failure:
        fetch(url)
    assert str(failure.value).isprintable() and len(str(failure.value)) <= 300


def test_a_port_where_nobody_listens_is_tried_again_and_given_up() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(FetchError, match=r"^connection: NewConnectionError"):
            fetch(f"http://127.0.0.1:{unused.getsockname()[1]}/a.jpg")


def test_private_hosts_are_refused_before_any_request(server: ImageServer) -> None:
    server.answers["/a.jpg"] = b"image"
    for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
        with pytest.raises(FetchError, match=r"^private_address"):
            fetch(server.url.replace("127.0.0.1", host) + "/a.jpg", allow_private_hosts=False)
    assert not server.requests


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


def test_retry_after_is_obeyed_by_every_url_of_the_host(server: ImageServer) -> None:
    asked_at = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked_at.append(time.monotonic())
        if len(asked_at) == 1:
            send(handler, b"busy", status=429, Retry_After="1")
        else:
            send(handler, b"image")

    server.answers |= {"/a.jpg": answer, "/b.jpg": answer}
    with (
        Fetcher(connections=2, allow_private_hosts=True, limits=FetchLimits(backoff_s=3)) as fetcher,
        ThreadPoolExecutor() as pool,
    ):
        first = pool.submit(fetcher.fetch, f"{server.url}/a.jpg")
        deadline = time.monotonic() + 10
        while not fetcher._pauses and time.monotonic() < deadline:
            time.sleep(0.01)
        assert fetcher._pauses
        assert fetcher.fetch(f"{server.url}/b.jpg") == (b"image", 200, 1)
        assert first.result(timeout=20) == (b"image", 200, 2)
    assert len(asked_at) == 3 and min(asked_at[1:]) - asked_at[0] >= 0.95


def test_the_pauses_of_a_host_add_up_until_it_answers(server: ImageServer) -> None:
    server.answers |= {"/busy.jpg": status(503, Retry_After="1"), "/good.jpg": b"image"}
    limits = dataclasses.replace(QUICK, num_attempts=3, max_wait_s=1.5)
    with Fetcher(connections=2, allow_private_hosts=True, limits=limits) as fetcher:
        for reason in ("http_503", "host_pauses: for 2 s", "host_pauses: for 2 s"):
            with pytest.raises(FetchError, match=reason):
                fetcher.fetch(f"{server.url}/busy.jpg")
        assert server.requests == {"/busy.jpg": 2}
    with Fetcher(
        connections=2, allow_private_hosts=True, limits=dataclasses.replace(limits, num_attempts=1)
    ) as fetcher:
        for _ in range(2):
            with pytest.raises(FetchError, match="http_503"):
                fetcher.fetch(f"{server.url}/busy.jpg")
            assert fetcher.fetch(f"{server.url}/good.jpg").data == b"image"


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
        seen.append({name.lower() for name in handler.headers})
        send(handler, b"image", Set_Cookie="session=1; Path=/")

    server.answers["/a.jpg"] = answer
    with Fetcher(connections=1, allow_private_hosts=True) as fetcher:
        for _ in range(2):
            fetcher.fetch(f"{server.url}/a.jpg")
    assert seen == [{"host", "accept", "accept-encoding", "user-agent"}] * 2


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
