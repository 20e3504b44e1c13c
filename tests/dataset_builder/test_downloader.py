import csv
import hashlib
import random
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from dataset_builder import network
from dataset_builder.downloader import download, map_unordered
from dataset_builder.image_preparation import prepare_image
from dataset_builder.image_store import ImageStore, Status
from dataset_builder.options import FetchOptions
from product_vqa.errors import InputError
from product_vqa.http import connections
from product_vqa.http.fetching import FetchLimits
from tests.dataset_builder.files import (
    huge_png,
    jpeg,
)
from tests.dataset_builder.image_server import (
    ImageServer,
    closed_port,
    cut,
    drip,
    endless,
    first_then,
    length,
    packed,
    send,
    slowly,
    status,
)

OPTIONS = FetchOptions(connections=4, allow_private_hosts=True)
QUICK_RETRIES = FetchLimits(backoff_s=0.2)


def test_every_url_is_fetched_once_and_every_failure_has_its_reason(server: ImageServer, tmp_path: Path) -> None:
    server.answers |= {
        "/good.jpg": jpeg(1),
        "/twin.jpg": jpeg(1),
        "/shaky.jpg": first_then(lambda handler: send(handler, b"busy", status=500), jpeg(2)),
        "/page.jpg": b"<html>Robot check</html>",
        "/short.jpg": jpeg(3)[:-200],
        "/cut.jpg": first_then(cut, jpeg(4)),
    }
    names = ["good", "twin", "gone", "shaky", "page", "short", "cut"]
    urls = [f"{server.url}/{name}.jpg" for name in names]
    store = ImageStore(tmp_path / "store")

    assert download(store, urls, OPTIONS) == {"http_404": 1, "not_a_picture": 1, "image_unreadable": 1}
    assert store.read(urls[0]) == store.read(urls[1]) == jpeg(1)
    assert store.read(urls[3]) == jpeg(2)
    assert store.read(urls[6]) == jpeg(4)
    digests = {hashlib.sha256(jpeg(seed)).hexdigest() for seed in (1, 2, 4)}
    assert {file.name for file in (tmp_path / "store" / "files").glob("*/*")} == digests
    with (tmp_path / "store" / "failed.csv").open(newline="") as stream:
        failed = {row["image_link"]: row["reason"] for row in csv.DictReader(stream)}
    assert set(failed) == {urls[2], urls[4], urls[5]}
    assert failed[urls[5]].startswith("image_unreadable: OSError: image file is truncated")
    states = [store.state(url) for url in urls]
    assert [state.status for state in states] == [
        "stored", "stored", "refused", "stored", "refused", "refused", "stored",
    ]  # fmt: skip
    assert [state.http_status for state in states] == [200, 200, 404, 200, 200, 200, 200]
    assert [state.tries for state in states] == [1, 1, 1, 2, 1, 1, 2]
    assert (states[0].num_bytes, states[0].width, states[0].height) == (len(jpeg(1)), 48, 32)
    assert states[0].phash == states[1].phash != states[3].phash
    assert states[3].seconds >= 0.25  # it waited
    assert all(state.finished_at.startswith("20") for state in states)

    requests = server.requests.copy()
    assert requests == {f"/{name}.jpg": 2 if name in ("shaky", "cut") else 1 for name in names}
    download(store, urls, OPTIONS)
    assert server.requests == requests  # neither the stored nor the failed


def test_what_failed_is_tried_again_when_asked(server: ImageServer, tmp_path: Path) -> None:
    urls = [f"{server.url}/{name}.jpg" for name in "ab"]
    server.answers["/a.jpg"] = jpeg(1)
    store = ImageStore(tmp_path)
    before = store.fingerprint(urls)
    server.answers["/b.jpg"] = lambda handler: send(handler, b"go away", status=403)
    download(store, urls, OPTIONS)
    server.answers["/b.jpg"] = jpeg(2)
    first = store.fingerprint(urls)
    assert download(store, urls, OPTIONS) == {"http_403": 1}
    assert server.requests == {"/a.jpg": 1, "/b.jpg": 1}
    again = FetchOptions(connections=4, allow_private_hosts=True, retry_failed=True)
    assert not download(store, urls, again)
    assert server.requests == {"/a.jpg": 1, "/b.jpg": 2}
    assert len({before, first, store.fingerprint(urls)}) == 3
    assert (tmp_path / "failed.csv").read_text().splitlines() == [
        "image_link,reason,status,http_status,tries,seconds,finished_at"
    ]


def test_what_cannot_succeed_is_not_tried_again(server: ImageServer, tmp_path: Path) -> None:
    server.answers |= {"/page.jpg": b"<html>", "/gone.jpg": lambda handler: send(handler, b"", status=410)}
    urls = [f"{server.url}/page.jpg", f"{server.url}/gone.jpg", "ftp://shop.example/a.jpg"]
    store = ImageStore(tmp_path)
    again = FetchOptions(connections=4, allow_private_hosts=True, retry_failed=True)
    for options in (OPTIONS, again, again):
        assert download(store, urls, options) == {"not_a_picture": 1, "http_410": 1, "bad_link": 1}
    assert server.requests == {"/page.jpg": 1, "/gone.jpg": 1}


@pytest.mark.slow
def test_a_server_with_every_fault_leaves_every_url_with_its_reason(
    server: ImageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One run over all faults but those of time. Complete images arrive unchanged."""
    good = {f"/good{number}.jpg": jpeg(number, size=(500, 300)) for number in range(20)}
    bomb = packed(bytes(64 * 1024**2))
    whole = jpeg(50)
    answers: dict[str, tuple[Any, str, str, int | None, int]] = {
        "/404.jpg": (status(404), "refused", "http_404", 404, 1),
        "/410.jpg": (status(410), "refused", "http_410", 410, 1),
        "/403.jpg": (status(403), "failed", "http_403", 403, 1),
        "/429.jpg": (first_then(status(429, Retry_After="1"), whole), "stored", "", 200, 2),
        "/500.jpg": (first_then(status(500), whole), "stored", "", 200, 2),
        "/always500.jpg": (status(500), "failed", "http_500", 500, 2),
        "/cut.jpg": (cut, "failed", "connection: ProtocolError", 200, 2),
        "/truncated.jpg": (whole[:-300], "refused", "image_unreadable: OSError", 200, 1),
        "/html.jpg": (b"<!DOCTYPE html><title>Robot check</title>", "refused", "not_a_picture", 200, 1),
        "/shorter.jpg": (length(whole, 300), "refused", "image_unreadable", 200, 1),
        "/longer.jpg": (length(whole, len(whole) + 9), "failed", "connection: ProtocolError", 200, 2),
        "/loop.jpg": (status(302, Location="/loop.jpg"), "refused", "bad_answer: more than 5", 302, 1),
        "/metadata.jpg": (
            status(302, Location="http://169.254.169.254/latest/meta-data"),
            "failed", "private_address: 169.254.169.254", 302, 1,
        ),
        "/huge.png": (huge_png(50_000, 50_000), "refused", "too_many_pixels", 200, 1),
        "/bomb.jpg": (bomb, "refused", "too_many_bytes", 200, 1),
        "/endless.jpg": (endless, "refused", "too_many_bytes", 200, 1),
    }  # fmt: skip
    server.answers |= good | {path: answer for path, (answer, *_) in answers.items()}
    urls = [server.url + path for path in [*good, *answers]]
    random.Random(0).shuffle(urls)
    # The server itself is at a private address. The option would allow it, but every other private address as well.
    is_public = connections.is_public_address
    monkeypatch.setattr(connections, "is_public_address", lambda address: address == "127.0.0.1" or is_public(address))
    caplog.set_level("INFO")
    limits = FetchLimits(num_attempts=2, backoff_s=0.05, max_bytes=4 * 1024**2)
    store = ImageStore(tmp_path / "store")
    download(store, urls, FetchOptions(), limits=limits)
    assert "22 of 36 URLs have an image" in caplog.text
    checked = 0
    for path, (_, expected_status, reason, http_status, tries) in answers.items():
        state = store.state(server.url + path)
        assert state.reason.startswith(reason) and bool(state.reason) == bool(reason), (path, state)
        assert (state.status, state.http_status, state.tries) == (expected_status, http_status, tries), (path, state)
        assert server.requests[path] == (6 if path == "/loop.jpg" else state.tries), path
        checked += 1
    assert checked == 16
    for path, image in good.items():
        assert store.read(server.url + path) == prepare_image(image, image_size=448).data
        assert server.requests[path] == 1


def test_servers_that_are_too_slow_cost_only_their_urls(server: ImageServer, tmp_path: Path) -> None:
    server.answers = {"/good.jpg": jpeg(1), "/silence.jpg": slowly(jpeg(2), pause_s=5), "/drip.jpg": drip}
    limits = FetchLimits(read_timeout_s=1, total_timeout_s=2, num_attempts=2, backoff_s=0.05)
    store = ImageStore(tmp_path)
    urls = [server.url + path for path in server.answers]
    download(store, urls, FetchOptions(allow_private_hosts=True), limits=limits)
    good, *slow = map(store.state, urls)
    assert good.status == Status.STORED
    reasons = ("timeout: ReadTimeoutError", "timeout: not complete")
    for state, reason in zip(slow, reasons, strict=True):
        assert (state.status, state.reason.startswith(reason), state.tries) == (Status.FAILED, True, 2), state
        assert state.seconds < 15


NO_NETWORK: dict[str, Callable[[], str]] = {
    "refused": lambda: f"{closed_port()}/{{}}.jpg",
    "no_such_host": lambda: "http://no-such-host.invalid/{}.jpg",
    "many_hosts": lambda: "http://host{}.invalid/a.jpg",
    "no_route": lambda: "http://[100::1]/{}.jpg",
    "https": lambda: closed_port().replace("http:", "https:") + "/{}.jpg",
}


@pytest.mark.parametrize("trouble", NO_NETWORK)
def test_nothing_is_recorded_against_urls_that_no_network_led_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setattr(network, "MAX_CHECK_S", 0)
    pattern = NO_NETWORK[trouble]()
    urls = [pattern.format(number) for number in range(20)] + ["", "ftp://shop.example/a.jpg"]
    store = ImageStore(tmp_path)
    start = time.monotonic()
    with pytest.raises(InputError, match=r"no network: none of \d+ hosts can be reached"):
        download(store, urls, OPTIONS)
    assert time.monotonic() - start < 15
    assert set(store.failures(urls).values()) == {"not_fetched"}


@pytest.mark.faults
def test_a_network_that_breaks_off_stops_the_run_and_records_nothing_against_what_was_not_reached(
    server: ImageServer, tmp_path: Path
) -> None:
    urls = [f"{server.url}/{number}.jpg" for number in range(300)]
    server.answers = dict.fromkeys((f"/{number}.jpg" for number in range(300)), jpeg(1))
    server.answers["/27.jpg"] = status(404)

    def hang_up(handler: BaseHTTPRequestHandler) -> None:
        """The last answer: from here on no connection is accepted, and the open ones end."""
        server.answers = dict.fromkeys(server.answers, lambda handler: setattr(handler, "close_connection", True))
        server.close()
        send(handler, jpeg(2))

    server.answers["/235.jpg"] = hang_up
    store = ImageStore(tmp_path)
    with pytest.raises(InputError, match="no network: none of 1 hosts can be reached"):
        download(store, urls, FetchOptions(connections=32, allow_private_hosts=True), limits=QUICK_RETRIES)
    failures = store.failures(urls)
    assert failures.pop(urls[27]) == "http_404"
    assert set(failures.values()) == {"not_fetched"}
    assert 150 < len(failures) < 260


@pytest.mark.faults
def test_a_host_that_is_down_costs_its_own_urls_only_until_it_is_up_again(server: ImageServer, tmp_path: Path) -> None:
    reserved = socket.socket()  # bound, so that no other server gets the port, but it does not listen
    reserved.bind(("127.0.0.1", 0))
    port = reserved.getsockname()[1]
    # Sorted by host, the one that is down first: the other one is still asked, and says that there is a network.
    urls = [f"http://127.0.0.1:{port}/{number}.jpg" for number in range(400)]
    urls += [f"{server.url}/{number}.jpg" for number in range(9)]
    server.answers = dict.fromkeys((f"/{number}.jpg" for number in range(9)), jpeg(1))
    store = ImageStore(tmp_path)
    start = time.monotonic()
    options = FetchOptions(connections=16, allow_private_hosts=True)
    assert download(store, urls, options, limits=QUICK_RETRIES) == {"connection": 400}
    assert time.monotonic() - start < 15  # four attempts for each would take 35 s
    assert download(store, urls, OPTIONS, limits=QUICK_RETRIES) == {"connection": 400}
    requests = server.requests.copy()

    reserved.close()
    back = ImageServer(port=port)
    back.answers = dict.fromkeys((f"/{number}.jpg" for number in range(400)), jpeg(2))
    assert not download(store, urls, OPTIONS)
    back.close()
    assert server.requests == requests


def test_private_addresses_are_fetched_once_they_are_allowed(server: ImageServer, tmp_path: Path) -> None:
    server.answers["/a.jpg"] = jpeg(1)
    store = ImageStore(tmp_path)
    assert download(store, [f"{server.url}/a.jpg"], FetchOptions()) == {"private_address": 1}
    assert not download(store, [f"{server.url}/a.jpg"], OPTIONS)


@pytest.mark.slow
def test_a_login_page_in_place_of_every_image_stops_the_run(server: ImageServer, tmp_path: Path) -> None:
    page = b"<!DOCTYPE html><title>Welcome to the hotel</title>"
    server.answers = {f"/{number}.jpg": page for number in range(100)}
    urls = [f"{server.url}/{number}.jpg" for number in range(100)]
    store = ImageStore(tmp_path)
    with pytest.raises(
        InputError, match=r"none of the first 32 URLs returned an image .* the network may require a login"
    ):
        download(store, urls, OPTIONS)
    assert set(store.failures(urls).values()) == {"not_fetched"}
    server.answers = {f"/{number}.jpg": page if number % 10 else jpeg(number) for number in range(100)}
    assert download(store, urls, OPTIONS) == {"not_a_picture": 90}


@pytest.mark.slow
@pytest.mark.parametrize("full", ["temporary files", "table"])
def test_what_cannot_be_written_is_not_held_against_the_image(
    server: ImageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    server.answers = {f"/{number}.jpg": jpeg(number, size=(640, 640)) for number in range(60)}
    urls = [f"{server.url}/{number}.jpg" for number in range(60)]
    store, options = ImageStore(tmp_path), FetchOptions(connections=4, allow_private_hosts=True)
    if full == "table":
        (pages,) = store._state.row("PRAGMA page_count") or (0,)
        store._state.execute(f"PRAGMA max_page_count = {pages + 1}")
    else:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    message = r"^`image_store` \S+: cannot be written \(.*free some space there"
    with pytest.raises(InputError, match=message) as refusal:
        download(store, urls, options)
    assert "\n" not in str(refusal.value)
    assert set(store.failures(urls).values()) == {"not_fetched"}
    monkeypatch.undo()
    assert not download(ImageStore(tmp_path), urls, options)


def test_a_sample_decides_where_nothing_is_known_and_is_not_fetched_twice(server: ImageServer, tmp_path: Path) -> None:
    server.answers = {f"/{number}.jpg": jpeg(number) for number in range(40)}
    urls = [f"{server.url}/{number}.jpg" for number in range(40)]
    store, asked, options = ImageStore(tmp_path), [], FetchOptions(connections=4, allow_private_hosts=True)

    def check_space(num_images: int, sampled: list[int]) -> bool:
        asked.append((num_images, sorted(sampled)))
        if sampled and len(asked) == 2:
            raise InputError("too little disk space")
        return bool(sampled)

    with pytest.raises(InputError, match="too little disk space"):
        download(store, urls, options, check_space=check_space)
    expected = sorted(len(jpeg(number)) for number in range(0, 40, 4))
    assert asked == [(40, []), (40, expected)]
    assert server.requests.total() == 10
    assert not list(tmp_path.glob("files/*/*")) and set(store.failures(urls).values()) == {"not_fetched"}
    assert not download(store, urls, options, check_space=check_space)
    assert server.requests.total() == 50
    assert [store.read(url) for url in urls] == [jpeg(number) for number in range(40)]


def test_results_come_as_they_are_ready_with_few_items_submitted_at_a_time() -> None:
    submitted: list[int] = []

    def items() -> Iterator[int]:
        for item in range(10):
            submitted.append(item)
            yield item

    def slow_at_first(item: int) -> int:
        time.sleep(0.3 if item == 0 else 0)
        return item

    with ThreadPoolExecutor(2) as pool:
        results = map_unordered(pool, slow_at_first, items(), in_flight=3)
        first = next(results)
        assert first != 0 and len(submitted) == 4
        assert sorted([first, *results]) == list(range(10))


def test_an_error_of_the_function_ends_the_results_and_cancels_what_waits() -> None:
    called: list[int] = []

    def fail(item: int) -> None:
        called.append(item)
        raise ValueError(f"item {item}")

    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="item 0"):
        list(map_unordered(pool, fail, range(100), in_flight=50))
    assert len(called) < 50
