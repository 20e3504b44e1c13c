import base64
import contextlib
import json
import time
from pathlib import Path
from urllib.parse import urlencode

import psutil
import pytest
from huggingface_hub import HfApi

from local_hub import LocalHub
from tests.local_hub.raw_requests import Send, commit_body, pointer_to, upload_path
from tests.local_hub.raw_sockets import WRITES, connect, exchange, head, read_answer

HUGE = str(600_000_000)


@pytest.mark.parametrize(("method", "path", "body"), [request for request in WRITES if request[2]])
@pytest.mark.parametrize("account", ["anonymous", "reader"])
@pytest.mark.parametrize("framing", [{"Content_Length": HUGE}, {"Transfer_Encoding": "chunked"}])
def test_no_body_is_read_before_authorization(
    hub: LocalHub, repo: str, method: str, path: str, body: str, account: str, framing: dict[str, str]
) -> None:
    token = hub.reader_token if account == "reader" else None
    request = head(method, path.replace("NAME", repo.partition("/")[2]), token=token, **framing)
    answer = exchange(hub, request)  # no byte of the body is sent
    assert (answer.status, answer.is_closed) == (403 if account == "reader" else 401, True)


@pytest.mark.parametrize("path", ["/api/models/local/nope/commit/main", "/api/models/REPO/commit/no-such-branch"])
def test_no_body_is_read_for_what_does_not_exist(hub: LocalHub, repo: str, path: str) -> None:
    answer = exchange(hub, head("POST", path.replace("REPO", repo), token=hub.token, Content_Length=HUGE))
    assert (answer.status, answer.is_closed) == (404, True)


def test_no_body_is_read_of_an_upload_without_a_signature(hub: LocalHub, repo: str) -> None:
    path = f"/large_files/models/{repo}/{'0' * 64}/{HUGE}"
    for url in (path, f"{path}?expires=9999999999&signature={'0' * 64}"):
        answer = exchange(hub, head("PUT", url, Content_Length=HUGE))
        assert (answer.status, answer.is_closed) == (403, True)


SMALL_BODIES = [
    ("POST", "/api/validate-yaml"),
    ("POST", "/api/repos/create"),
    ("DELETE", "/api/repos/delete"),
    ("POST", "/api/repos/move"),
    ("PUT", "/api/models/REPO/settings"),
    ("POST", "/api/models/REPO/branch/x"),
    ("POST", "/api/models/REPO/tag/main"),
    ("POST", "/api/models/REPO/preupload/main"),
    ("POST", "/api/models/REPO/paths-info/main"),
    ("POST", "/REPO.git/info/lfs/objects/batch"),
    ("POST", "/REPO.git/info/lfs/objects/verify"),
]


@pytest.mark.parametrize(("method", "path"), SMALL_BODIES)
def test_a_body_that_is_too_large_is_refused_announced_or_not(
    hub: LocalHub, repo: str, method: str, path: str
) -> None:
    url = path.replace("REPO", repo)
    announced = exchange(hub, head(method, url, token=hub.token, Content_Length=HUGE))
    assert (announced.status, announced.is_closed) == (413, True) and announced.json["error"]
    with connect(hub) as connection:
        connection.sendall(head(method, url, token=hub.token, Transfer_Encoding="chunked"))
        for _ in range(70):  # 4 MiB, twice the limit
            try:
                connection.sendall(b"10000\r\n" + b"[" * 65536 + b"\r\n")
            except ConnectionError:  # refused already
                break
        assert read_answer(connection).status == 413


def test_strangers_may_send_less_than_the_owner(hub: LocalHub, send: Send) -> None:
    card = json.dumps({"content": "x" * 300_000})
    assert send("POST", "/api/validate-yaml", card).status == 200
    assert send("POST", "/api/validate-yaml", card, token=None).status == 413


@pytest.mark.slow
def test_a_refused_upload_takes_no_memory(hub: LocalHub, repo: str) -> None:
    assert hub.process is not None
    memory = psutil.Process(hub.process.pid).memory_info
    before = memory().rss
    for path in (f"/api/models/{repo}/commit/main", "/api/validate-yaml"):
        with connect(hub) as connection:
            connection.sendall(head("POST", path, Content_Length=HUGE))
            with contextlib.suppress(ConnectionError):  # the hub closes the connection
                for _ in range(300):
                    connection.sendall(b"x" * 1_000_000)
                pytest.fail("the hub has read 300 MB")
    assert memory().rss - before < 30_000_000


@pytest.mark.faults
def test_the_lines_of_a_large_commit_are_not_kept_in_memory(api: HfApi, hub: LocalHub, repo: str) -> None:
    assert hub.process is not None
    process = psutil.Process(hub.process.pid)
    before = process.memory_info().rss
    content = base64.b64encode(b"x" * 9_000_000).decode()
    connections = []
    for number in range(6):  # unfinished lines, 12 MB each
        connection = connect(hub)
        line = commit_body(("file", {"path": f"{number}.txt", "content": content, "encoding": "base64"})).encode()
        request = head("POST", f"/api/models/{repo}/commit/main", token=hub.token, Content_Length=str(len(line)))
        connection.sendall(request + line[:-5])
        connections.append((connection, line[-5:]))
    time.sleep(1)
    assert process.memory_info().rss - before < 60_000_000
    for connection, rest in connections:
        connection.sendall(rest)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.close()
    assert {f"{number}.txt" for number in range(6)} <= set(api.list_repo_files(repo))


@pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "1, 2", "9" * 50, "+5", "５"])
def test_a_length_that_is_not_a_number_is_refused(hub: LocalHub, length: str) -> None:
    with connect(hub) as connection:
        connection.sendall(head("POST", "/api/validate-yaml", Content_Length=length) + b"{}")
        assert read_answer(connection, wait_s=3).status in (400, 413)


def test_an_empty_body_is_an_empty_object(api: HfApi, repo: str, send: Send) -> None:
    assert send("POST", f"/api/models/{repo}/branch/x", b"").status == 200
    assert {branch.name for branch in api.list_repo_refs(repo).branches} == {"main", "x"}


@pytest.mark.parametrize(
    "body",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        "NaN",
        '{"files": [NaN]}',
        f'{{"size": {"9" * 5000}}}',
        '"\\ud800"',
        "\xff",
        "[]",
    ],
)
def test_hostile_json_is_refused(repo: str, send: Send, body: str) -> None:
    for path in ("/api/validate-yaml", f"/api/models/{repo}/preupload/main", f"/api/models/{repo}/commit/main"):
        response = send("POST", path, body.encode("latin-1"))
        assert response.status == 400 and response.json["error"], path


def test_a_form_may_have_a_thousand_paths(repo: str, send: Send) -> None:
    def ask(count: int) -> int:
        form = urlencode([("paths", f"{number}.txt") for number in range(count)])
        return send("POST", f"/api/models/{repo}/paths-info/main", form).status

    assert (ask(1000), ask(1002)) == (200, 413)


def test_an_upload_may_not_be_larger_than_announced(hub: LocalHub, repo: str, send: Send) -> None:
    path = upload_path(send, repo, pointer_to(b"content"))
    answer = exchange(hub, head("PUT", path, Content_Length=HUGE))
    assert (answer.status, answer.is_closed) == (400, True)
    chunks = b"".join(b"10000\r\n" + b"x" * 65536 + b"\r\n" for _ in range(3))
    assert exchange(hub, head("PUT", path, Transfer_Encoding="chunked") + chunks).status == 400
    assert list((hub.root / "arrivals").iterdir()) == []


@pytest.mark.faults
@pytest.mark.parametrize("sent", [b"", b'{"content'])
def test_a_body_that_stops_is_given_up_after_half_a_minute(hub: LocalHub, sent: bytes) -> None:
    with connect(hub) as connection:
        connection.sendall(head("POST", "/api/validate-yaml", Content_Length="100") + sent)
        answer = read_answer(connection, wait_s=40)
        assert (answer.status, answer.is_closed) == (408, True)


@pytest.mark.faults
def test_a_body_that_trickles_is_given_up(hub: LocalHub, tmp_path: Path) -> None:
    with connect(hub) as connection:
        connection.sendall(head("POST", "/api/validate-yaml", Content_Length="1000"))
        start = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - start < 60:
                connection.sendall(b" ")
                time.sleep(0.5)
        assert 25 < time.monotonic() - start < 45
