"""Each attempt ends at its deadline, whichever part of the answer is slow, and all end when the run does."""

import dataclasses
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import certifi
import pytest

from product_vqa.http.fetching import Fetcher, FetchError, FetchLimits, is_unreached
from tests.commands import ROOT
from tests.dataset_builder.image_server import ImageServer, closed_port, drip, full_port, listening, send, slowly
from tests.hostile.server_answers import IMAGE, SIZED, SLOW, HostileAnswer, HostileServer, hostile_answers

# No timeout of a socket helps here: a piece comes every 50 ms.
LIMITS = FetchLimits(connect_timeout_s=30, read_timeout_s=30, total_timeout_s=0.4, num_attempts=1)
PATIENT = FetchLimits(connect_timeout_s=60, read_timeout_s=60, total_timeout_s=60, num_attempts=1)


def slow_answers() -> list[HostileAnswer]:
    answers = [answer for answer in hostile_answers() if answer.kind == "slow" and answer.name != "early_hints"]
    assert len(answers) == len(SLOW) - 1  # http.client takes 103 for the final status
    return answers


def fail_all(fetcher: Fetcher, urls: list[str]) -> dict[str, tuple[str, float]]:
    """Fetch all URLs at once, and return the reason of each, and the seconds that it took."""

    def fail(url: str) -> tuple[str, float]:
        start = time.monotonic()
        with pytest.raises(FetchError) as failure:
            fetcher.fetch(url)
        return str(failure.value), time.monotonic() - start

    with ThreadPoolExecutor(len(urls)) as pool:
        return dict(zip(urls, pool.map(fail, urls), strict=True))


def test_the_deadline_of_an_open_connection_is_that_of_its_present_attempt(server: ImageServer) -> None:
    server.answers = {"/a.jpg": IMAGE, "/slow.jpg": drip}
    limits = dataclasses.replace(LIMITS, total_timeout_s=0.25)
    with Fetcher(connections=1, allow_private_hosts=True, limits=limits) as fetcher:
        assert fetcher.fetch(f"{server.url}/a.jpg").data == IMAGE
        time.sleep(0.38)  # until after its deadline
        ((reason, seconds),) = fail_all(fetcher, [f"{server.url}/slow.jpg"]).values()
    assert reason == "timeout: not complete after 0.25 s"
    assert seconds < 1.3
    assert len(server.clients) == 1


def test_each_part_of_an_answer_that_comes_slowly_ends_at_the_deadline() -> None:
    with (
        HostileServer(slow_answers()) as server,
        Fetcher(connections=32, allow_private_hosts=True, limits=LIMITS) as fetcher,
    ):
        failures = fail_all(fetcher, list(server.urls.values()))
        for name, url in server.urls.items():
            reason, seconds = failures[url]
            assert (name, reason) == (name, "timeout: not complete after 0.4 s")
            assert 0.3 < seconds < 1.4, (name, seconds)


def drip_tls(connection: socket.socket) -> None:
    """A TLS record of 16 kB, byte by byte."""
    for byte in b"\x16\x03\x03\x40\x00" + b"\x02\x00\x3f\xfc" + bytes(16_380):
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def test_a_tls_handshake_ends_at_the_deadline() -> None:
    with (
        listening(drip_tls) as port,
        Fetcher(connections=1, allow_private_hosts=True, limits=LIMITS) as fetcher,
    ):
        ((reason, seconds),) = fail_all(fetcher, [f"https://127.0.0.1:{port}/a.jpg"]).values()
    assert reason == "timeout: not complete after 0.4 s"
    assert 0.3 < seconds < 1.4


def test_a_name_that_is_looked_up_slowly_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(5))
    with Fetcher(connections=1, allow_private_hosts=True, limits=LIMITS) as fetcher:
        ((reason, seconds),) = fail_all(fetcher, ["http://shop.example/a.jpg"]).values()
    assert reason == "timeout: not complete after 0.4 s"
    assert seconds < 1.4


def test_redirects_share_one_deadline() -> None:
    """Each takes 0.15 s: the third one is not waited for."""
    head = b"HTTP/1.1 302 Found\r\nLocation: /hostile.jpg\r\nContent-Length: 0\r\n\r\n"
    answer = HostileAnswer("redirect", "to_itself", (b"", head, b""), pause_s=0.15)
    with (
        HostileServer([answer]) as server,
        Fetcher(connections=1, allow_private_hosts=True, limits=LIMITS) as fetcher,
    ):
        ((reason, seconds),) = fail_all(fetcher, list(server.urls.values())).values()
    assert reason == "timeout: not complete after 0.4 s"
    assert seconds < 1.4


def test_all_attempts_end_when_the_run_does() -> None:
    answers = slow_answers()
    with HostileServer(answers) as server:
        fetcher = Fetcher(connections=32, allow_private_hosts=True, limits=PATIENT)
        threading.Timer(0.3, fetcher.stop).start()
        start = time.monotonic()
        failures = fail_all(fetcher, list(server.urls.values()))
        assert time.monotonic() - start < 1.5
        assert len(failures) == len(answers) == 13
        with pytest.raises(FetchError):
            fetcher.fetch(server.good_urls[0])


def test_what_was_cut_by_the_deadline_does_not_count_as_complete() -> None:
    """Without a length, the end of a connection is the end of the image."""
    answer = HostileAnswer("cut", "until_closed", (b"HTTP/1.1 200 OK\r\n\r\n" + IMAGE, b""), 1000, 0.1)
    with (
        HostileServer([answer]) as server,
        Fetcher(connections=1, allow_private_hosts=True, limits=LIMITS) as fetcher,
        pytest.raises(FetchError, match="timeout: not complete"),
    ):
        fetcher.fetch(*server.urls.values())


def head_of(num_bytes: int) -> bytes:
    """A head of so many bytes, until the empty line at its end."""
    header = b"X: " + b"y" * 995 + b"\r\n"
    num_missing = num_bytes - len(SIZED) - len(b"\r\n")
    num_whole = num_missing // 1000 - 1
    last = b"X: " + b"y" * (num_missing - 1000 * num_whole - 5) + b"\r\n"
    return SIZED + header * num_whole + last + b"\r\n"


@pytest.mark.parametrize(("num_bytes", "is_taken"), [(65_536, True), (65_537, False)])
def test_the_head_of_an_answer_is_limited(num_bytes: int, is_taken: bool) -> None:
    head = head_of(num_bytes)
    assert len(head) == num_bytes
    with (
        HostileServer([HostileAnswer("head", "long", (head + IMAGE,))]) as server,
        Fetcher(connections=1, allow_private_hosts=True, limits=LIMITS) as fetcher,
    ):
        (url,) = server.urls.values()
        if is_taken:
            assert fetcher.fetch(url).data == IMAGE
        else:
            with pytest.raises(FetchError, match="ProtocolError"):
                fetcher.fetch(url)


def test_a_line_of_a_head_is_read_until_its_limit_only() -> None:
    answer = HostileAnswer("head", "endless_line", (b"HTTP/1.1 200 " + b"O" * 66_000, b"O"), 100, 0.05)
    with (
        HostileServer([answer]) as server,
        Fetcher(connections=1, allow_private_hosts=True, limits=LIMITS) as fetcher,
        pytest.raises(FetchError, match=r"^connection: ProtocolError"),  # and not at the deadline
    ):
        fetcher.fetch(*server.urls.values())


def test_another_protocol_is_a_passing_trouble() -> None:
    with (
        HostileServer([HostileAnswer("status_line", "smtp", (b"220 mail ESMTP\r\n",))]) as server,
        Fetcher(connections=1, allow_private_hosts=True, limits=LIMITS) as fetcher,
        pytest.raises(FetchError, match=r"^connection: ProtocolError") as failure,
    ):
        fetcher.fetch(*server.urls.values())
    assert failure.value.is_retryable


def test_connections_stay_open(server: ImageServer) -> None:
    server.answers = {f"/{number}.jpg": IMAGE for number in range(20)}
    with Fetcher(connections=1, allow_private_hosts=True) as fetcher:
        for number in range(20):
            assert fetcher.fetch(f"{server.url}/{number}.jpg").data == IMAGE
    assert len(server.clients) == 1


def test_each_thread_has_a_connection_that_stays_open(server: ImageServer) -> None:
    all_asked = threading.Barrier(4)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        all_asked.wait(timeout=5)
        send(handler, IMAGE)

    server.answers = {"/a.jpg": answer}
    with Fetcher(connections=4, allow_private_hosts=True) as fetcher, ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            list(pool.map(fetcher.fetch, [f"{server.url}/a.jpg"] * 4))
    assert len(server.clients) == 4


def test_connections_to_as_many_hosts_stay_open(server: ImageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each host has two addresses. Nobody listens at the first one."""
    server.answers = {"/a.jpg": IMAGE}
    addresses = [("127.0.0.1", int(url.rpartition(":")[2])) for url in (closed_port(), server.url)]
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", one) for one in addresses]
    )
    with Fetcher(connections=12, allow_private_hosts=True, limits=LIMITS) as fetcher:
        for _ in range(2):
            for number in range(12):
                assert fetcher.fetch(f"http://shop-{number}.example/a.jpg").data == IMAGE
    assert len(server.clients) == 12


def test_a_request_is_sent_once_per_attempt(server: ImageServer) -> None:
    def hang_up(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True

    server.answers = {"/a.jpg": hang_up}
    limits = dataclasses.replace(LIMITS, num_attempts=2, backoff_s=0)
    with Fetcher(connections=1, allow_private_hosts=True, limits=limits) as fetcher:
        assert list(fail_all(fetcher, [f"{server.url}/a.jpg"]))
    assert server.requests == {"/a.jpg": 2}


def test_a_server_is_waited_for_until_the_timeouts(server: ImageServer) -> None:
    server.answers = {"/slow.jpg": slowly(IMAGE, pause_s=0.8)}
    limits = dataclasses.replace(LIMITS, connect_timeout_s=0.1, read_timeout_s=0.2, total_timeout_s=10)
    with full_port() as port, Fetcher(connections=2, allow_private_hosts=True, limits=limits) as fetcher:
        urls = [f"http://127.0.0.1:{port}/a.jpg", f"{server.url}/slow.jpg"]
        (no_connection, connect_s), (no_answer, read_s) = fail_all(fetcher, urls).values()
    assert no_connection == "timeout: ConnectTimeoutError: Connection to 127.0.0.1 timed out. (connect timeout=0.1)"
    assert no_answer.startswith("timeout: ReadTimeoutError: ") and no_answer.endswith("(read timeout=0.2)")
    assert connect_s < 0.7 and read_s < 0.7
    assert is_unreached(no_connection) and not is_unreached(no_answer)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            socket.gaierror(-2, "Name or service not known"),
            r"^connection: NameResolutionError: .*shop\.example.*: Failed to resolve 'shop\.example' \(.*not known\)$",
        ),
        (
            OSError(24, "Too many open files"),
            r"^connection: NewConnectionError: .*shop\.example.*: no address \(.*Too many open files\)$",
        ),
        (
            TimeoutError(110, "Connection timed out"),
            r"^connection: NewConnectionError: .*shop\.example.*: no address \(.*Connection timed out\)$",
        ),
        ([], r"^connection: NewConnectionError: .*shop\.example.*: Failed to establish .*: no address$"),
    ],
)
def test_a_look_up_that_fails_gives_its_reason(
    monkeypatch: pytest.MonkeyPatch, answer: OSError | list[object], reason: str
) -> None:
    def look_up(*_: object, **__: object) -> list[object]:
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with (
        Fetcher(connections=1, allow_private_hosts=True, limits=LIMITS) as fetcher,
        pytest.raises(FetchError, match=reason) as failure,
    ):
        fetcher.fetch("http://shop.example/a.jpg")
    assert failure.value.is_retryable and failure.value.http_status is None
    assert is_unreached(str(failure.value))


def test_a_refused_connection_gives_its_reason() -> None:
    with (
        Fetcher(connections=1, allow_private_hosts=True, limits=LIMITS) as fetcher,
        pytest.raises(
            FetchError, match=r"^connection: NewConnectionError: .*127\.0\.0\.1.*: .*Connection refused$"
        ) as failure,
    ):
        fetcher.fetch(f"{closed_port()}/a.jpg")
    assert is_unreached(str(failure.value))


def test_a_label_that_is_too_long_is_named() -> None:
    name = "a" * 64 + ".example"
    with (
        Fetcher(connections=1, allow_private_hosts=True, limits=LIMITS) as fetcher,
        pytest.raises(FetchError) as failure,
    ):
        fetcher.fetch(f"http://{name}/a.jpg")
    assert str(failure.value) == f"bad_link: Failed to parse: '{name}', label empty or too long"


def test_a_run_ends_while_names_are_looked_up(server: ImageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One before there is any connection, one after that of a redirect was closed."""

    def redirect(handler: BaseHTTPRequestHandler) -> None:
        send(handler, b"", status=302, Location="http://shop.example/a.jpg", Connection="close")

    getaddrinfo = socket.getaddrinfo

    def look_up(host: str, *arguments: object, **options: object) -> object:
        if host == "shop.example":
            time.sleep(2)
        return getaddrinfo(host, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    server.answers = {"/a.jpg": redirect}
    fetcher = Fetcher(connections=2, allow_private_hosts=True, limits=PATIENT)
    with ThreadPoolExecutor(1) as pool:
        failing = pool.submit(fail_all, fetcher, ["http://shop.example/a.jpg", f"{server.url}/a.jpg"])
        time.sleep(0.2)
        fetcher.stop()
        failures = failing.result(timeout=10)
    assert all(seconds < 1.2 for _, seconds in failures.values()) and len(failures) == 2


UNCLOSED = """
import socket, time
from product_vqa.http.fetching import Fetcher, FetchError, FetchLimits, is_unreached
socket.getaddrinfo = lambda *_, **__: time.sleep(60)
limits = FetchLimits(total_timeout_s=0.1, num_attempts=1)
try:
    Fetcher(connections=1, allow_private_hosts=True, limits=limits).fetch("http://shop.example/a.jpg")
except FetchError as error:
    print(error)
"""


def test_no_thread_keeps_a_process_from_ending() -> None:
    run = subprocess.run([sys.executable, "-c", UNCLOSED], cwd=ROOT, capture_output=True, text=True, timeout=10)
    assert (run.stdout, run.stderr, run.returncode) == ("timeout: not complete after 0.1 s\n", "", 0)


@pytest.mark.parametrize("is_known", [True, False])
def test_only_certificates_of_certifis_authorities_are_trusted(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))  # of OpenSSL, where the defaults are read
    if is_known:
        monkeypatch.setattr(certifi, "where", lambda: str(certificate[0]))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)

    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as encrypted:
            encrypted.recv(4096)
            encrypted.sendall(SIZED + b"\r\n" + IMAGE)

    with listening(answer) as port, Fetcher(connections=1, allow_private_hosts=True, limits=PATIENT) as fetcher:
        if is_known:
            assert fetcher.fetch(f"https://127.0.0.1:{port}/a.jpg").data == IMAGE
        else:
            with pytest.raises(FetchError, match=r"^certificate: 127\.0\.0\.1: self-signed certificate$"):
                fetcher.fetch(f"https://127.0.0.1:{port}/a.jpg")
