"""Targets: local_hub's routes and bodies. Requests go to the real app with a real store, without a socket."""

import asyncio
import base64
import hashlib
import json
import random
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from local_hub.app import create_app
from local_hub.auth import Accounts
from local_hub.store import Store
from tests.fuzz.documents import WORDS, generate_yaml, random_value
from tests.fuzz.target import Target

TOKEN, READER = "owner-token", "reader-token"
_RESTART_AFTER = 500  # cases: a store with many repos and commits answers slowly
_LFS = b"content of an LFS file"
_LFS_OID = hashlib.sha256(_LFS).hexdigest()
_kept: list[Any] = []


class _Hub:
    """An app with one repo of each type, an LFS file, a branch and a tag."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-hub-")
        self._store = Store(Path(self._folder.name))
        self._accounts = Accounts(token=TOKEN, reader_token=READER)
        self._app = create_app(self._store, accounts=self._accounts)
        self.served = 0
        for repo_type in ("model", "dataset", "space"):
            self._store.create("local/a", repo_type=repo_type)
        self._store.create("local/private", repo_type="model", private=True)
        path = f"/large_files/models/local/a/{_LFS_OID}/{len(_LFS)}"
        lines = [
            {"key": "header", "value": {"summary": "x"}},
            {"key": "file", "value": _file("README.md", b"---\ntags: [x]\n---\n# A\n")},
            {"key": "file", "value": _file("dir/b.txt", b"0123456789")},
            {"key": "lfsFile", "value": {"path": "c.bin", "algo": "sha256", "oid": _LFS_OID, "size": len(_LFS)}},
        ]
        for request in (
            b"PUT %s?%s\n\n%s" % (path.encode(), self._accounts.sign(path).encode(), _LFS),
            b"POST /api/models/local/a/commit/main\n\n" + b"\n".join(json.dumps(line).encode() for line in lines),
            b'POST /api/models/local/a/branch/dev\n\n{"startingPoint": "main"}',
            b'POST /api/models/local/a/tag/main\n\n{"tag": "v1", "message": "m"}',
        ):
            status, _, body = self.send(request)
            assert status == 200, (request, status, body)

    def close(self) -> None:
        self._store.close()
        self._folder.cleanup()

    def send(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send `METHOD /path?query`, header lines, an empty line and a body; returns status, headers, body.

        Without an Authorization header, the owner's token is sent, and without a Host header, that of the hub.
        """
        head, _, body = request.partition(b"\n\n")
        first, *lines = head.split(b"\n")
        method, _, target = first.partition(b" ")
        target = bytes(byte for byte in target if 0x20 < byte < 0x7F)  # what the HTTP server in front lets through
        path, _, query = target.partition(b"?")
        headers = [tuple(line.split(b": ", 1)) for line in lines if b": " in line]
        headers = [(name.strip().lower(), value.strip()) for name, value in headers]
        names = {name for name, _ in headers}
        if b"authorization" not in names:
            headers.append((b"authorization", b"Bearer " + TOKEN.encode()))
        if b"host" not in names:
            headers.append((b"host", b"127.0.0.1:8765"))
        if b"content-length" not in names:
            headers.append((b"content-length", str(len(body)).encode()))
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
            "method": method.decode("latin-1").upper()[:20] or "GET", "scheme": "http", "root_path": "",
            "path": path.decode("ascii"), "raw_path": b"/" + path.lstrip(b"/"), "query_string": query,
            "headers": headers, "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 8765), "state": {},
        }  # fmt: skip
        return _loop().run_until_complete(self._call(scope, body))

    async def _call(self, scope: dict[str, Any], body: bytes) -> tuple[int, dict[str, str], bytes]:
        half = len(body) // 2
        messages = [
            {"type": "http.request", "body": body[:half], "more_body": True},
            {"type": "http.request", "body": body[half:], "more_body": False},
        ]
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        start = sent[0]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in start["headers"]}
        return start["status"], headers, b"".join(message.get("body", b"") for message in sent[1:])


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def _hub() -> _Hub:
    if _kept and _kept[0].served >= _RESTART_AFTER:
        _kept.pop().close()
    if not _kept:
        _kept.append(_Hub())
    _kept[0].served += 1
    hub: _Hub = _kept[0]
    return hub


def fuzz_hub(data: bytes) -> None:
    """A request is answered with its result, or with an error in JSON; never with a failure of the hub.

    Starlette raises an unhandled error again, so it is the finding itself.
    """
    try:
        status, headers, body = _hub().send(data)
    except BaseException:
        _kept.clear()  # a new store for the next case
        raise
    assert 200 <= status < 500, (status, body[:300])
    if status >= 400 and status != 416 and body != b"Invalid host header":
        assert headers.get("content-type") == "application/json", (status, headers, body[:300])
        assert isinstance(json.loads(body)["error"], str)
    assert all(value.isprintable() for value in headers.values()), headers
    for token in (TOKEN.encode(), READER.encode()):
        assert token not in body or token in data, "a token that the client did not send"


def _file(path: str, content: bytes) -> dict[str, Any]:
    return {"path": path, "encoding": "base64", "content": base64.b64encode(content).decode()}


_REPOS = (
    "local/a", "local/a", "local/a", "local/private", "local/none", "other/a", "local/a.git", "local",
    "local/%61", "../a",
    "local/..", "local%2Fa", "local/a%00", "%ff/a", "local/" + "a" * 200,
)  # fmt: skip
_REVISIONS = (
    "main", "main", "main", "dev", "v1", "refs%2Fheads%2Fmain", "refs%2Fpr%2F1", "none", "HEAD", "%ff", "%00",
    "0000000",
    "a" * 40, "main%2F..", "refs%2F", "@", "main%0A", "", "." , "%F0%9F%98%80", "refs%2Ftags%2Fv1", "main~1",
    "main^{}",
)  # fmt: skip
_PATHS = (
    "README.md", "dir", "dir/b.txt", "c.bin", "none", ".git/config", "..%2F..%2Fetc%2Fpasswd", "dir/",
    "%2e%2e/x", "%ff",
    "dir%2Fb.txt", "%00", "a" * 300, "//", "C%3A%5Cx", "", "dir/b.txt/x", ".GIT/x", "%EF%BC%8E.git", "git~1",
)  # fmt: skip
_QUERIES = (
    "", "", "", "recursive=true", "expand=1&recursive=1", "cursor=1", "cursor=-1", "cursor=" + "9" * 30,
    "limit=0", "limit=1",
    "at=main", "at=%ff", "search=%00", "filter=x", "author=local&sort=createdAt", "blobs=true", "create_pr=1",
    "a&=&&%",
    "expires=x&signature=%C3%A4", "expires=" + "9" * 5000 + "&signature=0", "gated=true", "pipeline_tag=x",
)  # fmt: skip
_HEADERS = (
    "", "", "", f"Authorization: Bearer {READER}", "Authorization: ", "Authorization: Bearer x",
    "Authorization: Basic eDp5",
    "Range: bytes=0-3", "Range: bytes=-5", "Range: bytes=5-1", "Range: bytes=99-", "Range: bytes=0-1,3-4", "Range: x",
    "Range: bytes=" + "9" * 30 + "-", "If-None-Match: *", 'If-None-Match: "x"', "Host: evil.example",
    "Host: localhost",
    "Origin: http://evil.example", "Content-Type: text/plain", "Content-Length: 99999999999", "Content-Length: x",
    "Accept-Encoding: gzip", "X-HTTP-Method-Override: DELETE", "Authorization: Bearer \xff", "Expect: 100-continue",
)  # fmt: skip


def _random_path(rng: random.Random) -> str:
    kind = rng.choice(("models", "models", "models", "datasets", "spaces", "model", "x"))
    repo, revision, path = rng.choice(_REPOS), rng.choice(_REVISIONS), rng.choice(_PATHS)
    api = f"/api/{kind}/{repo}"
    page = f"/{repo}" if kind == "models" else f"/{kind}/{repo}"
    return rng.choice((
        "/", "/api/whoami-v2", "/api/validate-yaml", "/api/repos/create", "/api/repos/delete", "/api/repos/move",
        f"/api/{kind}", api, f"{api}/revision/{revision}", f"{api}/settings", f"{api}/auth-check",
        f"{api}/auth-check/write",
        f"{api}/tree/{revision}", f"{api}/tree/{revision}/{path}", f"{api}/paths-info/{revision}", f"{api}/refs",
        f"{api}/branch/{revision}", f"{api}/tag/{revision}", f"{api}/commits/{revision}",
        f"{api}/preupload/{revision}",
        f"{api}/commit/{revision}", f"{page}/resolve/{revision}/{path}", f"{page}.git/info/lfs/objects/batch",
        f"{page}.git/info/lfs/objects/verify", page,
        f"/large_files/{kind}/{repo}/{_LFS_OID}/{rng.choice((22, 'x', -1, 10**30))}",
        f"{page}/resolve/{revision}/{path}", f"{api}/tree/{revision}/{path}",
    ))  # fmt: skip


def _request(method: str, path: str, query: str, headers: list[str], body: bytes) -> bytes:
    head = "\n".join([f"{method} {path}{'?' if query else ''}{query}", *filter(None, headers)])
    return head.encode("latin-1", "replace") + b"\n\n" + body


def _generate_route(rng: random.Random) -> bytes:
    """Mostly reads: any route, revision, path, query and header."""
    method = rng.choice(("GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "X"))
    body = rng.choice((b"", b"", b"{}", b"paths=README.md&paths=dir&expand=true", b"paths=%ff&paths=&paths=..", b"[]"))
    headers = [rng.choice(_HEADERS) for _ in range(rng.randrange(3))]
    return _request(method, _random_path(rng), rng.choice(_QUERIES), headers, body)


_BODIES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("POST", "/api/repos/create", {"name": "b", "organization": None, "type": "model", "private": True}),
    ("POST", "/api/repos/create", {"name": "c", "organization": "local", "type": "dataset", "visibility": "public"}),
    ("DELETE", "/api/repos/delete", {"name": "b", "organization": "local", "type": "model"}),
    ("POST", "/api/repos/move", {"fromRepo": "local/b", "toRepo": "local/d", "type": "model"}),
    ("PUT", "/api/models/local/a/settings", {"private": False, "gated": "auto", "visibility": "public"}),
    ("POST", "/api/validate-yaml", {"repoType": "model", "content": "---\ntags: [x]\n---\n"}),
    ("POST", "/api/models/local/a/branch/x", {"startingPoint": "main"}),
    ("POST", "/api/models/local/a/tag/main", {"tag": "t", "message": "m"}),
    ("POST", "/api/models/local/a/preupload/main", {
        "files": [{"path": "x.bin", "size": 5, "sample": "aGk="}, {"path": "dir/b.txt", "size": 1}],
        "gitAttributes": None, "gitIgnore": "*.tmp\n!x\n**/y/\n[a-z]\n",
    }),
    ("POST", "/local/a.git/info/lfs/objects/batch", {
        "operation": "upload", "transfers": ["basic"], "hash_algo": "sha256",
        "objects": [{"oid": _LFS_OID, "size": len(_LFS)}, {"oid": "1" * 64, "size": 5}],
    }),
    ("POST", "/local/a.git/info/lfs/objects/verify", {"oid": _LFS_OID, "size": len(_LFS)}),
)  # fmt: skip


def _changed(rng: random.Random, value: Any) -> Any:
    if rng.random() < 0.08:
        return random_value(rng)
    if isinstance(value, dict):
        return {key: _changed(rng, item) for key, item in value.items() if rng.random() < 0.95}
    if isinstance(value, list):
        return [_changed(rng, item) for item in value] * rng.choice((1, 1, 1, 2))
    if isinstance(value, str) and rng.random() < 0.1:
        return rng.choice(
            (*_PATHS, *_REPOS, *_REVISIONS, "**/" * rng.randrange(30), "*a" * rng.randrange(30), "\ud800")
        )
    return value


def _generate_body(rng: random.Random) -> bytes:
    """A JSON body of a route that takes one, with some of its values replaced."""
    method, path, value = rng.choice(_BODIES)
    if path == "/api/validate-yaml" and rng.random() < 0.7:
        value = {"content": f"---\n{generate_yaml(rng).decode('utf-8', 'replace')}\n---\n"}
    return _request(method, path, "", [rng.choice(_HEADERS)], json.dumps(_changed(rng, value)).encode())


def _generate_commit(rng: random.Random) -> bytes:
    """The lines of a commit, whose last step moves a branch."""
    operations: list[Any] = [{"key": "header", "value": {"summary": "s", "description": "d", "parentCommit": None}}]
    for _ in range(rng.randrange(5)):
        path = rng.choice((*_PATHS, "README.md", "x/y.txt", "x", ".gitattributes", ".gitignore"))
        operations.append(rng.choice((
            {"key": "file", "value": _file(path, rng.choice((b"", b"x", generate_yaml(rng), b"---\ntags: x\n---\n")))},
            {"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": _LFS_OID, "size": len(_LFS)}},
            {"key": "deletedFile", "value": {"path": path}},
            {"key": "deletedFolder", "value": {"path": path}},
        )))  # fmt: skip
    lines = [json.dumps(_changed(rng, operation)).encode() for operation in operations]
    revision = rng.choice(("main", "main", "main", *_REVISIONS))
    return _request("POST", f"/api/models/local/a/commit/{revision}", "", [], b"\n".join(lines))


def _seeds() -> list[bytes]:
    rng = random.Random(0)
    return [_generate_route(rng) for _ in range(30)]


def _body_seeds() -> list[bytes]:
    return [_request(method, path, "", [], json.dumps(value).encode()) for method, path, value in _BODIES]


def _commit_seeds() -> list[bytes]:
    rng = random.Random(0)
    return [_generate_commit(rng) for _ in range(10)]


_ALL = (
    *_REPOS,
    *_REVISIONS,
    *_PATHS,
    *_QUERIES,
    "/api/",
    "/resolve/",
    "/tree/",
    "/datasets/",
    "?",
    "&",
    "=",
    "GET ",
    "PUT ",
)
_HUB_WORDS = tuple(word.encode("latin-1", "replace") for word in _ALL if word) + WORDS

TARGETS = [
    Target("hub_route", fuzz_hub, _seeds, words=_HUB_WORDS, generate=_generate_route, max_bytes=4000),
    Target("hub_body", fuzz_hub, _body_seeds, words=_HUB_WORDS, generate=_generate_body, max_bytes=8000),
    Target("hub_commit", fuzz_hub, _commit_seeds, words=_HUB_WORDS, generate=_generate_commit, max_bytes=8000),
]
