"""A network that wants a login never marks URLs as failed, and a host that refuses all is not taken for one."""

import io
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from PIL import Image

from dataset_builder.downloader import download
from dataset_builder.image_store import ImageStore
from dataset_builder.options import FetchOptions
from product_vqa.errors import InputError
from product_vqa.http.fetching import FetchLimits
from tests.dataset_builder.files import jpeg
from tests.dataset_builder.image_server import Answer, ImageServer, send, slowly, status

OPTIONS = FetchOptions(connections=8, allow_private_hosts=True)
LIMITS = FetchLimits(num_attempts=1, max_redirects=2)
FAULTS = pytest.mark.faults
PAGE = b"<!DOCTYPE html><title>Welcome to the hotel</title>"
PORTALS: dict[str, Answer | bytes] = {
    "page": PAGE,
    "401": status(401),
    "403": status(403),
    "407": status(407),
    "511": status(511),
    "503": status(503),
    "redirect to a page": status(302, Location="/login"),
    "redirect to itself": status(302, Location="/login?again"),
    "redirect without a target": status(302),
}


def slow_png() -> bytes:
    """An image that takes half a second to decode."""
    stream = io.BytesIO()
    Image.new("RGB", (7000, 5000)).save(stream, "PNG")
    return stream.getvalue()


def fill(server: ImageServer, answer: Answer | bytes, *, num_urls: int) -> list[str]:
    server.answers = dict.fromkeys((f"/{number}.jpg" for number in range(num_urls)), answer)
    server.answers |= {"/login": PAGE, "/login?again": status(302, Location="/login?again")}
    return [f"{server.url}/{number}.jpg" for number in range(num_urls)]


@pytest.mark.parametrize(
    "portal",
    [pytest.param(name, marks=() if name in ("403", "redirect to itself") else FAULTS) for name in PORTALS],
)
def test_a_network_that_wants_a_login_stops_the_run_and_marks_nothing(
    server: ImageServer, tmp_path: Path, portal: str
) -> None:
    urls = fill(server, PORTALS[portal], num_urls=200)
    store = ImageStore(tmp_path)
    with pytest.raises(InputError, match=r"none of the first 32 URLs returned an image .* may require a login"):
        download(store, urls, OPTIONS, limits=LIMITS)
    assert set(store.failures(urls).values()) == {"not_fetched"}
    num_asked = len([path for path in server.requests if path.endswith(".jpg")])
    assert num_asked <= 32 + 4 * OPTIONS.connections  # the others were on their way


def test_a_network_that_redirects_to_its_own_address_stops_the_run(
    server: ImageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("product_vqa.http.connections.is_public_address", lambda address: address == "127.0.0.1")
    urls = fill(server, status(302, Location="http://192.168.0.1/login"), num_urls=60)
    store = ImageStore(tmp_path)
    with pytest.raises(InputError, match=r"private_address: 192\.168\.0\.1 .* may require a login"):
        download(store, urls, FetchOptions(), limits=LIMITS)
    assert set(store.failures(urls).values()) == {"not_fetched"}


def test_one_511_is_a_network_that_wants_a_login(server: ImageServer, tmp_path: Path) -> None:
    urls = fill(server, status(511), num_urls=1)
    with pytest.raises(InputError, match="no network"):
        download(ImageStore(tmp_path), urls, OPTIONS, limits=LIMITS)
    assert ImageStore(tmp_path).failures(urls) == {urls[0]: "not_fetched"}


@pytest.mark.parametrize("portal", ["511", *(pytest.param(name, marks=FAULTS) for name in ("403", "page"))])
def test_a_login_that_ends_in_the_middle_of_a_run_stops_it(server: ImageServer, tmp_path: Path, portal: str) -> None:
    urls = fill(server, jpeg(1), num_urls=200)
    answer = PORTALS[portal]

    def end_login(handler: object) -> None:
        server.answers = dict.fromkeys(server.answers, answer)
        status(404)(handler)  # type: ignore[arg-type]

    server.answers["/54.jpg"] = end_login  # the tenth URL to be asked for
    store = ImageStore(tmp_path)
    options = FetchOptions(connections=1, allow_private_hosts=True)  # or others would be on their way
    with pytest.raises(InputError, match=r"none of the last 32 URLs returned an image"):
        download(store, urls, options, limits=LIMITS)
    failures = store.failures(urls)
    assert failures.pop(urls[54]) == "http_404"
    assert set(failures.values()) == {"not_fetched"} and len(failures) == 190


def test_an_image_that_was_fetched_before_a_login_ended_proves_nothing_about_later_requests(
    server: ImageServer, tmp_path: Path
) -> None:
    """Its outcome comes late, as decoding takes time."""
    urls = fill(server, jpeg(1), num_urls=60)
    store = ImageStore(tmp_path)
    num_refused = 0
    large = slow_png()

    def refuse(handler: BaseHTTPRequestHandler) -> None:
        nonlocal num_refused
        num_refused += 1
        time.sleep({1: 0.2, 6: 3}.get(num_refused, 0))  # the image is fetched then; it is decoded
        status(511)(handler)

    def end_login(handler: BaseHTTPRequestHandler) -> None:
        send(handler, large)
        server.answers = dict.fromkeys(server.answers, refuse)

    server.answers["/4.jpg"] = end_login
    options = FetchOptions(connections=2, allow_private_hosts=True)
    with pytest.raises(InputError, match=r"none of the last 32 URLs returned an image"):
        download(store, urls, options, limits=LIMITS)
    failures = store.failures(urls)
    assert set(failures.values()) == {"not_fetched"} and urls[4] not in failures


@pytest.mark.slow
@pytest.mark.parametrize(
    "portal", ["511", *(pytest.param(name, marks=FAULTS) for name in ("403", "503", "page", "redirect to itself"))]
)
def test_a_host_that_refuses_all_its_urls_costs_only_these(server: ImageServer, tmp_path: Path, portal: str) -> None:
    other = ImageServer()
    other.answers = dict.fromkeys((f"/{number}.jpg" for number in range(5)), jpeg(1))
    urls = fill(server, PORTALS[portal], num_urls=200)
    others = [f"{other.url}/{number}.jpg" for number in range(5)]
    store = ImageStore(tmp_path)
    (reason,) = download(store, [*urls, *others], OPTIONS, limits=LIMITS)
    other.close()
    assert reason != "not_fetched" and set(store.failures([*urls, *others])) == set(urls)


@pytest.mark.slow
def test_a_host_that_refuses_its_first_urls_is_not_taken_for_a_login(server: ImageServer, tmp_path: Path) -> None:
    urls = fill(server, status(403), num_urls=200)
    server.answers |= dict.fromkeys((f"/{number}.jpg" for number in range(150, 200)), jpeg(1))
    assert download(ImageStore(tmp_path), urls, OPTIONS, limits=LIMITS) == {"http_403": 150}


@pytest.mark.slow
def test_what_is_refused_may_be_retried_where_other_images_are_stored(server: ImageServer, tmp_path: Path) -> None:
    urls = fill(server, status(403), num_urls=100)
    server.answers["/0.jpg"] = jpeg(1)
    store = ImageStore(tmp_path)
    assert download(store, urls, OPTIONS, limits=LIMITS) == {"http_403": 99}
    again = FetchOptions(connections=8, allow_private_hosts=True, retry_failed=True)
    assert download(store, urls, again, limits=LIMITS) == {"http_403": 99}
    assert server.requests["/99.jpg"] == 2


@pytest.fixture
def untrusted(certificate: tuple[Path, Path]) -> Iterator[ImageServer]:
    """A server whose certificate signs itself."""
    server = ImageServer(certificate=certificate)
    yield server
    server.close()


REMEDY = r"if the server is yours, use http URLs, or give its images as `image_dir`\. No URL was marked as failed"


@pytest.mark.parametrize("num_urls", [1, 40])
def test_a_certificate_that_is_not_trusted_is_not_called_a_network_that_is_down(
    untrusted: ImageServer, tmp_path: Path, num_urls: int
) -> None:
    urls = fill(untrusted, jpeg(1), num_urls=num_urls)
    store = ImageStore(tmp_path)
    found = r"^none of 1 hosts can be reached, like https://127\.0\.0\.1:\d+ \(certificate: 127\.0\.0\.1: self-signed"
    with pytest.raises(InputError, match=rf"{found}.*{REMEDY}"):
        download(store, urls, OPTIONS, limits=LIMITS)
    assert set(store.failures(urls).values()) == {"not_fetched"} and not untrusted.requests


def test_a_redirect_of_all_urls_to_an_untrusted_host_stops_the_run(
    server: ImageServer, untrusted: ImageServer, tmp_path: Path
) -> None:
    urls = fill(server, status(302, Location=f"{untrusted.url}/1.jpg"), num_urls=60)
    store = ImageStore(tmp_path)
    with pytest.raises(InputError, match=rf"^none of the first 32 URLs .*: certificate: 127\.0\.0\.1: .*{REMEDY}"):
        download(store, urls, OPTIONS, limits=LIMITS)
    assert set(store.failures(urls).values()) == {"not_fetched"}


def test_an_untrusted_host_costs_only_its_urls_though_others_answer_later(
    server: ImageServer, untrusted: ImageServer, tmp_path: Path
) -> None:
    """Its URLs fail before any server has answered."""
    urls = fill(untrusted, jpeg(1), num_urls=100)
    others = fill(server, slowly(jpeg(1), pause_s=1), num_urls=4)
    store = ImageStore(tmp_path)
    assert download(store, [*urls, *others], OPTIONS, limits=LIMITS) == {"certificate": 100}
    assert set(store.failures([*urls, *others])) == set(urls)


def test_a_login_that_shows_its_own_certificate_marks_nothing(
    server: ImageServer, untrusted: ImageServer, tmp_path: Path
) -> None:
    """Http URLs lead to its page, https URLs to its certificate."""
    urls = [*fill(untrusted, PAGE, num_urls=100), *fill(server, slowly(PAGE, pause_s=1), num_urls=4)]
    store = ImageStore(tmp_path)
    with pytest.raises(InputError, match=r"^none of the first 32 URLs returned an image .* or requires a login, use"):
        download(store, urls, OPTIONS, limits=LIMITS)
    assert set(store.failures(urls).values()) == {"not_fetched"}
