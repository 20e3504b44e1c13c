"""The HTTP interface: `POST /read`, OpenAI's `/v1/chat/completions` and `/v1/models`, `/health` and `/metrics`."""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import torch
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from inference.openai_chat import ChatRequest, RequestError, find_attribute, format_chat, parse_chat
from inference.request_batches import Answered, Question, QueueFullError, RequestBatches
from inference.request_bodies import MAX_BODY_BYTES, BodyReader
from inference.server_metrics import CONTENT_TYPE, ServerMetrics
from product_vqa.images import ImageError, load_image
from product_vqa.modeling.answer import Answer
from product_vqa.quoting import one_line

logger = logging.getLogger(__name__)

DECODING_THREADS = 4  # an image may take 0.2 GB while it is decoded
ANSWER_TIMEOUT_S = 120.0  # from a complete body to its answer
RETRY_AFTER_S = 1  # of a request that was refused because too many are being answered
_LOOPBACK_NAMES = {"127.0.0.1", "localhost", "[::1]"}

T = TypeVar("T")
Endpoint = Callable[[Request], Awaitable[Response]]


def describe_answer(answer: Answer, *, model: str) -> dict[str, Any]:
    """An answer as JSON: all fields of `Answer`, and of an alternative its prediction and confidence."""
    alternatives = [{"prediction": other.prediction, "confidence": other.confidence} for other in answer.alternatives]
    return {"model": model, **answer.as_dict(), "alternatives": alternatives}


class ServingApp:
    """The endpoints. Images are decoded in threads, and answered by `RequestBatches`."""

    def __init__(
        self,
        batches: RequestBatches,
        *,
        metrics: ServerMetrics,
        is_loopback: bool = True,
        bodies: BodyReader | None = None,
    ) -> None:
        self._batches, self._metrics, self._is_loopback = batches, metrics, is_loopback
        self._bodies = bodies or BodyReader()
        self._threads = ThreadPoolExecutor(DECODING_THREADS, thread_name_prefix="decode")

    def app(self) -> Starlette:
        app = Starlette(
            routes=[
                Route("/read", self._guard(self.read), methods=["POST"]),
                Route("/v1/chat/completions", self._guard(self.chat), methods=["POST"]),
                Route("/v1/models", self._guard(self.models)),
                Route("/health", self._guard(self.health)),
                Route("/metrics", self._guard(self.metrics)),
            ],
            exception_handlers={HTTPException: _handle_http_exception},
        )
        app.router.redirect_slashes = False
        return app

    async def read(self, request: Request) -> Response:
        """Answer one attribute of an uploaded image."""
        await self._refuse_if_full(request)
        texts, image = await self._bodies.read_form(request)
        model = self._model(texts.get("adapter"), parameter="adapter")
        schema = self._batches.readers[model].schema
        entity_name = texts.get("entity_name", "")
        if entity_name not in schema.attributes:
            raise RequestError(
                400, f"`entity_name` {one_line(entity_name)[:100]!r} is none of {', '.join(schema.names)}",
                parameter="entity_name",
            )  # fmt: skip
        with self._batches.admit():
            question = await self._decode(request, image, model=model, entity_name=entity_name)
            del image
            answered = await self._await(request, question)
        return JSONResponse(describe_answer(answered.answer, model=model))

    async def chat(self, request: Request) -> Response:
        """Answer a question about an image, in OpenAI's form."""
        await self._refuse_if_full(request)
        chat = await self._parse(await self._bodies.read(request))
        model = self._model(chat.model, parameter="model")
        entity_name = find_attribute(chat.text, self._batches.readers[model].schema)
        with self._batches.admit():
            question = await self._decode(
                request, chat.image, model=model, entity_name=entity_name, num_most_likely=chat.num_most_likely
            )
            del chat
            answered = await self._await(request, question)
        described = describe_answer(answered.answer, model=model)
        return JSONResponse(format_chat(answered, described, model=model))

    async def models(self, request: Request) -> Response:
        """The adapters, with the attributes that they know."""
        readers = self._batches.readers
        return JSONResponse({
            "object": "list",
            "data": [
                {
                    "id": name, "object": "model", "created": 0, "owned_by": "product-vqa",
                    "attributes": {one.name: one.question for one in readers[name].schema.attributes.values()},
                }
                for name in readers.names
            ],
        })  # fmt: skip

    async def health(self, request: Request) -> Response:
        is_alive = self._batches.is_alive
        return JSONResponse({"status": "ok" if is_alive else "failed"}, status_code=200 if is_alive else 503)

    async def metrics(self, request: Request) -> Response:
        gauges = {"questions": self._batches.num_questions, "questions_max": self._batches.max_questions}
        return PlainTextResponse(self._metrics.format(gauges), media_type=CONTENT_TYPE)

    async def _decode(
        self, request: Request, image: bytes, *, model: str, entity_name: str, num_most_likely: int | None = None
    ) -> Question:
        """Decode an image in a thread, after which its bytes are held no longer."""
        try:
            decoded, resized = await self._in_thread(partial(self._resize, image, model))
        except ImageError as error:
            raise RequestError(400, f"the image cannot be used: {error}", parameter="image") from error
        self._bodies.release(request)
        is_needed = num_most_likely is not None
        return Question(model, entity_name, resized, num_most_likely, decoded=decoded if is_needed else None)

    def _resize(self, image: bytes, model: str) -> tuple[Image.Image, torch.Tensor]:
        decoded = load_image(image)
        return decoded, self._batches.resize(model, decoded)

    async def _await(self, request: Request, question: Question) -> Answered:
        """Wait for the answer, or for the client to close the connection: then nobody needs it."""
        answer: asyncio.Future[Any] = asyncio.wrap_future(self._batches.ask(question))
        gone: asyncio.Future[Any] = asyncio.ensure_future(_wait_for_disconnect(request))
        try:
            await asyncio.wait({answer, gone}, timeout=ANSWER_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            if gone.done():
                raise ClientDisconnect
            raise RequestError(503, f"no answer within {ANSWER_TIMEOUT_S:g} s; try again")
        finally:
            gone.cancel()
            answer.cancel()  # no effect on one that is done
            with suppress(asyncio.CancelledError):
                await gone

    async def _parse(self, body: bytes) -> ChatRequest:
        return await self._in_thread(partial(parse_chat, body, max_bytes=MAX_BODY_BYTES))

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    def _model(self, name: str | None, *, parameter: str) -> str:
        names = self._batches.readers.names
        if not name:
            return names[0]
        if name not in names:
            raise RequestError(
                404, f"`{parameter}` {one_line(name)[:100]!r} is none of {', '.join(names)}", parameter=parameter,
                code="model_not_found",
            )  # fmt: skip
        return name

    async def _refuse_if_full(self, request: Request) -> None:
        """Refuse before an image is received; `admit` decides."""
        if self._batches.num_questions >= self._batches.max_questions:
            await self._bodies.discard(request)
            raise QueueFullError

    def _guard(self, endpoint: Endpoint) -> Endpoint:
        """Refuse requests of other web pages, count all of them, and return errors as JSON."""

        async def call(request: Request) -> Response:
            start = time.monotonic()
            response = await self._respond(endpoint, request)
            self._metrics.record_request(request.url.path, response.status_code, time.monotonic() - start)
            return response

        return call

    async def _respond(self, endpoint: Endpoint, request: Request) -> Response:
        try:
            self._check_origin(request)
            return await endpoint(request)
        except RequestError as error:
            return _error_response(error)
        except QueueFullError:
            return _error_response(
                RequestError(503, "the server answers as many questions as it can; try again", code="queue_full")
            )
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it
        except Exception:
            logger.exception("%s %s", request.method, request.url.path)
            return _error_response(RequestError(500, "internal error: see the output of the server"))
        finally:
            self._bodies.release(request)

    def _check_origin(self, request: Request) -> None:
        """Refuse what a page of another site makes a browser send: to a server on this machine, too."""
        host = request.headers.get("host", "")
        if self._is_loopback and re.sub(r":\d+$", "", host) not in _LOOPBACK_NAMES:
            raise RequestError(421, "this server is for this machine only: use the name localhost")
        origin = request.headers.get("origin")
        if origin is not None and re.sub(r"^https?://", "", origin) != host:
            raise RequestError(403, "requests of other web pages are refused")


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _error_response(error: RequestError) -> JSONResponse:
    headers = {"Retry-After": str(RETRY_AFTER_S)} if error.status == 503 else {}
    if error.status in (408, 413):
        headers["Connection"] = "close"  # the rest of the body is not read
    return JSONResponse(error.describe(), status_code=error.status, headers=headers)


async def _handle_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = _error_response(RequestError(error.status_code, error.detail))
    response.headers.update(error.headers or {})
    return response
