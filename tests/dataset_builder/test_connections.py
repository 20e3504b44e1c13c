"""Each attempt ends at its deadline, whichever part of the answer is slow, and all end when the run does."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dataset_builder.connections import MAX_HEAD_BYTES
from dataset_builder.fetching import Fetcher, FetchError, FetchLimits
from tests.dataset_builder.image_server import ImageServer
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


@contextlib.contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port whose first connection is given to a function."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    answer(connection)

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]


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


@pytest.mark.parametrize(("num_bytes", "is_taken"), [(MAX_HEAD_BYTES - 1000, True), (MAX_HEAD_BYTES + 1000, False)])
def test_the_head_of_an_answer_is_limited(num_bytes: int, is_taken: bool) -> None:
    header = b"X: " + b"y" * 1000 + b"\r\n"
    head = SIZED + header * (num_bytes // len(header)) + b"\r\n"
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


def test_connections_stay_open(server: ImageServer) -> None:
    server.answers = {f"/{number}.jpg": IMAGE for number in range(20)}
    with Fetcher(connections=1, allow_private_hosts=True) as fetcher:
        for number in range(20):
            assert fetcher.fetch(f"{server.url}/{number}.jpg").data == IMAGE
        (pool,) = [fetcher._pools.pools[key] for key in fetcher._pools.pools.keys()]  # noqa: SIM118
        assert pool.num_connections == 1
