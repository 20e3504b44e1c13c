"""Reading the body of a request, within a size and a time.

An endpoint authorizes the request first. A body that is not read to its end is never read: the connection is closed
after the response (`local_hub.connections`).
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect, Request

from local_hub.errors import HubError
from product_vqa.documents import DocumentError, parse_json

JSON_SIZE_MAX = 2 * 2**20  # bytes; a preupload of 256 files with a sample and a long path each takes 0.5 MB
PUBLIC_SIZE_MAX = 256 * 2**10  # bytes, of a request that needs no write access
LINE_SIZE_IN_MEMORY = 2**20  # bytes of an unfinished line; the rest of it waits on disk
WAIT_MAX_S = 30.0  # for the next bytes
SPEED_MIN = 1024  # bytes per second of waiting, after the first WAIT_MAX_S
JSON_TYPES = ("application/json", "application/x-ndjson", "application/vnd.git-lfs+json")


def size_max_of(request: Request) -> int:
    """The largest body that is kept in memory: strangers may send many at once."""
    account = request.state.account
    return JSON_SIZE_MAX if account is not None and account.may_write else PUBLIC_SIZE_MAX


async def read_chunks(request: Request, *, size_max: int, too_large: HubError | None = None) -> AsyncIterator[bytes]:
    """Yield the body as it arrives.

    Raises `too_large` (by default HubError 413) if it has more than `size_max` bytes, before anything is read if the
    client announces it. Raises HubError 408 if it arrives too slowly.
    """
    too_large = too_large or HubError(413, f"The request body may have at most {size_max} bytes")
    announced = request.headers.get("content-length", "0")
    if not announced.isascii() or not announced.isdigit() or len(announced) > 18:
        raise HubError(400, "Content-Length must be a number")
    if int(announced) > size_max:
        raise too_large
    size = 0
    waited_s = 0.0
    more_body = True
    while more_body:
        start = time.monotonic()
        try:
            async with asyncio.timeout(min(WAIT_MAX_S, WAIT_MAX_S + size / SPEED_MIN - waited_s)):
                message = await request.receive()
        except TimeoutError as error:
            raise HubError(408, "The request body arrives too slowly") from error
        waited_s += time.monotonic() - start
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        more_body = message.get("more_body", False)
        size += len(chunk)
        if size > size_max:
            raise too_large
        if chunk:
            yield chunk


async def read_body(request: Request) -> bytes:
    return b"".join([chunk async for chunk in read_chunks(request, size_max=size_max_of(request))])


async def read_json(request: Request) -> dict[str, Any]:
    """The JSON object in the body; {} for an empty body."""
    refuse_media_type(request)
    content = await read_body(request)
    if not content:
        return {}
    try:
        body = parse_json(content)
    except DocumentError as error:
        raise HubError(400, f"The request body is not valid: {error}") from error
    if not isinstance(body, dict):
        raise HubError(400, "The request body must be a JSON object")
    return body


async def read_form(request: Request, *, num_fields_max: int) -> dict[str, list[str]]:
    content = await read_body(request)
    try:
        return parse_qs(content.decode("utf-8", "replace"), max_num_fields=num_fields_max)
    except ValueError as error:
        raise HubError(413, f"The form may have at most {num_fields_max} fields") from error


async def read_lines(
    request: Request, *, line_size_max: int, size_max: int, tmp_dir: Path, too_long: str
) -> AsyncIterator[bytes]:
    """Yield the lines of the body as they arrive, except empty ones. `too_long` is the error for a longer line."""
    refuse_media_type(request)
    with tempfile.SpooledTemporaryFile(LINE_SIZE_IN_MEMORY, dir=str(tmp_dir)) as line:
        async for chunk in read_chunks(request, size_max=size_max):
            *ends, rest = chunk.split(b"\n")
            for end in ends:
                line.write(end)
                if content := _take(line):
                    yield content
            line.write(rest)
            if line.tell() > line_size_max:
                raise HubError(413, too_long)
        if content := _take(line):
            yield content


def refuse_media_type(request: Request) -> None:
    """Refuse what a web page can send to another site without asking, such as text/plain. The clients send JSON."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type and media_type not in JSON_TYPES:
        raise HubError(415, f"Content-Type must be one of {', '.join(JSON_TYPES)}, got {media_type[:100]}")


def _take(line: "tempfile.SpooledTemporaryFile[bytes]") -> bytes:
    """The content of the file, which is emptied."""
    line.seek(0)
    content = line.read().strip()
    line.seek(0)
    line.truncate()
    return content
