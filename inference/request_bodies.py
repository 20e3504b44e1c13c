"""The body of a request, within limits of size, time and memory, whoever sends it."""

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from inference.openai_chat import RequestError
from product_vqa.images import MAX_BYTES

MAX_BODY_BYTES = MAX_BYTES * 4 // 3 + 1024**2  # an image in base64, and what is around it
MAX_HELD_BYTES = 512 * 1024**2  # of all bodies that are being received, or whose image is being decoded
BODY_TIMEOUT_S = 30.0  # for a complete body
MAX_DISCARDED_BYTES = 2 * MAX_BODY_BYTES  # of a body that is refused
MAX_FIELDS = 8
MAX_FIELD_BYTES = 1024
_HELD = "product_vqa.held_bytes"  # of a request, in its scope


class BodyReader:
    """Reads the bodies of all requests. Each of them may take `timeout_s`, from its first byte to its last.

    The bytes of a request count as held until `release`.
    """

    def __init__(self, *, timeout_s: float = BODY_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._held = 0  # bytes

    async def read(self, request: Request) -> bytes:
        """Return the body. Raises RequestError if it is too large, or arrives too slowly."""
        return b"".join([chunk async for chunk in self._receive(request)])

    async def read_form(self, request: Request) -> tuple[dict[str, str], bytes]:
        """Return the texts of a multipart form, and the content of its file `image`. Raises RequestError as `read`."""
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            await self.discard(request)
            raise RequestError(400, "the body must be multipart/form-data with a file `image`", parameter="image")
        chunks = self._receive(request)

        async def receive() -> MutableMapping[str, Any]:
            chunk = await anext(chunks, None)
            return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

        limited = Request(request.scope, receive)
        try:
            form = await limited.form(max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES)
        except RequestError:
            raise
        except (HTTPException, MultiPartException) as error:  # the first one within an application
            await self._drain(chunks)
            reason = error.detail if isinstance(error, HTTPException) else error.message
            raise RequestError(400, f"the form cannot be read: {reason}") from error
        except (ValueError, LookupError) as error:  # a charset that does not exist, for instance
            await self._drain(chunks)
            raise RequestError(400, "the form cannot be read") from error
        try:
            texts = {name: value for name, value in form.multi_items() if isinstance(value, str)}
            image = form.get("image")
            if not isinstance(image, UploadFile):
                raise RequestError(400, "the form has no file `image`", parameter="image")
            return texts, await image.read()
        finally:
            await form.close()

    def release(self, request: Request) -> None:
        """Count the body of a request no longer: its image is decoded, or it is refused."""
        self._held -= request.scope.pop(_HELD, 0)

    async def discard(self, request: Request) -> None:
        """Read a body that is refused: a client that still sends would not read the response."""
        await self._drain(self._receive(request, max_bytes=MAX_DISCARDED_BYTES, is_kept=False))

    async def _drain(self, chunks: AsyncIterator[bytes]) -> None:
        async for _ in chunks:
            pass

    async def _receive(
        self, request: Request, *, max_bytes: int = MAX_BODY_BYTES, is_kept: bool = True
    ) -> AsyncIterator[bytes]:
        stream = request.stream()
        end = asyncio.get_running_loop().time() + self._timeout_s
        size = 0
        refusal: RequestError | None = None
        while True:
            try:
                async with asyncio.timeout_at(end):
                    chunk = await anext(stream, None)
            except TimeoutError as error:
                raise RequestError(408, f"the body took more than {self._timeout_s:g} s") from error
            if chunk is None:
                break
            size += len(chunk)
            if size > MAX_DISCARDED_BYTES:
                break
            if size > max_bytes:
                refusal = RequestError(413, f"the body has more than {max_bytes} bytes")
            elif is_kept and self._held + len(chunk) > MAX_HELD_BYTES:
                refusal = RequestError(503, "the server is receiving too much at once; try again")
            if refusal is None and is_kept:
                self._held += len(chunk)
                request.scope[_HELD] = request.scope.get(_HELD, 0) + len(chunk)
                yield chunk
        if refusal is not None:
            raise refusal
