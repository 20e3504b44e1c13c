"""Bodies within limits of size and time: read by the real framework, sent piece by piece."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.requests import Request

from inference import request_bodies
from inference.openai_chat import RequestError
from inference.request_bodies import BodyReader

FORM = (
    b'--x\r\nContent-Disposition: form-data; name="entity_name"\r\n\r\nwidth\r\n'
    b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\nBYTES\r\n--x--\r\n'
)


def request(
    chunks: Sequence[bytes], *, hangs: bool = False, content_type: str = "multipart/form-data; boundary=x"
) -> Request:
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    if not hangs:
        messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Any:
        if not messages:
            await asyncio.sleep(60)
        return messages.pop(0)

    return Request({"type": "http", "method": "POST", "headers": [(b"content-type", content_type.encode())]}, receive)


def read(body: Request, reader: BodyReader | None = None) -> bytes:
    return asyncio.run((reader or BodyReader()).read(body))


def read_form(body: Request) -> tuple[dict[str, str], bytes]:
    return asyncio.run(BodyReader(timeout_s=0.2).read_form(body))


def test_a_body_is_read_however_it_arrives() -> None:
    assert read(request([b"ab", b"", b"c"])) == b"abc"
    assert read(request([])) == b""
    for size in (1, 7, 1000):
        chunks = [FORM[start : start + size] for start in range(0, len(FORM), size)]
        assert read_form(request(chunks)) == ({"entity_name": "width"}, b"BYTES")


def test_a_body_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BodyReader._receive, "__kwdefaults__", {"max_bytes": 10, "is_kept": True})
    assert read(request([b"x" * 10])) == b"x" * 10
    with pytest.raises(RequestError) as caught:
        read(request([b"x" * 10, b"x"]))
    assert caught.value.status == 413


def test_the_bodies_of_all_requests_have_one_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_bodies, "MAX_HELD_BYTES", 10)
    reader = BodyReader()
    first = request([b"x" * 6])
    assert read(first, reader) == b"x" * 6
    second = request([b"x" * 4, b"x"])
    with pytest.raises(RequestError) as caught:
        read(second, reader)
    assert caught.value.status == 503
    for done in (first, second, second):
        reader.release(done)
    assert read(request([b"x" * 10]), reader) == b"x" * 10


def test_a_body_that_does_not_arrive_ends_at_the_timeout() -> None:
    for body in (request([FORM[:50]], hangs=True), request([], hangs=True)):
        with pytest.raises(RequestError) as caught:
            read_form(body)
        assert caught.value.status == 408
    with pytest.raises(RequestError) as caught:
        read(request([b"x"], hangs=True), BodyReader(timeout_s=0.05))
    assert caught.value.status == 408


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"{}", "application/json"),
        (FORM, "multipart/form-data"),  # no boundary
        (
            FORM.replace(
                b"BYTES\r\n", b'BYTES\r\n--x\r\nContent-Disposition: form-data; name="b"; filename="b"\r\n\r\n\r\n'
            ),
            "multipart/form-data; boundary=x",
        ),
        (FORM.replace(b'"image"', b'"other"'), "multipart/form-data; boundary=x"),
        (FORM.replace(b'; filename="a.png"', b""), "multipart/form-data; boundary=x"),
        (FORM.replace(b"width", b"w" * 2000), "multipart/form-data; boundary=x"),
        (b"--x\r\n\xff\xff: \x00\r\n\r\n", "multipart/form-data; boundary=x"),
        (b"\r\n" * 5000, "multipart/form-data; boundary=x"),
    ],
)
def test_a_form_that_is_another_one_is_refused(content: bytes, content_type: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_form(request([content], content_type=content_type))
    assert caught.value.status == 400
