import contextlib
import http.client
import socket
import time

import psutil
import pytest
from huggingface_hub import HfApi

from local_hub import LocalHub
from tests.local_hub.raw_requests import Send, port_of
from tests.local_hub.raw_sockets import connect, exchange, head, read_answer


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /api/validate-yaml HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(200)) + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"y" * 40_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 100_000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET  /  HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n",
        b"POST /api/validate-yaml HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"1\r\n \r\n" * 10_000,
    ],
)
def test_a_malformed_request_is_refused_and_the_connection_closed(hub: LocalHub, request_bytes: bytes) -> None:
    answer = exchange(hub, request_bytes)
    assert (answer.status, answer.is_closed) == (400, True) and answer.json["error"]


def test_a_body_that_nobody_reads_is_not_the_next_request(api: HfApi, hub: LocalHub, repo: str) -> None:
    smuggled = head("DELETE", f"/api/models/{repo}/branch/x", token=hub.token)
    api.create_branch(repo, branch="x")
    request = head("GET", "/api/whoami-v2", token=hub.token, Content_Length=str(len(smuggled) + 10))
    answer = exchange(hub, request + smuggled)
    assert (answer.status, answer.is_closed) == (200, True)
    assert {branch.name for branch in api.list_repo_refs(repo).branches} == {"main", "x"}


def test_a_response_that_comes_before_the_end_of_the_body_says_that_the_connection_closes(hub: LocalHub) -> None:
    """Otherwise a client may send its next request on it."""
    with connect(hub) as connection:
        connection.sendall(head("POST", "/api/repos/create", Content_Length="1000") + b"{")
        assert b"\r\nConnection: close\r\n" in connection.recv(65536).partition(b"\r\n\r\n")[0] + b"\r\n"


@pytest.mark.faults
def test_an_idle_connection_is_kept_for_longer_than_clients_keep_it(hub: LocalHub) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(hub))
    connection.connect()
    used = connection.sock
    for pause_s in (0, 5.5):
        time.sleep(pause_s)
        connection.request("GET", "/api/whoami-v2", headers={"Authorization": f"Bearer {hub.token}"})
        assert connection.getresponse().read() and connection.sock is used
    connection.close()


def test_pipelined_requests_are_answered_one_after_the_other(hub: LocalHub) -> None:
    request = head("GET", "/api/whoami-v2", token=hub.token)
    with connect(hub) as connection:
        connection.sendall(request * 20)
        received = b""
        while received.count(b"HTTP/1.1 200 OK") < 20:
            chunk = connection.recv(65536)
            assert chunk
            received += chunk


def test_an_upgrade_is_answered_like_any_other_request(hub: LocalHub) -> None:
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec_WebSocket_Key": "x",
        "Sec_WebSocket_Version": "13",
    }
    with connect(hub) as connection:
        connection.sendall(head("GET", "/api/whoami-v2", token=hub.token, **headers))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get"])
def test_every_method_is_answered_without_an_echo(hub: LocalHub, send: Send, repo: str, method: str) -> None:
    for path in ("/", f"/api/models/{repo}", f"/{repo}/resolve/main/.gitattributes", "*", "127.0.0.1:80"):
        response = send(method, path, X_Secret="echo-me")
        assert response.status in (200, 400, 404, 405), path
        assert b"echo-me" not in response.body and "access-control-allow-origin" not in response.headers


@pytest.mark.slow
def test_idle_connections_do_not_keep_others_out(api: HfApi, hub: LocalHub) -> None:
    assert hub.process is not None
    with contextlib.ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(connect(hub))
        start = time.monotonic()
        assert api.whoami()["name"] == "local"
        assert time.monotonic() - start < 10
        open_connections = [item for item in psutil.Process(hub.process.pid).net_connections() if item.raddr]
        assert len(open_connections) <= 600


@pytest.mark.slow
def test_connections_in_use_do_not_keep_others_out(api: HfApi, hub: LocalHub, repo: str) -> None:
    api.upload_file(repo_id=repo, path_in_repo="large.bin", path_or_fileobj=bytes(20_000_000))
    request = head("GET", f"/{repo}/resolve/main/large.bin", token=hub.token)
    with contextlib.ExitStack() as stack:
        for _ in range(550):  # none of them reads its download
            connection = stack.enter_context(connect(hub))
            connection.sendall(request)
        start = time.monotonic()
        assert api.whoami()["name"] == "local"
        assert time.monotonic() - start < 10


@pytest.mark.faults
def test_headers_have_to_arrive_in_time(hub: LocalHub) -> None:
    connections: list[tuple[socket.socket, bytes]] = []
    for sent in (b"", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n", head("GET", "/api/whoami-v2", token=hub.token) + b"G"):
        connection = connect(hub)
        connection.sendall(sent)
        connections.append((connection, sent))
    start = time.monotonic()
    while time.monotonic() - start < 20:
        time.sleep(0.5)
        for connection, _ in connections:
            with contextlib.suppress(OSError):
                connection.sendall(b"G")
    for connection, _ in connections:
        assert read_answer(connection, wait_s=1).is_closed
        connection.close()


@pytest.mark.faults
def test_a_download_that_nobody_reads_is_given_up(api: HfApi, hub: LocalHub, repo: str) -> None:
    assert hub.process is not None
    process = psutil.Process(hub.process.pid)
    api.upload_file(repo_id=repo, path_in_repo="large.txt", path_or_fileobj=b"x" * 9_900_000)
    api.upload_file(repo_id=repo, path_in_repo="large.bin", path_or_fileobj=bytes(20_000_000))
    before = process.memory_info().rss
    with contextlib.ExitStack() as stack:
        for number in range(100):
            path = f"/{repo}/resolve/main/large.{'txt' if number % 2 else 'bin'}"
            connection = stack.enter_context(connect(hub))
            connection.sendall(head("GET", path, token=hub.token))
        time.sleep(5)
        assert process.memory_info().rss - before < 60_000_000
        time.sleep(125)
        assert len([item for item in process.net_connections() if item.raddr and item.status == "ESTABLISHED"]) < 10
