"""A Hub that answers whatever it likes, and what it may like: wrong types, paths for names, terminal codes."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "a" * 40
INFO: dict[str, Any] = {
    "id": "user/name", "sha": COMMIT, "private": False, "gated": False, "disabled": False, "tags": [], "downloads": 0,
    "likes": 0, "lastModified": "2024-01-01T00:00:00.000Z",
    "siblings": [{"rfilename": "README.md"}, {"rfilename": "data/train-00000-of-00001.parquet"}],
}  # fmt: skip
TREE = [
    {"type": "file", "oid": "b" * 40, "size": 5, "path": name}
    for name in ("README.md", "data/train-00000-of-00001.parquet")
]
ACCOUNT: dict[str, Any] = {"name": "user", "auth": {"accessToken": {"role": "write"}}, "orgs": [{"name": "team"}]}
OUTSIDE = "ESCAPED"  # part of every path that leads out of a folder
PATHS = (f"../../../../../../{OUTSIDE}", f"/tmp/{OUTSIDE}", f"..\\..\\{OUTSIDE}")


@dataclass(frozen=True)
class HostileHub:
    """`bodies` and `statuses` by kind of request: info, tree, account, file, other. `headers` are of every answer."""

    name: str
    bodies: dict[str, bytes] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    headers: dict[str, str | None] = field(default_factory=dict)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


BODIES = {"info": _json(INFO), "tree": _json(TREE), "account": _json(ACCOUNT), "file": b"# hi\n", "other": b"{}"}
MALFORMED = [
    b"", b"null", b"[]", b"{}", b"<html>login</html>", b'"x"', b"1", b"[1]", b"[[]]", b"[null]", b'{"a":', b"\xff\xfe",
    b'{"id": 1}', b"[" * 100_000, b"1" * 10_000, b"NaN",
]  # fmt: skip
VALUES = [None, 1, -1, 10**30, "", "x", [], {}, [None], [1], {"a": 1}, "\x1b[31mred\n# h", "x" * 100_000, *PATHS]
HEADERS: list[tuple[str, str | None]] = [
    *((name, f'"{path}"') for name in ("ETag", "X-Linked-ETag") for path in PATHS),
    *((name, f'W/"{PATHS[0]}"') for name in ("ETag", "X-Linked-ETag")),
    *(("ETag", value) for value in (None, '""', '"' + "x" * 1000 + '"', "..")),
    *(("X-Repo-Commit", value) for value in (None, "x", *PATHS)),
    ("X-Linked-Size", "-5"), ("X-Linked-Size", "abc"), ("X-Error-Code", "RepoNotFound"),
    ("X-Error-Message", "\x1b[31mred"), ("Link", '<http://127.0.0.1:1/x>; rel="next"'),
    ("Content-Type", "text/html"), ("Content-Encoding", "gzip"),
]  # fmt: skip
STATUSES = (204, 206, 301, 302, 307, 400, 401, 403, 404, 409, 410, 416, 418, 429, 451, 500, 511)


def hostile_hubs() -> Iterator[HostileHub]:
    for kind in ("info", "tree", "account"):
        for body in MALFORMED:
            yield HostileHub(f"{kind} {body[:20]!r}", bodies={kind: body})
    for kind, correct in (("info", INFO), ("account", ACCOUNT)):
        for key in correct:
            without = {name: value for name, value in correct.items() if name != key}
            yield HostileHub(f"{kind} without {key}", bodies={kind: _json(without)})
            for value in VALUES:
                yield HostileHub(f"{kind} {key} {str(value)[:20]!r}", bodies={kind: _json(without | {key: value})})
    for key in TREE[0]:
        for value in (*VALUES, "data/../../x.parquet", ".", "data/train-\x1b[31m.parquet"):
            tree = [TREE[0], TREE[1] | {key: value}]
            yield HostileHub(f"tree {key} {str(value)[:20]!r}", bodies={"tree": _json(tree)})
    for header, text in HEADERS:
        yield HostileHub(f"header {header} {str(text)[:20]!r}", headers={header: text})
    for kind in BODIES:
        for status in STATUSES:
            yield HostileHub(f"{kind} {status}", statuses={kind: status})
            yield HostileHub(f"{kind} {status} html", {kind: b"<html>\x1b[31m no\n" * 100}, {kind: status})


@contextmanager
def serve(hub: HostileHub) -> Iterator[str]:
    """Serve it, and give its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kind = next((kind for part, kind in _KINDS.items() if part in self.path), "other")
            if kind == "other" and self.path.startswith("/api/") and self.command == "GET":
                kind = "info"
            body = {**BODIES, **hub.bodies}[kind]
            self.send_response(hub.statuses.get(kind, 200))
            headers = {"Content-Type": "application/json", "X-Repo-Commit": COMMIT, "ETag": f'"{"c" * 40}"'}
            for name, value in {**headers, **hub.headers, "Content-Length": str(len(body))}.items():
                if value is not None:
                    self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 (the library's names)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # the client hung up

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


_KINDS = {"whoami": "account", "/tree/": "tree", "/resolve/": "file"}  # part of the path -> kind
