"""`AttributeReader.read_many`: items in order, whatever they are, with an error for each that cannot be read."""

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from product_vqa.images import ImageError
from product_vqa.modeling import item_batches
from product_vqa.modeling.attribute_reader import AttributeReader
from product_vqa.ocr.image_text import ImageText, make_box
from product_vqa.task.schema import CHALLENGE
from tests.product_vqa.png_files import encode_png
from tests.tiny import make_image


@pytest.fixture(scope="module")
def reader(model: PaliGemmaForConditionalGeneration, processor: PaliGemmaProcessor) -> AttributeReader:
    return AttributeReader(model, processor, schema=CHALLENGE)


def test_items_of_all_kinds_are_answered_in_order_with_an_error_for_each_broken_one(
    reader: AttributeReader, tmp_path: Path
) -> None:
    files = [tmp_path / f"{number}.png" for number in range(3)]
    images = [make_image(number) for number in range(3)]
    for file, image in zip(files, images, strict=True):
        file.write_bytes(encode_png(image))
    truncated = tmp_path / "truncated.png"
    truncated.write_bytes(files[0].read_bytes()[:3000])
    items: list[Any] = [
        files[0], str(files[1]), truncated, files[2].read_bytes(), np.asarray(images[0]), b"<html>", images[1],
        (files[2], "voltage"), (images[0], "colour"), tmp_path / "none.png",
    ]  # fmt: skip
    answers = list(reader.read_many(iter(items), entity_name="width", batch_size=3))
    expected = [
        (images[0], "width"), (images[1], "width"), None, (images[2], "width"), (images[0], "width"), None,
        (images[1], "width"), (images[2], "voltage"), None, None,
    ]  # fmt: skip
    errors = {}
    for position, (answer, question) in enumerate(zip(answers, expected, strict=True)):
        if question is None:
            errors[position] = answer.error
            assert answer.prediction == "" and answer.confidence == 0
        else:
            alone = reader.read(*question)
            assert (answer.entity_name, answer.prediction) == (question[1], alone.prediction)
            assert answer.confidence == pytest.approx(alone.confidence, rel=1e-3)
    assert errors == {
        2: f"items[2] {truncated}: image_unreadable: OSError: image file is truncated",
        5: "items[5]: not_a_picture",
        8: f"items[8]: unknown entity_name 'colour'; known are {', '.join(CHALLENGE.names)}",
        9: f"items[9] {tmp_path / 'none.png'}: file_unreadable: No such file or directory",
    }


def test_an_error_may_be_raised_after_the_answers_before_it(reader: AttributeReader) -> None:
    answers = reader.read_many([make_image(0), b"no", make_image(1)], entity_name="width", on_error="raise")
    assert next(answers).entity_name == "width"
    with pytest.raises(ImageError, match=r"^items\[1\]: not_a_picture"):
        next(answers)


def test_an_item_without_an_attribute_is_an_error(reader: AttributeReader) -> None:
    (answer,) = reader.read_many([make_image(0)])
    assert str(answer.error).startswith("items[0]: has no entity_name; known are width")


@pytest.mark.parametrize(
    ("items", "options", "message"),
    [
        ("photo.jpg", {}, "`items` must be a list or a generator, got str; read"),
        (make_image(0), {}, "`items` must be a list or a generator, got Image"),
        (None, {}, "`items` must be a list or a generator, got None"),
        ([], {"entity_name": "colour"}, "unknown `entity_name` 'colour'; known are width"),
        ([], {"on_error": "ignore"}, "`on_error` must be return or raise, got 'ignore'"),
        ([], {"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ([], {"num_threads": -1}, "`num_threads` must be at least 1, got -1"),
        ([], {"allow_private_hosts": True}, "`allow_private_hosts` is for URLs: set `allow_urls` too"),
        ([], {"ocr": "ocr"}, r"`ocr` must be an engine \(product_vqa.ocr.engine.load_engine\(\)\), got str"),
        ([], {"ocr": ImageText(8, 8)}, r"`ocr` must be an engine \(.*\), got ImageText"),
        ([], {"ocr": [ImageText(8, 8)]}, r"`ocr` must be an engine \(.*\), got list"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_named_at_once(
    reader: AttributeReader, items: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        reader.read_many(items, **options)


@pytest.mark.parametrize(("reads_ahead", "num_given"), [(True, 9), (False, 6)])
def test_an_endless_generator_is_read_at_most_one_batch_ahead(
    reader: AttributeReader, reads_ahead: bool, num_given: int
) -> None:
    given = itertools.count()

    def items() -> Iterator[Image.Image]:
        while True:
            yield make_image(next(given))

    before = threading.active_count()
    batches = item_batches.prepare_batches(
        items(), entity_name="width", schema=CHALLENGE, processor=reader.processor, batch_size=3,
        decoding=ThreadPoolExecutor(2), num_threads=2, reads_ahead=reads_ahead,
    )  # fmt: skip
    assert [[item.entity_name for item in next(batches)] for _ in range(2)] == [["width"] * 3] * 2
    assert next(given) == num_given
    batches.close()
    assert threading.active_count() <= before


def test_an_endless_generator_gives_answers_and_leaves_no_thread(reader: AttributeReader) -> None:
    list(reader.read_many(map(make_image, range(9)), entity_name="width"))  # starts the reader's own threads
    before = threading.active_count()
    answers = reader.read_many(map(make_image, itertools.count()), entity_name="width", batch_size=3)
    assert [next(answers).entity_name for _ in range(4)] == ["width"] * 4
    answers.close()  # type: ignore[attr-defined]
    assert threading.active_count() <= before
    assert list(reader.read_many([], entity_name="width")) == []


def test_an_array_may_be_overwritten_after_it_was_given(reader: AttributeReader) -> None:
    """As a camera does with its buffer."""
    buffer = np.empty((40, 60, 3), np.uint8)

    def frames() -> Iterator[np.ndarray]:
        for number in range(4):
            buffer[:] = np.asarray(make_image(number))
            yield buffer

    answers = list(reader.read_many(frames(), entity_name="width", batch_size=4))
    alone = [reader.read(make_image(number), "width") for number in range(4)]
    assert [answer.confidence for answer in answers] == pytest.approx([one.confidence for one in alone], rel=1e-3)


def test_eight_threads_get_the_answers_that_each_would_get_alone(reader: AttributeReader) -> None:
    def images(thread: int) -> list[Image.Image]:
        return [make_image(100 * thread + number) for number in range(6)]

    def read(thread: int) -> None:
        found[thread] = [*reader.read_many(images(thread), entity_name="width", batch_size=2)]
        found[thread].append(reader.read(make_image(thread), "voltage"))

    found: dict[int, list[Any]] = {}
    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = dict(found)
    found.clear()
    for number in range(8):
        read(number)
    assert together == found and len(together) == 8


def test_a_file_that_is_asked_twice_is_decoded_once_and_encoded_once(
    reader: AttributeReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "photo.png"
    file.write_bytes(encode_png(make_image(0)))
    decoded, load_item = [], item_batches.load_item

    def count(image: object) -> Image.Image:
        decoded.append(image)
        return load_item(image)

    monkeypatch.setattr(item_batches, "load_item", count)
    questions = [(file, name) for name in CHALLENGE.names]
    batches = item_batches.prepare_batches(
        questions,
        entity_name=None,
        schema=CHALLENGE,
        processor=reader.processor,
        batch_size=8,
        decoding=ThreadPoolExecutor(2),
    )
    (batch,) = batches
    assert decoded == [file]
    inputs = item_batches.collate_items(batch, processor=reader.processor, schema=CHALLENGE)
    assert inputs["pixel_values"].shape[0] == 1 and inputs["image_index"].tolist() == [0] * 8
    rows = [{"image": make_image(0), "entity_name": name} for name in CHALLENGE.names]
    same = dict.fromkeys(range(8), rows[0]["image"])
    expected = reader.make_batch([row | {"image": same[number]} for number, row in enumerate(rows)])
    assert all(bool((inputs[name] == expected[name]).all()) for name in expected)


class Engine:
    """Reads the colour of an image's first pixel, and remembers in which thread."""

    description = "a test's engine"

    def __init__(self) -> None:
        self.threads: list[str] = []

    def read(self, image: Image.Image) -> ImageText:
        self.threads.append(threading.current_thread().name)
        return ImageText(*image.size, (make_box(f"{image.getpixel((0, 0))}", 1.0, (0, 0, 1, 0, 1, 1, 0, 1)),))


def prepare(reader: AttributeReader, items: Any, engine: Any, **options: Any) -> Any:
    return item_batches.prepare_batches(
        items, entity_name="width", schema=CHALLENGE, processor=reader.processor, engine=engine,
        decoding=ThreadPoolExecutor(1), **options,
    )  # fmt: skip


def test_an_engine_reads_images_and_arrays_in_the_background_and_each_of_a_batch_once(reader: AttributeReader) -> None:
    """A buffer that is overwritten is another image each time, and one that is closed is still read."""
    engine = Engine()
    buffer = np.empty((40, 60, 3), np.uint8)
    expected = [make_image(number) for number in range(3)]

    def items() -> Iterator[Any]:
        for name in CHALLENGE.names:
            yield expected[0], name
        for image in expected[1:]:
            buffer[:] = np.asarray(image.resize((60, 40)))
            yield buffer
        buffer[:] = 0
        closed = make_image(7)
        yield closed
        closed.close()
        yield Image.new("RGB", (0, 0))

    (batch,) = prepare(reader, items(), engine, batch_size=32, num_threads=2)
    assert len(engine.threads) == 4
    assert all(name.startswith("product-vqa-images") for name in engine.threads)
    images = [expected[0]] * 8 + [image.resize((60, 40)) for image in expected[1:]] + [make_image(7)]
    assert [item.text for item in batch[:-1]] == [Engine().read(image) for image in images]
    alone = [item.pixels for (item,) in prepare(reader, images, None, batch_size=1)]
    assert all(torch.equal(item.pixels, pixels) for item, pixels in zip(batch[:-1], alone, strict=True))
    assert batch[-1].error == "items[11]: no_pixels: 0x0"


def test_of_images_that_wait_for_an_engine_a_few_are_held(reader: AttributeReader) -> None:
    """At full size: of a batch of 20 photos of 12 megapixels, it would be 0.7 GB."""
    state = threading.Condition()
    given: list[int] = []
    held: list[int] = []

    def items() -> Iterator[Image.Image]:
        for number in range(20):
            given.append(number)
            yield make_image(number)

    class SlowEngine(Engine):
        def read(self, image: Image.Image) -> ImageText:
            with state:
                if not held:
                    state.wait(0.5)  # time enough to give all
                held.append(len(given) - len(held))
            return super().read(image)

    (batch,) = prepare(reader, items(), SlowEngine(), batch_size=20, num_threads=2)
    assert len(batch) == len(held) == 20
    assert max(held) <= 4  # two are read, one waits, and one is loaded


def test_questions_about_one_image_in_batches_of_one_read_it_once_unless_it_changes(
    reader: AttributeReader, tmp_path: Path
) -> None:
    engine = Engine()
    file = tmp_path / "photo.png"

    def items() -> Iterator[Any]:
        for number in range(2):
            file.write_bytes(encode_png(make_image(number)))
            for name in CHALLENGE.names:
                yield file, name
        for name in CHALLENGE.names:
            yield make_image(1), name

    texts = [item.text for (item,) in prepare(reader, items(), engine, batch_size=1, reads_ahead=False)]
    assert len(engine.threads) == 2
    assert texts == [Engine().read(make_image(0))] * 8 + [Engine().read(make_image(1))] * 16
