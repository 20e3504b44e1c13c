"""URLs among the items of `AttributeReader.read_many`: downloaded where asked for, each with its own error."""

import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from product_vqa.images import ImageError
from product_vqa.modeling import item_urls
from product_vqa.modeling.attribute_reader import AttributeReader
from product_vqa.task.schema import CHALLENGE
from tests.dataset_builder.image_server import ImageServer, send
from tests.product_vqa.png_files import encode_png
from tests.tiny import make_image


@pytest.fixture(scope="module")
def reader(model: PaliGemmaForConditionalGeneration, processor: PaliGemmaProcessor) -> AttributeReader:
    return AttributeReader(model, processor, schema=CHALLENGE)


def read(reader: AttributeReader, items: list[Any], **options: Any) -> list[Any]:
    return list(reader.read_many(items, entity_name="width", allow_urls=True, allow_private_hosts=True, **options))


def redirect(to: str) -> Any:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", to)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def test_urls_are_answered_like_files_and_what_is_not_downloaded_has_an_error_of_its_own(
    reader: AttributeReader, server: ImageServer, tmp_path: Path
) -> None:
    images = [make_image(number) for number in range(3)]
    file = tmp_path / "a.png"
    images[0].save(file)
    server.answers |= {f"/{number}.png": encode_png(image) for number, image in enumerate(images)}
    server.answers |= {"/moved.png": redirect("/1.png"), "/page": b"<html>", "/cut.png": encode_png(images[0])[:300]}
    items = [
        f"{server.url}/0.png", f"{server.url}/gone.png", file, (f" {server.url}/1.png\n", "voltage"),
        f"{server.url}/moved.png", f"{server.url}/page", "ftp://127.0.0.1/a.png", f"{server.url}/cut.png",
        images[2], "http://somebody@127.0.0.1/a.png", Path(f"{server.url}/0.png"),
    ]  # fmt: skip
    answers = read(reader, items, batch_size=3)
    questions: dict[int, tuple[Any, str]] = {
        0: (images[0], "width"), 2: (images[0], "width"), 3: (images[1], "voltage"), 4: (images[1], "width"),
        8: (images[2], "width"),
    }  # fmt: skip
    for position, question in questions.items():
        assert answers[position].prediction == reader.read(*question).prediction
        assert answers[position].entity_name == question[1]
    errors = {position: str(answer.error) for position, answer in enumerate(answers) if answer.error}
    assert errors.keys() == {1, 5, 6, 7, 9, 10}
    assert errors[1] == f"items[1] {server.url}/gone.png: http_404"
    assert errors[5] == f"items[5] {server.url}/page: not_a_picture"
    assert errors[6].endswith("bad_link: 'ftp://127.0.0.1/a.png' is not an http or https URL")
    assert "image_unreadable: " in errors[7]
    assert errors[9].endswith("bad_link: contains a user name or a password")
    assert "not_a_file: a URL; " in errors[10]


def test_nothing_is_downloaded_unless_that_is_asked_for(reader: AttributeReader, server: ImageServer) -> None:
    server.answers["/a.png"] = encode_png(make_image(0))
    url = f"{server.url}/a.png"
    (answer,) = reader.read_many([url], entity_name="width")
    assert answer.error == (
        f"items[0] {url}: not_a_file: a URL; read_many with allow_urls=True downloads it if it is a str, or pass the "
        "bytes of the image"
    )
    with pytest.raises(ImageError, match="not_a_file: a URL; "):
        reader.read(url, "width")
    assert server.requests.total() == 0


def test_private_hosts_are_refused_before_any_request(reader: AttributeReader, server: ImageServer) -> None:
    server.answers["/a.png"] = encode_png(make_image(0))
    (answer,) = reader.read_many([f"{server.url}/a.png"], entity_name="width", allow_urls=True)
    assert str(answer.error).endswith("private_address: 127.0.0.1 is 127.0.0.1")
    assert server.requests.total() == 0
    with pytest.raises(ImageError, match=r"^items\[0\] .*/a\.png: private_address"):
        next(reader.read_many([f"{server.url}/a.png"], entity_name="width", allow_urls=True, on_error="raise"))


def test_a_url_is_downloaded_once_for_the_questions_of_a_batch(reader: AttributeReader, server: ImageServer) -> None:
    server.answers["/a.png"] = encode_png(make_image(0))
    items = [(f"{server.url}/a.png", name) for name in ("width", "height", "depth")]
    assert [answer.error for answer in read(reader, items)] == [None] * 3
    assert server.requests == {"/a.png": 1}


def test_many_are_downloaded_at_once(reader: AttributeReader, server: ImageServer) -> None:
    """Sixteen requests that wait for each other are all answered."""
    together = threading.Barrier(item_urls.NUM_CONNECTIONS, timeout=30)
    image = encode_png(make_image(0))

    def answer(handler: BaseHTTPRequestHandler) -> None:
        together.wait()
        send(handler, image)

    urls = [f"{server.url}/{number}.png" for number in range(item_urls.NUM_CONNECTIONS)]
    server.answers |= {f"/{number}.png": answer for number in range(item_urls.NUM_CONNECTIONS)}
    assert [answer.error for answer in read(reader, urls)] == [None] * item_urls.NUM_CONNECTIONS


def test_whoever_stops_reading_ends_the_downloads(reader: AttributeReader, server: ImageServer) -> None:
    ended = threading.Event()

    def never(handler: BaseHTTPRequestHandler) -> None:
        ended.wait(60)

    server.answers |= {"/a.png": encode_png(make_image(0)), "/never.png": never}
    urls = [f"{server.url}/a.png", f"{server.url}/never.png", f"{server.url}/never.png?2", f"{server.url}/a.png"]
    server.answers["/never.png?2"] = never
    answers = reader.read_many(urls, entity_name="width", allow_urls=True, allow_private_hosts=True, batch_size=1)
    assert next(answers).error is None
    answers.close()  # type: ignore[attr-defined]
    ended.set()
    assert max(server.requests.values()) == 1  # no attempt follows one that was ended
    assert not [one for one in threading.enumerate() if one.name.startswith("product-vqa-downloads")]
