"""What a chat request may hold, and which texts ask for an attribute."""

import base64
import json
from typing import Any

import pytest

from inference.openai_chat import RequestError, decode_data_url, find_attribute, format_chat, parse_chat
from inference.request_batches import Answered
from product_vqa.modeling.answer import Answer
from product_vqa.modeling.token_probabilities import AnswerToken, TokenProbability
from product_vqa.task.schema import CHALLENGE
from product_vqa.task.schema_file import parse_schema

URL = f"data:image/png;base64,{base64.b64encode(b'bytes').decode()}"
TEXT = {"type": "text", "text": "What is the width?"}
IMAGE = {"type": "image_url", "image_url": {"url": URL}}


def parse(parts: Any, **options: Any) -> Any:
    body = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}], **options}
    return parse_chat(json.dumps(body).encode(), max_bytes=100_000)


def test_a_request_has_one_text_and_one_image_in_any_order() -> None:
    for parts in ([TEXT, IMAGE], [IMAGE, TEXT], [TEXT, {"type": "image_url", "image_url": URL}]):
        chat = parse(parts, model="user/adapter", temperature=0.7, max_tokens=1)
        assert (chat.model, chat.text, chat.image) == ("user/adapter", "What is the width?", b"bytes")
        assert chat.num_most_likely is None
    assert parse([TEXT, IMAGE], logprobs=True, top_logprobs=3).num_most_likely == 3
    assert parse([TEXT, IMAGE], logprobs=True).num_most_likely == 0
    assert parse([TEXT, IMAGE], logprobs=False).num_most_likely is None


@pytest.mark.parametrize(
    "parts", ["What is the width?", [TEXT], [IMAGE], [TEXT, TEXT, IMAGE], [TEXT, IMAGE, IMAGE], [1, 2], None, [],
              [{"type": "text", "text": 5}, IMAGE], [{"type": "text", "text": "a" * 10_001}, IMAGE]],
)  # fmt: skip
def test_other_content_is_refused(parts: Any) -> None:
    with pytest.raises(RequestError) as caught:
        parse(parts)
    assert caught.value.status == 400 and caught.value.parameter == "messages"


@pytest.mark.parametrize(
    ("options", "parameter"),
    [({"stream": True}, "stream"), ({"n": 2}, "n"), ({"model": 5}, "model"), ({"top_logprobs": 5}, "top_logprobs"),
     ({"logprobs": True, "top_logprobs": True}, "top_logprobs"),
     ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
     ({"messages": [{"role": "assistant", "content": [TEXT, IMAGE]}]}, "messages"), ({"messages": {}}, "messages")],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_with_its_field(options: dict[str, Any], parameter: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse([TEXT, IMAGE], **options)
    assert caught.value.status == 400 and caught.value.describe()["error"]["param"] == parameter


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/", "https://example.com/a.png", "file:///etc/passwd", "data:text/html;base64,AA==",
            "data:image/png,AA", URL + "\n", URL + "é", None, 5, {}],
)  # fmt: skip
def test_only_data_urls_of_images_are_read(url: object) -> None:
    with pytest.raises(RequestError):
        decode_data_url(url)


@pytest.mark.parametrize("text", ["What is the item weight?", "what is the item  WEIGHT", "item_weight", "Item weight",
                                  "<image>What is the item weight?"])  # fmt: skip
def test_a_question_or_a_name_asks_for_an_attribute(text: str) -> None:
    assert find_attribute(text, CHALLENGE) == "item_weight"


def test_a_question_of_the_schema_asks_for_its_attribute() -> None:
    text = "version: 1\nattributes:\n  brand: {kind: text, max_length: 20, question: 'Who made it?'}\n"
    schema = parse_schema(text, name="s")
    assert find_attribute("who made it", schema) == "brand"
    with pytest.raises(RequestError, match=r"'What is the brand' is none of the questions: Who made it\?"):
        find_attribute("What is the brand", schema)


def test_the_response_is_openais_with_confidence_and_shown_added() -> None:
    answer = Answer("5.0 gram", "5.0 gram", 0.5, value="5.0", unit="gram")
    tokens = [AnswerToken("5", -0.1, (TokenProbability("5", -0.1), TokenProbability("6", float("-inf"))))]
    body = format_chat(Answered(answer, tokens, 10, 4), {"confidence": 0.5, "shown": 0.9, "unit": "gram"}, model="m")
    assert json.loads(json.dumps(body, allow_nan=False)) == body
    (choice,) = body["choices"]
    assert (choice["confidence"], choice["shown"]) == (0.5, 0.9)
    assert choice["message"] == {"role": "assistant", "content": "5.0 gram", "refusal": None}
    assert choice["logprobs"]["content"] == [
        {"token": "5", "logprob": -0.1, "bytes": [53], "top_logprobs": [
            {"token": "5", "logprob": -0.1, "bytes": [53]}, {"token": "6", "logprob": -9999.0, "bytes": [54]}]}
    ]  # fmt: skip
    assert body["usage"] == {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}
