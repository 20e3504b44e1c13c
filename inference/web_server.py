"""What the page's server accepts from the network, and what it lets a browser do: the layer around Gradio's routes."""

import asyncio
import base64
import hashlib
import os
import re
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from product_vqa.documents import read_bytes

MAX_UPLOADS_BYTES = 256 * 1024**2  # kept for those who ask several questions about an image; the oldest go first
MAX_BODY_BYTES = 1024**2  # of a request that is not an upload
UPLOAD_OVERHEAD_BYTES = 64 * 1024  # the headers of a multipart body
MAX_CONCURRENT_UPLOADS = 4
UPLOAD_TIMEOUT_S = 120
MAX_REQUESTS_PER_MINUTE = 240  # uploads and questions of one client

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

# All that the page and gradio_client ask for. Gradio has more routes: a proxy, recordings, monitoring, an editor.
_ROUTES = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json|/pwa_icon(/\d+)?|/(assets|static|svelte)/.*"
    r"|/gradio_api/(info/?|openapi\.json|app_id/?|startup-events|theme\.css|upload|upload_progress|reset/?|cancel"
    r"|heartbeat/\w+|queue/(join|data)|(call|call/v2)/\w+(/\w+)?/?|file=.*)"
)
_COUNTED = re.compile(r"/gradio_api/(upload|queue/join|call/.*)")
_SPACE_FRAMES = "https://huggingface.co"
_LOOPBACK_NAMES = {"127.0.0.1", "localhost", "[::1]"}
_INLINE_SCRIPT = re.compile(rb"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", re.DOTALL)


# ---- Uploads -------------------------------------------------------------------------------------------------------


@contextmanager
def upload_folder() -> Iterator[Path]:
    """A private folder for Gradio's files, which is removed at the end, also after a SIGTERM."""
    folder = Path(tempfile.mkdtemp(prefix="product-vqa-page-")).resolve()
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGTERM, _exit) if is_main else None
    try:
        yield folder
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, handler)
        os.environ.pop("GRADIO_TEMP_DIR")
        if before is not None:
            os.environ["GRADIO_TEMP_DIR"] = before
        shutil.rmtree(folder, ignore_errors=True)


def _exit(number: int, _: Any) -> None:
    raise SystemExit(128 + number)


class Uploads:
    """The images that were uploaded: a file is deleted when it is read, and its content kept in memory for a while.

    No file outside of `folder` is read or deleted.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_UPLOADS_BYTES) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._contents: OrderedDict[Path, bytes] = OrderedDict()
        self._kept: set[Path] = set()

    def keep_all(self) -> None:
        """Delete no file that the folder holds now: the examples."""
        self._kept = {file for file in self.folder.rglob("*") if file.is_file()}

    def read(self, file: Path, *, max_bytes: int) -> bytes:
        """Return the content of an upload. Raises OSError if it is too large, or not there any more."""
        if not file.resolve().is_relative_to(self.folder):
            raise OSError("not an upload")
        if file in self._kept:
            return read_bytes(file, max_bytes=max_bytes)
        with self._lock:
            try:
                content = read_bytes(file, max_bytes=max_bytes)
            except FileNotFoundError:
                if file not in self._contents:
                    raise
                content = self._contents[file]
            self._contents[file] = content
            self._contents.move_to_end(file)
            while sum(map(len, self._contents.values())) > self._max_bytes and len(self._contents) > 1:
                self._contents.popitem(last=False)
            file.unlink(missing_ok=True)
        return content

    def make_room(self) -> None:
        """Delete the oldest uploads that nobody has asked a question about until the rest is within the limit."""
        found = []
        for file in self.folder.rglob("*"):
            if file not in self._kept and not file.is_symlink() and file.is_file():
                status = file.stat()
                found.append((status.st_mtime, status.st_size, file))
        total = sum(size for _, size, _ in found)
        for _, size, file in sorted(found):
            if total <= self._max_bytes:
                return
            file.unlink(missing_ok=True)
            total -= size


# ---- Requests ------------------------------------------------------------------------------------------------------


class PageGuard:
    """ASGI middleware: refuses what the page does not need, limits the rest, and adds the headers that protect it.

    Requests are refused before their body is read: of other hosts, if the page is for this machine only (a name that
    an attacker's DNS server points to 127.0.0.1), of other pages (Origin), of unknown routes, of too many or too large
    bodies. In answers, the path of the upload folder is replaced by an alias.
    """

    def __init__(self, app: Any, *, folder: Path, uploads: Uploads, max_upload_bytes: int, is_loopback: bool) -> None:
        self._app, self._folder, self._uploads = app, folder, uploads
        self._max_upload_bytes, self._is_loopback = max_upload_bytes + UPLOAD_OVERHEAD_BYTES, is_loopback
        self._path = str(folder).encode()
        self._alias = ("/uploads-" + secrets.token_hex(len(self._path))).encode()[: len(self._path)]
        self._num_uploading = 0
        self._recent: dict[str, list[float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # the page has no WebSocket
        refusal = self._refusal(scope)
        if refusal is not None:
            await _answer(send, *refusal, headers=self._headers(b""))
            return
        is_upload = scope["path"] == "/gradio_api/upload"
        limit = self._max_upload_bytes if is_upload else MAX_BODY_BYTES
        scope = {**scope, "path": self._to_path(scope["path"].encode()).decode()}
        if "raw_path" in scope:
            scope["raw_path"] = self._to_path(scope["raw_path"] or b"")
        body, start = _Body(receive, limit, None if is_upload else self._to_path), _Start(send, self)
        if not is_upload:
            await self._app(scope, body, start)
            return
        self._uploads.make_room()
        self._num_uploading += 1
        try:
            async with asyncio.timeout(UPLOAD_TIMEOUT_S):
                await self._app(scope, body, start)
        except Exception as error:  # whatever Gradio makes of a body that ends early
            if not (isinstance(error, TimeoutError) or body.is_cut):
                raise
            if not start.is_started:
                await _answer(send, 413, "The upload is too large, or took too long.", headers=[])
        finally:
            self._num_uploading -= 1
            if not self._num_uploading:
                for file in self._folder.iterdir():  # of an upload that did not end: complete ones are in subfolders
                    if file.is_file():
                        file.unlink(missing_ok=True)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """The status and the reason of a refusal; None for a request that is served."""
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if self._is_loopback and re.sub(r":\d+$", "", host) not in _LOOPBACK_NAMES:
            return 421, "This page is served under the name localhost only."
        origin = headers.get(b"origin")
        allowed = {host, os.environ.get("SPACE_HOST", host)}
        if origin is not None and re.sub(r"^https?://", "", origin) not in allowed:
            return 403, "Requests from other pages are refused."
        path = scope["path"]
        is_page = path == "/" and scope["method"] == "GET"
        if headers.get(b"sec-fetch-site") == "cross-site" and not is_page:
            return 403, "Requests from other pages are refused."
        if not _ROUTES.fullmatch(path) or scope["method"] not in ("GET", "HEAD", "POST"):
            return 404, "Not found."
        if path.startswith("/gradio_api/file=") and not path.startswith(f"/gradio_api/file={self._alias.decode()}/"):
            return 404, "Not found."
        length = headers.get(b"content-length", "0")
        limit = self._max_upload_bytes if path == "/gradio_api/upload" else MAX_BODY_BYTES
        if not length.isdigit() or len(length) > 15 or int(length) > limit:
            return 413, f"This request is too large; files exceed the maximum allowed size at {limit} bytes."
        if path == "/gradio_api/upload" and self._num_uploading >= MAX_CONCURRENT_UPLOADS:
            return 503, "Too many uploads at once; try again."
        if scope["method"] == "POST" and _COUNTED.fullmatch(path) and self._is_flooding(scope, headers):
            return 429, "Too many requests; try again in a minute."
        return None

    def _is_flooding(self, scope: Scope, headers: dict[bytes, str]) -> bool:
        client = (scope.get("client") or ("",))[0]
        if "SPACE_ID" in os.environ:  # behind the Hub's proxy
            client = headers.get(b"x-forwarded-for", client).rpartition(",")[2].strip()
        now = time.monotonic()
        recent = [moment for moment in self._recent.get(client, []) if now - moment < 60]
        if len(recent) >= MAX_REQUESTS_PER_MINUTE:
            return True
        if len(self._recent) > 10_000:
            self._recent.clear()
        self._recent[client] = [*recent, now]
        return False

    def _to_path(self, content: bytes) -> bytes:
        return content.replace(self._alias, self._path)

    def _to_alias(self, content: bytes) -> bytes:
        return content.replace(self._path, self._alias)  # of the same length

    def _headers(self, html: bytes) -> Headers:
        """The headers that tell a browser what the page may do. Its own inline scripts are allowed by their hashes."""
        digests = [
            base64.b64encode(hashlib.sha256(script).digest()).decode() for script in _INLINE_SCRIPT.findall(html)
        ]
        scripts = " ".join(f"'sha256-{digest}'" for digest in digests)
        is_space = "SPACE_ID" in os.environ
        policy = (
            f"default-src 'self'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; "
            "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' blob:; connect-src 'self'; "
            "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
            f"frame-ancestors {_SPACE_FRAMES if is_space else chr(39) + 'none' + chr(39)}"
        )
        headers = {
            "content-security-policy": policy,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cross-origin-resource-policy": "same-origin",
            "permissions-policy": "camera=(), microphone=(), geolocation=()",
        }
        if not is_space:
            headers["x-frame-options"] = "DENY"
        return [(name.encode(), value.encode()) for name, value in headers.items()]


class _Body:
    """`receive` that ends a body over its limit, and puts the folder's path in the place of its alias."""

    def __init__(self, receive: Receive, limit: int, convert: Callable[[bytes], bytes] | None) -> None:
        self._receive, self._left, self._convert = receive, limit, convert
        self.is_cut = False

    async def __call__(self) -> MutableMapping[str, Any]:
        if self._convert is None:
            return self._count(await self._receive())
        message = self._count(await self._receive())
        body = [message.get("body", b"")]
        while message["type"] == "http.request" and message.get("more_body"):  # the alias may be in two pieces
            message = self._count(await self._receive())
            body.append(message.get("body", b""))
        return {**message, "body": self._convert(b"".join(body))} if message["type"] == "http.request" else message

    def _count(self, message: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        self._left -= len(message.get("body", b""))
        self.is_cut |= self._left < 0 or message["type"] == "http.disconnect"
        return {"type": "http.disconnect"} if self.is_cut else message


class _Start:
    """`send` that adds the headers and hides the folder's path in text. It holds the start back until the body's."""

    def __init__(self, send: Send, guard: PageGuard) -> None:
        self._send, self._guard = send, guard
        self._start: MutableMapping[str, Any] | None = None
        self._is_text = False
        self.is_started = False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        self.is_started = True
        if message["type"] == "http.response.start":
            self._start = message
            kind = dict(message.get("headers", [])).get(b"content-type", b"")
            self._is_text = kind.startswith((b"text/", b"application/json"))
            return
        if self._is_text and "body" in message:
            message = {**message, "body": self._guard._to_alias(message["body"])}
        if self._start is not None:
            added = self._guard._headers(message.get("body", b"") if self._is_text else b"")
            start, self._start = self._start, None
            await self._send({**start, "headers": [*start.get("headers", []), *added]})
        await self._send(message)


async def _answer(send: Send, status: int, reason: str, *, headers: Headers) -> None:
    body = reason.encode()
    about = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*about, *headers]})
    await send({"type": "http.response.body", "body": body})
