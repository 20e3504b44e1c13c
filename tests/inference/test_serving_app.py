"""The HTTP interface, asked by real clients: answers, refusals, and clients that disturb."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2 as httpx
import pytest

from inference import AttributeReader
from inference.request_bodies import MAX_BODY_BYTES
from inference.shared_readers import SharedReaders
from product_vqa.images import MAX_BYTES
from tests.inference.servers import HTTP, RunningServer, chat_body, running_server
from tests.product_vqa.png_files import encode_png
from tests.tiny import make_image, make_rows

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reader(adapter: tuple[str, Any]) -> AttributeReader:
    return AttributeReader.from_pretrained(adapter[0], dtype="float32")


@pytest.fixture(scope="module")
def served(reader: AttributeReader) -> Iterator[RunningServer]:
    with running_server(SharedReaders({"local/trained-adapter": reader})) as server:
        yield server


def test_answers_are_those_of_the_reader(served: RunningServer, reader: AttributeReader) -> None:
    rows = make_rows(24, start=400)
    expected = reader.read_batch([row["image"] for row in rows], [row["entity_name"] for row in rows])
    with ThreadPoolExecutor(12) as clients:
        responses = list(clients.map(lambda row: served.read(encode_png(row["image"]), row["entity_name"]), rows))
    for row, response, answer in zip(rows, responses, expected, strict=True):
        assert response.status_code == 200, response.text
        found = response.json()
        assert (found["text"], found["prediction"], found["value"], found["unit"]) == (
            answer.text, answer.prediction, answer.value, answer.unit
        )  # fmt: skip
        assert found["number"] == float(answer.value)
        assert found["confidence"] == pytest.approx(answer.confidence, abs=1e-4)
        assert found["entity_name"] == row["entity_name"]
        assert found["model"] == "local/trained-adapter"
    text = HTTP.get(f"{served.url}/metrics").text
    sizes = [line for line in text.splitlines() if line.startswith("product_vqa_batch_size_count")]
    assert int(sizes[0].split()[-1]) < 24, "no batch had two questions"


def test_the_chat_form_answers_questions_and_names(served: RunningServer, reader: AttributeReader) -> None:
    image = make_image(5)
    answer = reader.read(image, "item_weight")
    for text in ("What is the item weight?", "what is  the ITEM weight", "item_weight", "item weight"):
        response = served.chat(encode_png(image), text)
        assert response.status_code == 200, response.text
        body = response.json()
        assert body["object"] == "chat.completion" and body["model"] == "local/trained-adapter"
        (choice,) = body["choices"]
        assert choice["message"]["content"] == answer.prediction == "500.0 gram"
        assert choice["finish_reason"] == "stop" and choice["logprobs"] is None
        assert choice["confidence"] == pytest.approx(answer.confidence, abs=1e-4)
        assert choice["answer"]["number"] == 500.0
        assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"]


def test_log_probabilities_are_those_of_each_token_of_the_answer(served: RunningServer) -> None:
    body = served.chat(encode_png(make_image(5)), "item_weight", logprobs=True, top_logprobs=5).json()
    tokens = body["choices"][0]["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == "500.0 gram<eos>"
    for token in tokens:
        listed = [one["logprob"] for one in token["top_logprobs"]]
        assert len(listed) == 5 and listed == sorted(listed, reverse=True)
        assert token["logprob"] <= listed[0] <= 0
        assert bytes(token["bytes"]).decode() == token["token"]
    (choice,) = served.chat(encode_png(make_image(5)), "item_weight", logprobs=True).json()["choices"]
    assert [token["top_logprobs"] for token in choice["logprobs"]["content"]] == [[]] * len(tokens)


def test_the_models_list_their_attributes(served: RunningServer) -> None:
    (model,) = HTTP.get(f"{served.url}/v1/models").json()["data"]
    assert model["id"] == "local/trained-adapter" and model["object"] == "model"
    assert model["attributes"]["item_weight"] == "What is the item weight?"
    assert HTTP.get(f"{served.url}/health").json() == {"status": "ok"}


def message(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return str(error["message"])


def test_a_wrong_request_is_refused_with_the_field(served: RunningServer) -> None:
    image = encode_png(make_image(1))
    assert "`entity_name` 'colour' is none of width, " in message(served.read(image, "colour"), 400)
    assert "the image cannot be used: not_a_picture" in message(served.read(b"garbage", "width"), 400)
    assert "`adapter` 'x/y' is none of" in message(served.read(image, "width", adapter="x/y"), 404)
    assert "the form has no file `image`" in message(
        HTTP.post(f"{served.url}/read", files={"other": b""}, data={"entity_name": "width"}), 400
    )
    assert "multipart/form-data" in message(HTTP.post(f"{served.url}/read", json={}), 400)
    assert "is none of the questions: What is the" in message(served.chat(image, "What colour is it?"), 400)
    assert "other URLs are not fetched" in message(served.chat("http://127.0.0.1/x.png", "width"), 400)
    assert "other URLs are not fetched" in message(served.chat("file:///etc/passwd", "width"), 400)
    assert "not valid base64" in message(served.chat("data:image/png;base64,%%%", "width"), 400)
    assert "`stream` is not supported" in message(served.chat(image, "width", stream=True), 400)
    assert "`n` must be 1" in message(served.chat(image, "width", n=2), 400)
    assert "`top_logprobs` must be 0 to 20" in message(
        served.chat(image, "width", logprobs=True, top_logprobs=21), 400
    )
    assert "`model` 'gpt' is none of" in message(served.chat(image, "width", model="gpt"), 404)
    post = f"{served.url}/v1/chat/completions"
    for content in (b"", b"{", b"[]", b"\xff", b"[" * 10_000, json.dumps({"messages": [1]}).encode()):
        message(HTTP.post(post, content=content), 400)
    assert message(HTTP.get(post), 405) == "Method Not Allowed"
    assert message(HTTP.get(f"{served.url}/nothing"), 404) == "Not Found"


def test_a_body_beyond_the_limit_is_refused(served: RunningServer) -> None:
    large = b"x" * (MAX_BODY_BYTES + 1)
    assert "the body has more than" in message(HTTP.post(f"{served.url}/v1/chat/completions", content=large), 413)
    assert "the body has more than" in message(served.read(large, "width"), 413)
    assert "too_many_bytes" in message(served.read(b"x" * (MAX_BYTES + 1), "width"), 400)
    assert served.read(encode_png(make_image(1)), "width").status_code == 200


def test_other_pages_and_host_names_are_refused(served: RunningServer) -> None:
    url = f"{served.url}/health"
    assert "other web pages" in message(HTTP.get(url, headers={"origin": "https://evil.example"}), 403)
    assert "localhost" in message(HTTP.get(url, headers={"host": "evil.example"}), 421)
    assert HTTP.get(url, headers={"origin": served.url}).status_code == 200


def head(path: str, length: int, *headers: str) -> bytes:
    """The head of a request."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {length}", *headers]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def test_garbage_and_clients_that_hang_slow_no_other(reader: AttributeReader) -> None:
    image = encode_png(make_image(2))
    with running_server(SharedReaders({"a": reader}), body_timeout_s=2.0) as server:
        hanging = [server.connect() for _ in range(20)]
        for number, client in enumerate(hanging):
            if number % 2:
                client.sendall(head("/read", 100_000, "Content-Type: multipart/form-data; boundary=x") + b"--x\r\n")
            else:
                client.sendall(b"POST /read HT")
        for garbage in (b"\x00\xff\x16\x03\x01 garbage\r\n\r\n", b"GET\r\n\r\n", b"A" * 100_000):
            with server.connect() as client:
                client.sendall(garbage)
                assert b"400" in client.recv(1000)
        assert server.read(image, "width").status_code == 200
        # It comes after the timeout, in one packet or two; then the server closes the connection.
        answer = b"".join(iter(lambda: hanging[1].recv(10_000), b""))
        assert answer.startswith(b"HTTP/1.1 408 ") and b"the body took more than 2 s" in answer
        assert server.read(image, "width").status_code == 200
        for client in hanging:
            client.close()


def test_a_full_server_refuses_at_once_and_answers_again_later(reader: AttributeReader) -> None:
    image = encode_png(make_image(2))
    with running_server(SharedReaders({"a": reader}), batch_size=1, max_questions=2) as server:
        is_free = threading.Event()
        hook = reader.model.register_forward_pre_hook(lambda *_: is_free.wait(60) and None)
        with ThreadPoolExecutor(2) as clients:
            waiting = [clients.submit(server.read, image, "width") for _ in range(2)]
            while server.batches.num_questions < 2:
                time.sleep(0.01)
            refused = [server.read(image, "width"), server.chat(image, "width")]
            is_free.set()
            assert [one.result().status_code for one in waiting] == [200, 200]
        hook.remove()
        for response in refused:
            assert "as many questions as it can" in message(response, 503)
            assert response.headers["retry-after"] == "1"
        assert server.read(image, "width").status_code == 200


def test_a_client_that_leaves_costs_no_answer(reader: AttributeReader) -> None:
    with running_server(SharedReaders({"a": reader}), batch_size=1) as server:
        is_free = threading.Event()
        hook = reader.model.register_forward_pre_hook(lambda *_: is_free.wait(60) and None)
        with ThreadPoolExecutor(1) as clients:
            first = clients.submit(server.read, encode_png(make_image(1)), "width")
            while server.batches.num_questions < 1:
                time.sleep(0.01)
            body = json.dumps(chat_body(encode_png(make_image(2)), "width")).encode()
            leaving = server.connect()
            leaving.sendall(head("/v1/chat/completions", len(body)) + body)
            while server.batches.num_questions < 2:
                time.sleep(0.01)
            leaving.close()
            while server.batches.num_questions > 1:
                time.sleep(0.01)
            is_free.set()
            assert first.result().status_code == 200
        hook.remove()
        text = HTTP.get(f"{server.url}/metrics").text
        assert 'product_vqa_batch_size_count{adapter="a"} 1' in text
        assert 'product_vqa_requests_total{route="/v1/chat/completions",status="499"} 1' in text
