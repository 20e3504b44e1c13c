"""Connections that send no request are closed, and a stopped server answers what it has accepted."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from inference import serving_connections
from inference.serving_connections import Server, bind, make_server
from product_vqa.errors import InputError


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers after half a second."""
    await asyncio.sleep(0.5)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"done"})


@pytest.fixture
def start() -> Iterator[Callable[[], tuple[Server, int, threading.Thread]]]:
    running: list[tuple[Server, threading.Thread]] = []

    def start_one() -> tuple[Server, int, threading.Thread]:
        listener = bind("127.0.0.1", 0)
        port = listener.getsockname()[1]
        server = make_server(app)
        thread = threading.Thread(target=server.serve_until_stopped, args=(listener,), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        running.append((server, thread))
        return server, port, thread

    yield start_one
    for server, thread in running:
        server.should_exit = True
        thread.join(30)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def test_a_connection_without_a_request_is_closed(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_connections, "HEADERS_TIMEOUT_S", 0.2)
    _, port, _ = start()
    for sent in (b"", b"GET / HTTP/1.1\r\nHost: x"):
        with connect(port) as client:
            client.sendall(sent)
            assert read_all(client) == b""
    with connect(port) as client:  # an answer may take longer than that
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_until(client, b"done").startswith(b"HTTP/1.1 200 ")


def test_what_is_not_http_is_refused_as_json(start: Any) -> None:
    _, port, _ = start()
    with connect(port) as client:
        client.sendall(b"\x00\x01\r\n\r\n")
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 400 ") and b'"type": "invalid_request_error"' in answer


def test_a_stopped_server_answers_what_it_has_accepted_and_nothing_more(start: Any) -> None:
    server, port, thread = start()
    idle, asking = connect(port), connect(port)
    asking.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    while not server.server_state.tasks:
        time.sleep(0.01)
    server.should_exit = True
    assert read_until(asking, b"done").startswith(b"HTTP/1.1 200 ")
    assert read_all(idle) == b""
    thread.join(30)
    assert not thread.is_alive()
    with pytest.raises(ConnectionRefusedError):
        connect(port)


def read_until(client: socket.socket, end: bytes) -> bytes:
    """The bytes up to `end`, in however many packets they come."""
    received = b""
    while not received.endswith(end):
        piece = client.recv(1000)
        assert piece, received
        received += piece
    return received


def read_all(client: socket.socket) -> bytes:
    received = b""
    try:
        while piece := client.recv(1000):
            received += piece
    except ConnectionResetError:
        pass
    return received


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(InputError, match=r"`port` 0: cannot listen on 192\.0\.2\.1"):
        bind("192.0.2.1", 0)
