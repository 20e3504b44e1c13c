"""OpenAI's chat form: what a request asks, and how an answer is returned. The server fetches no URL."""

import base64
import binascii
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inference.request_batches import Answered
from product_vqa.documents import DocumentError, parse_json
from product_vqa.images import MAX_BYTES
from product_vqa.modeling.token_probabilities import AnswerToken
from product_vqa.quoting import one_line
from product_vqa.task.attributes import Schema

MAX_MOST_LIKELY = 20  # OpenAI's limit of top_logprobs
MAX_TEXT = 10_000  # characters of a question
_DATA_URL = re.compile(r"data:image/[\w.+-]{1,40};base64,", re.ASCII)
_TYPES = {400: "invalid_request_error", 404: "invalid_request_error", 408: "timeout", 413: "invalid_request_error"}


class RequestError(Exception):
    """Raised for a request that is refused. `parameter` is the field of the request that is wrong."""

    def __init__(self, status: int, message: str, *, parameter: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.parameter, self.code = status, message, parameter, code

    def describe(self) -> dict[str, Any]:
        """The body of the response, in OpenAI's form."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.parameter, "code": self.code}}


@dataclass(frozen=True)
class ChatRequest:
    """A question about an image. `num_most_likely` is None unless log probabilities are asked for."""

    model: str | None
    text: str
    image: bytes
    num_most_likely: int | None


def parse_chat(body: bytes, *, max_bytes: int) -> ChatRequest:
    """Read a request. Its last message must be the user's, with one text and one image as a data URL.

    What would change the answer and cannot be done (`stream`, `n`) is refused; other options, such as `temperature`,
    have no effect: an answer is the most likely valid one. Raises RequestError, which names the field.
    """
    try:
        content = parse_json(body, max_bytes=max_bytes)
    except DocumentError as error:
        raise RequestError(400, f"the body is not JSON that can be read: {error}") from error
    if not isinstance(content, dict):
        raise RequestError(400, "the body must be a JSON object")
    model = content.get("model")
    if model is not None and not isinstance(model, str):
        raise RequestError(400, "`model` must be a text", parameter="model")
    if content.get("stream"):
        raise RequestError(400, "`stream` is not supported: an answer is short and comes at once", parameter="stream")
    if content.get("n") not in (None, 1):
        raise RequestError(400, "`n` must be 1", parameter="n")
    messages = content.get("messages")
    if not isinstance(messages, list) or not messages or not isinstance(messages[-1], dict):
        raise RequestError(400, "`messages` must be a list of messages", parameter="messages")
    if messages[-1].get("role") != "user":
        raise RequestError(400, "the last of `messages` must have the role user", parameter="messages")
    text, image = _read_parts(messages[-1].get("content"))
    return ChatRequest(model, text, image, _num_most_likely(content))


def _read_parts(parts: Any) -> tuple[str, bytes]:
    parts = parts if isinstance(parts, list) else []
    kinds = [part.get("type") if isinstance(part, dict) else None for part in parts]
    if kinds.count("text") != 1 or kinds.count("image_url") != 1 or len(kinds) != 2:
        raise RequestError(
            400, "the content of the last message must be one part of type text and one of type image_url",
            parameter="messages",
        )  # fmt: skip
    text = parts[kinds.index("text")].get("text")
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        raise RequestError(400, f"the text must have at most {MAX_TEXT} characters", parameter="messages")
    url = parts[kinds.index("image_url")].get("image_url")
    url = url.get("url") if isinstance(url, dict) else url
    return text, decode_data_url(url)


def decode_data_url(url: object) -> bytes:
    """Return the bytes of an image in a data URL. Raises RequestError for any other URL: it is not fetched."""
    match = _DATA_URL.match(url) if isinstance(url, str) else None
    if match is None or not isinstance(url, str):
        raise RequestError(
            400, "image_url must be a data URL, data:image/jpeg;base64,...: other URLs are not fetched",
            parameter="messages",
        )  # fmt: skip
    if (len(url) - match.end()) * 3 // 4 > MAX_BYTES + 3:
        raise RequestError(413, f"the image has more than {MAX_BYTES} bytes", parameter="messages")
    try:
        return base64.b64decode(url[match.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(400, "the data URL is not valid base64", parameter="messages") from error


def _num_most_likely(content: Mapping[str, Any]) -> int | None:
    number = content.get("top_logprobs")
    if not content.get("logprobs"):
        if number is not None:
            raise RequestError(400, "`top_logprobs` needs `logprobs` true", parameter="top_logprobs")
        return None
    if number is None:
        return 0
    if type(number) is not int or not 0 <= number <= MAX_MOST_LIKELY:
        raise RequestError(400, f"`top_logprobs` must be 0 to {MAX_MOST_LIKELY}", parameter="top_logprobs")
    return number


def find_attribute(text: str, schema: Schema) -> str:
    """The attribute that a text asks for: by its question in the schema, or by its name, with spaces or `_`.

    Raises RequestError, with the questions, for any other text: the model was not trained on it.
    """
    asked = _normalize(text)
    for name, attribute in schema.attributes.items():
        if asked in (_normalize(attribute.question), _normalize(name)):
            return name
    known = "; ".join(attribute.question for attribute in list(schema.attributes.values())[:20])
    message = f"{one_line(text)[:100]!r} is none of the questions: {known}"
    raise RequestError(400, message, parameter="messages", code="unknown_question")


def _normalize(text: str) -> str:
    return " ".join(text.replace("_", " ").replace("<image>", " ").casefold().split()).rstrip("? ")


def format_chat(answered: Answered, described: Mapping[str, Any], *, model: str) -> dict[str, Any]:
    """The response. `described` is the answer as `POST /read` returns it; its `confidence` is added to the choice."""
    added = {name: described[name] for name in ("confidence", "shown") if name in described}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": answered.answer.prediction, "refusal": None},
        "finish_reason": "stop",
        "logprobs": _format_tokens(answered.tokens) if answered.tokens is not None else None,
        **added,
        "answer": dict(described),
    }
    total = answered.prompt_tokens + answered.answer_tokens
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
        "usage": {
            "prompt_tokens": answered.prompt_tokens,
            "completion_tokens": answered.answer_tokens,
            "total_tokens": total,
        },
    }


def _format_tokens(tokens: list[AnswerToken]) -> dict[str, Any]:
    def entry(token: str, log_p: float) -> dict[str, Any]:
        return {"token": token, "logprob": max(log_p, -9999.0), "bytes": list(token.encode())}  # JSON has no -inf

    return {
        "content": [
            {
                **entry(token.token, token.log_p),
                "top_logprobs": [entry(other.token, other.log_p) for other in token.most_likely],
            }
            for token in tokens
        ],
        "refusal": None,
    }
