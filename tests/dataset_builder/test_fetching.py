import ipaddress
import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from dataset_builder import fetching
from dataset_builder.fetching import Fetcher, FetchError, FetchLimits
from tests.dataset_builder.conftest import PictureServer, cut, first_then, send, slowly

QUICK = FetchLimits(
    connect_timeout_s=1, read_timeout_s=0.3, whole_timeout_s=0.6, num_attempts=3, backoff_s=0.01, max_bytes=1000
)


def fetch(link: str, *, allow_private_hosts: bool = True, limits: FetchLimits = QUICK) -> bytes:
    with Fetcher(connections=2, allow_private_hosts=allow_private_hosts, limits=limits) as fetcher:
        return fetcher.fetch(link)


def status(code: int, **headers: str):
    return lambda handler: send(handler, b"no", status=code, **headers)


def drip(handler) -> None:
    """Never silent for long, and never done."""
    handler.send_response(200)
    handler.send_header("Content-Length", "900")
    handler.end_headers()
    for _ in range(30):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.1)


PASSING = [status(500), status(503, Retry_After="0"), status(429), status(408), cut, slowly(b"late", pause_s=0.5)]


@pytest.mark.parametrize("trouble", PASSING, ids=["500", "503", "429", "408", "cut", "silence"])
def test_a_passing_trouble_is_tried_again(server: PictureServer, trouble):
    server.answers["/a.jpg"] = first_then(trouble, b"picture")
    assert fetch(f"{server.url}/a.jpg") == b"picture"
    assert server.requests["/a.jpg"] == 2


LASTING = [
    (status(404), 1, "http_404"),
    (status(410), 1, "http_410"),
    (status(403), 1, "http_403"),
    (status(304), 1, "http_304"),
    (b"x" * 1001, 1, "too_many_bytes: more than 1000"),
    (status(500), 3, "http_500"),
    (cut, 3, "connection: RemoteProtocolError"),
    (slowly(b"late", pause_s=0.5), 3, "timeout: ReadTimeout"),
    (drip, 3, "timeout: not complete after 0.6 s"),
    (status(302, Location="/a.jpg"), QUICK.max_redirects + 1, "bad_answer: TooManyRedirects"),
    (status(302, Location="file:///etc/hostname"), 1, "bad_link"),
]


@pytest.mark.parametrize(("answer", "num_requests", "reason"), LASTING, ids=[case[-1] for case in LASTING])
def test_a_lasting_trouble_ends_with_its_reason(server: PictureServer, answer, num_requests: int, reason: str):
    server.answers["/a.jpg"] = answer
    with pytest.raises(FetchError) as failure:
        fetch(f"{server.url}/a.jpg")
    assert str(failure.value).startswith(reason)
    assert server.requests["/a.jpg"] == num_requests


def test_a_redirect_is_followed(server: PictureServer):
    server.answers["/old.jpg"] = status(301, Location="/new.jpg")
    server.answers["/new.jpg"] = b"picture"
    assert fetch(f"{server.url}/old.jpg") == b"picture"


@pytest.mark.parametrize(
    "link", ["", "x", "ftp://shop.example/a.jpg", "file:///etc/hostname", "http://", "http://shop.example:port/a.jpg"]
)
def test_a_link_that_is_none_is_not_followed(link: str):
    with pytest.raises(FetchError, match=r"^bad_link"):
        fetch(link)


def test_a_port_where_nobody_listens_is_tried_again_and_given_up():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(FetchError, match=r"^connection: ConnectError"):
            fetch(f"http://127.0.0.1:{unused.getsockname()[1]}/a.jpg")


def test_private_hosts_are_refused_before_any_request(server: PictureServer):
    server.answers["/a.jpg"] = b"picture"
    for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
        with pytest.raises(FetchError, match=r"^private_address"):
            fetch(server.url.replace("127.0.0.1", host) + "/a.jpg", allow_private_hosts=False)
    assert not server.requests


def test_a_public_name_that_leads_to_a_private_address_is_refused(server: PictureServer, monkeypatch):
    monkeypatch.setattr(fetching.socket, "getaddrinfo", lambda host, port, **_: [(2, 1, 6, "", ("10.1.2.3", port))])
    with pytest.raises(FetchError, match=r"^private_address: shop\.example is 10\.1\.2\.3"):
        fetch("http://shop.example/a.jpg", allow_private_hosts=False)


def test_a_redirect_to_a_private_host_is_refused(server: PictureServer, monkeypatch):
    """The first host passes for public (its address alone is let through), the second does not."""
    server.answers["/a.jpg"] = status(302, Location=server.url.replace("127.0.0.1", "127.0.0.2") + "/secret.jpg")
    server.answers["/secret.jpg"] = b"secret"
    monkeypatch.setattr(fetching, "_is_public", lambda address: address == "127.0.0.1")
    with pytest.raises(FetchError, match=r"^private_address: 127\.0\.0\.2"):
        fetch(f"{server.url}/a.jpg", allow_private_hosts=False)
    assert server.requests == {"/a.jpg": 1}


ADDRESSES = [
    ("8.8.8.8", True), ("2001:4860:4860::8888", True),
    ("127.0.0.1", False), ("10.0.0.1", False), ("172.16.0.1", False), ("192.168.1.1", False),
    ("169.254.169.254", False),
    ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False), ("255.255.255.255", False),
    ("::1", False), ("::", False), ("fe80::1%eth0", False), ("fc00::1", False), ("ff02::1", False),
    ("::ffff:10.0.0.1", False), ("2002:7f00:1::", False), ("::ffff:8.8.8.8", True),
]  # fmt: skip


@pytest.mark.parametrize(("address", "is_public"), ADDRESSES)
def test_only_addresses_of_the_internet_are_public(address: str, is_public: bool):
    assert ipaddress.ip_address(address.partition("%")[0])
    assert fetching._is_public(address) == is_public


def test_retry_after_is_obeyed_within_a_bound(server: PictureServer):
    server.answers["/a.jpg"] = first_then(status(429, Retry_After="1000"), b"picture")
    start = time.monotonic()
    limits = FetchLimits(num_attempts=2, backoff_s=30, max_wait_s=0.4)
    assert fetch(f"{server.url}/a.jpg", limits=limits) == b"picture"
    assert 0.4 <= time.monotonic() - start < 5


def test_retry_after_is_read_as_seconds_or_as_a_date():
    assert fetching._retry_after_s("120") == 120
    assert fetching._retry_after_s(None) is None
    assert fetching._retry_after_s("soon") is None
    assert fetching._retry_after_s(format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True)) == 0
    in_a_minute = fetching._retry_after_s(format_datetime(datetime.now(UTC) + timedelta(minutes=1), usegmt=True))
    assert 57 < in_a_minute <= 60
