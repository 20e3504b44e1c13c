"""Bytes on a connection, for requests that no HTTP library would send."""

import json
import re
import socket
import time
from dataclasses import dataclass, field
from typing import Any

from local_hub import LocalHub
from tests.local_hub.raw_requests import port_of

# Each request that needs write access, to the repo local/NAME.
WRITES = [
    ("POST", "/api/repos/create", '{"name":"x"}'),
    ("DELETE", "/api/repos/delete", '{"name":"NAME"}'),
    ("POST", "/api/repos/move", '{"fromRepo":"local/NAME","toRepo":"local/other","type":"model"}'),
    ("PUT", "/api/models/local/NAME/settings", '{"visibility":"private"}'),
    ("POST", "/api/models/local/NAME/branch/x", "{}"),
    ("DELETE", "/api/models/local/NAME/branch/x", None),
    ("POST", "/api/models/local/NAME/tag/main", '{"tag":"x"}'),
    ("DELETE", "/api/models/local/NAME/tag/x", None),
    ("POST", "/api/models/local/NAME/preupload/main", '{"files":[]}'),
    ("POST", "/api/models/local/NAME/commit/main", '{"key":"header","value":{"summary":"x"}}'),
    ("POST", "/local/NAME.git/info/lfs/objects/batch", '{"operation":"upload","objects":[]}'),
    ("POST", "/local/NAME.git/info/lfs/objects/verify", f'{{"oid":"{"0" * 64}","size":1}}'),
    ("GET", "/api/models/local/NAME/auth-check/write", None),
]


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = field(repr=False)
    is_closed: bool  # by the hub, within the time that was allowed

    @property
    def json(self) -> Any:
        return json.JSONDecoder().raw_decode(self.body.decode())[0]


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
