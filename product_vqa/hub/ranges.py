"""Read a part of a file of a repo, by an HTTP range request, or of a folder. Nothing is written to disk."""

import os
import re
import stat
from urllib.parse import quote

import httpx2  # huggingface_hub's own client
import huggingface_hub
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._http import hf_raise_for_status

from product_vqa.errors import InputError
from product_vqa.hub.errors import hub_errors
from product_vqa.hub.locations import Location, find_file
from product_vqa.hub.retries import WAITS_S, retry
from product_vqa.hub.urls import page_url

# A run that streams depends on the Hub for hours, and an outage of minutes should not end it.
RANGE_WAITS_S = (*WAITS_S, 120, 240)
SILENCE_S = 30.0  # longest, of a server within a range
MAX_ERROR_BYTES = 64 * 1024  # of the text with which a server explains an error
_OF_THE_BODY = ("content-encoding", "content-length", "transfer-encoding")


def read_range(location: Location, name: str, *, start: int, length: int, repo_type: str = "model") -> bytes:
    """Read `length` bytes of a file from `start`. Requests whose failure is transient are retried for eight minutes.

    Raises InputError, which names the file, if that fails or the file is shorter.
    """
    if length == 0:
        return b""
    if location.folder is not None:
        return _read_local(location, name, start=start, length=length)
    with hub_errors(location.name, repo_type=repo_type, revision=location.revision):
        return retry(
            lambda: _request(location, name, start=start, length=length, repo_type=repo_type), waits_s=RANGE_WAITS_S
        )


def _request(location: Location, name: str, *, start: int, length: int, repo_type: str) -> bytes:
    assert location.revision is not None
    url = f"{page_url(location.name, repo_type=repo_type)}/resolve/{location.revision}/{quote(name)}"
    wanted = f"bytes {start}-{start + length - 1}/"
    headers = {
        **build_hf_headers(),
        "Range": wanted.replace(" ", "=").rstrip("/"),
        "Accept-Encoding": "identity",  # a compressed answer could be a bomb
    }
    with huggingface_hub.get_session().stream(
        "GET", url, headers=headers, follow_redirects=True, timeout=SILENCE_S
    ) as response:
        _raise_for_status(response)
        got = response.headers.get("Content-Range", "")
        if response.status_code != 206 or not re.sub(r"\s+", " ", got).startswith(wanted):
            raise InputError(
                f"{location}: the server did not answer with the range of {name!r} that was requested. A proxy or "
                "mirror may not support that; without `streaming`, complete files are downloaded"
            )
        content = bytearray()
        for chunk in response.iter_raw():
            content += chunk
            if len(content) > length:
                break
    if len(content) < length:  # the connection was closed early
        raise ConnectionResetError(f"{len(content)} of {length} bytes of {name!r} were received")
    if len(content) > length:
        raise InputError(f"{location}: the server sent more of {name!r} than was requested")
    return bytes(content)


def _raise_for_status(response: httpx2.Response) -> None:
    """Raise what `hf_raise_for_status` raises. It would read the text of an error without any limit."""
    if response.is_success:
        return
    text = bytearray()
    if "Content-Encoding" not in response.headers:
        for chunk in response.iter_raw():
            text += chunk
            if len(text) > MAX_ERROR_BYTES:
                break
    headers = [(name, value) for name, value in response.headers.items() if name.lower() not in _OF_THE_BODY]
    hf_raise_for_status(
        httpx2.Response(
            response.status_code, headers=headers, content=bytes(text[:MAX_ERROR_BYTES]), request=response.request
        )
    )


def _read_local(location: Location, name: str, *, start: int, length: int) -> bytes:
    assert location.folder is not None
    file = find_file(location, location.folder, name)
    if file is None:
        raise InputError(f"{location}: its file {name!r} does not exist")
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InputError(f"{location}: its file {name!r} is not a regular file")
            content = os.pread(descriptor, length, start)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputError(f"{location}: its file {name!r} cannot be read: {error.strerror}") from error
    if len(content) < length:
        raise InputError(f"{location}: its file {name!r} has changed: it ends before byte {start + length}")
    return content
