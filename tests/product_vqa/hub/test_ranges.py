"""Parts of files, of a repo and of a folder: exactly the bytes that were asked for, or one line."""

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, constants

from local_hub import LocalHub
from product_vqa.errors import InputError
from product_vqa.hub import Location, locate, ranges, read_range
from product_vqa.redaction import hide_secrets
from tests.faulty_hub import FaultyHub, answer, hang, reset

CONTENT = os.urandom(300_000)
REPO = "local/ranges"


@pytest.fixture(scope="module")
def pushed(hub: LocalHub) -> Location:
    """A large file, which is stored as an LFS file, and a small one."""
    return push(HfApi())


def push(api: HfApi) -> Location:
    api.create_repo(REPO, repo_type="dataset", exist_ok=True)
    for name, content in (("data/a b#.parquet", CONTENT), ("small.txt", CONTENT[:100])):
        api.upload_file(repo_id=REPO, path_in_repo=name, path_or_fileobj=content, repo_type="dataset")
    return locate(REPO, repo_type="dataset")


def read(location: Location, start: int, length: int, name: str = "data/a b#.parquet") -> bytes:
    return read_range(location, name, start=start, length=length, repo_type="dataset")


@pytest.mark.parametrize(("start", "length"), [(0, 1), (0, 300_000), (299_999, 1), (1234, 70_000), (5, 0)])
def test_the_bytes_that_were_asked_for_are_returned(
    pushed: Location, tmp_path: Path, start: int, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a b#.parquet").write_bytes(CONTENT)
    for location in (pushed, Location(str(tmp_path))):
        assert read(location, start, length) == CONTENT[start : start + length]
    assert read(pushed, 10, 20, "small.txt") == CONTENT[10:30]
    assert not (tmp_path / "cache").exists()


def test_a_commit_is_read_that_a_branch_has_left(pushed: Location) -> None:
    HfApi().upload_file(repo_id=REPO, path_in_repo="small.txt", path_or_fileobj=b"new" * 50, repo_type="dataset")
    assert read(pushed, 10, 20, "small.txt") == CONTENT[10:30]


@pytest.mark.parametrize(("start", "length"), [(299_999, 2), (300_000, 1), (10**15, 5)])
def test_beyond_the_end_of_a_file_is_one_line(pushed: Location, tmp_path: Path, start: int, length: int) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a b#.parquet").write_bytes(CONTENT)
    with pytest.raises(InputError, match=r"answered HTTP 416|did not answer with the range"):
        read(pushed, start, length)
    with pytest.raises(InputError, match=f"it ends before byte {start + length}"):
        read(Location(str(tmp_path)), start, length)


def test_a_file_that_is_not_there_is_one_line(pushed: Location, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"local/ranges: the repo has no such file: .*none\.parquet"):
        read(pushed, 0, 1, "none.parquet")
    with pytest.raises(InputError, match=r"its file 'none\.parquet' does not exist"):
        read(Location(str(tmp_path)), 0, 1, "none.parquet")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="its file 'pipe' is not a regular file"):
        read(Location(str(tmp_path)), 0, 1, "pipe")
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match="its file 'link' is a link out of the folder"):
        read(Location(str(tmp_path)), 0, 1, "link")


def test_offline_is_one_line(pushed: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set, but this needs the Hub"):
        read(pushed, 0, 10)


@pytest.fixture
def bad_repo(bad_hub: FaultyHub) -> Location:
    location = push(HfApi())
    bad_hub.begin()
    return location


def sends(status: int, body: bytes, **headers: str) -> Any:
    return answer(status, body, content_range="bytes 10-29/300000", **headers)


@pytest.mark.parametrize(
    ("fault", "waits"),
    [
        (answer(429, retry_after="7"), 7),
        (answer(500), 1),
        (answer(503, retry_after="20"), 20),
        (reset, 1),
        (sends(206, CONTENT[10:15], content_length="20"), 1),  # hangs up in the middle
        (sends(206, CONTENT[10:15]), 1),  # ends early
    ],
    ids=["429", "500", "503", "reset", "cut", "short"],
)
def test_a_request_that_fails_is_sent_again(
    bad_hub: FaultyHub, bad_repo: Location, slept: list[float], fault: Any, waits: float
) -> None:
    bad_hub.begin(fault, at=0)
    assert read(bad_repo, 10, 20) == CONTENT[10:30]
    assert bad_hub.count == 2
    assert slept == [waits]


def test_a_hub_that_stops_answering_is_asked_again(
    bad_hub: FaultyHub, bad_repo: Location, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "SILENCE_S", 0.3)
    bad_hub.begin(hang, at=0)
    assert read(bad_repo, 10, 20) == CONTENT[10:30]
    assert slept == [1]


@pytest.mark.parametrize(
    "fault",
    [
        answer(200, CONTENT),
        answer(200, CONTENT[10:30]),
        answer(206, CONTENT[10:30]),
        answer(206, CONTENT[10:30], content_range="bytes 11-30/300000"),
        answer(206, CONTENT[10:30], content_range="garbage"),
        answer(204, b""),
        sends(206, CONTENT),
    ],
    ids=["all of it", "no range", "no header", "another range", "garbage", "nothing", "more than that"],
)
def test_an_answer_with_other_bytes_is_refused(bad_hub: FaultyHub, bad_repo: Location, fault: Any) -> None:
    bad_hub.begin(fault, at=0)
    with pytest.raises(InputError, match=r"local/ranges@[0-9a-f]{40}: the server (did not answer|sent more)") as error:
        read(bad_repo, 10, 20)
    assert "\n" not in str(error.value)


def test_a_hub_that_stays_bad_ends_in_one_line_after_eight_minutes(
    bad_hub: FaultyHub, bad_repo: Location, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def always(*arguments: Any) -> None:
        await answer(500)(bad_hub, *arguments)

    monkeypatch.setattr(bad_hub, "_app", always)
    with pytest.raises(InputError, match="the Hub answered HTTP 500"):
        read(bad_repo, 10, 20)
    assert sum(slept) == pytest.approx(8 * 60, abs=10)


# ---- Large files are on another host -------------------------------------------------------------------------------


class Storage(ThreadingHTTPServer):
    """The host to which the Hub redirects, with a signature in the URL. `headers` are those of the requests to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), StorageHandler)
        self.headers: list[dict[str, str]] = []
        self.status, self.is_endless = 206, False
        self.url = f"http://127.0.0.1:{self.server_port}/file?X-Amz-Signature=5ec7e7"


class StorageHandler(BaseHTTPRequestHandler):
    server: Storage

    def do_GET(self) -> None:
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        content = CONTENT[first : last + 1] if self.server.status == 206 else b""
        self.send_response(self.server.status)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(CONTENT)}")
        if not self.server.is_endless:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        with suppress(OSError):  # the client hangs up
            while self.server.is_endless:
                self.wfile.write(b"{" * 65536)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def storage() -> Iterator[Storage]:
    with Storage() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [302, 307])
def test_a_redirected_request_asks_for_the_range_without_the_token(
    bad_hub: FaultyHub, bad_repo: Location, storage: Storage, status: int
) -> None:
    bad_hub.begin(answer(status, b"", location=storage.url), at=0)
    assert read(bad_repo, 10, 20) == CONTENT[10:30]
    (headers,) = storage.headers
    assert headers["range"] == "bytes=10-29" and headers["accept-encoding"] == "identity"
    assert "authorization" not in headers and not [value for value in headers.values() if bad_hub.token in value]


def test_a_signature_that_has_expired_names_the_other_host_and_is_not_shown(
    bad_hub: FaultyHub, bad_repo: Location, storage: Storage
) -> None:
    storage.status = 403
    bad_hub.begin(answer(302, b"", location=storage.url), at=0)
    with pytest.raises(InputError, match=rf":{storage.server_port}, where the Hub stores .* HTTP 403") as error:
        read(bad_repo, 10, 20)
    assert "5ec7e7" not in hide_secrets(str(error.value)) and "token" not in str(error.value)


def test_another_host_that_does_not_answer_is_named(
    bad_hub: FaultyHub, bad_repo: Location, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def always(*arguments: Any) -> None:
        await answer(302, b"", location="http://127.0.0.1:9/file")(bad_hub, *arguments)

    monkeypatch.setattr(bad_hub, "_app", always)
    with pytest.raises(InputError, match=r"the Hub answers, but 127\.0\.0\.1:9, where it stores .* \(ConnectError\)"):
        read(bad_repo, 10, 20)


def test_a_token_that_may_not_read_is_one_line(bad_hub: FaultyHub, bad_repo: Location) -> None:
    bad_hub.begin(answer(403), at=0)
    with pytest.raises(InputError, match=r"the Hub refused the token \(HTTP 403: .*with a token that can read it"):
        read(bad_repo, 10, 20)


def test_the_text_of_an_error_is_read_within_a_limit(bad_hub: FaultyHub, bad_repo: Location, storage: Storage) -> None:
    storage.status, storage.is_endless = 400, True
    bad_hub.begin(answer(302, b"", location=storage.url), at=0)
    with pytest.raises(InputError, match=r"where the Hub stores its files, answered HTTP 400: \{"):
        read(bad_repo, 10, 20)
