"""Bytes on a connection, for requests that no HTTP library would send."""

import json
import re
import socket
import time
from dataclasses import dataclass, field
from typing import Any

from local_hub import LocalHub
from tests.local_hub.raw_requests import port_of


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = field(repr=False)
    is_closed: bool  # by the hub, within the time that was allowed

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def connect(hub: LocalHub) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port_of(hub)), timeout=20)


def head(method: str, path: str, *, token: str | None = None, **headers: str) -> bytes:
    """The head of a request."""
    lines = [f"{method} {path} HTTP/1.1", *([] if "Host" in headers else ["Host: 127.0.0.1"])]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    return "\r\n".join([*lines, "", ""]).encode()


def read_answer(connection: socket.socket, *, wait_s: float = 10.0) -> Answer:
    """The first response, and whether the hub closes the connection within `wait_s`."""
    deadline = time.monotonic() + wait_s
    received = b""
    is_closed = False
    while not is_closed and time.monotonic() < deadline:
        connection.settimeout(max(deadline - time.monotonic(), 0.01))
        try:
            chunk = connection.recv(65536)
        except TimeoutError:
            break
        except ConnectionError:
            chunk = b""
        received += chunk
        is_closed = not chunk
    match = re.match(rb"HTTP/1\.1 (\d+) .*?\r\n\r\n", received, re.DOTALL)
    return Answer(int(match[1]) if match else 0, received[match.end() :] if match else b"", is_closed)


def exchange(hub: LocalHub, sent: bytes, *, wait_s: float = 10.0) -> Answer:
    with connect(hub) as connection:
        connection.sendall(sent)
        return read_answer(connection, wait_s=wait_s)
