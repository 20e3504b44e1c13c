"""The batches of `AttributeReader.read_many`: images are decoded in the background, one batch ahead, in order."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from PIL import Image

from product_vqa.images import ImageError
from product_vqa.modeling.answer import Answer
from product_vqa.modeling.collator import Batch, resize_images, tokenize_questions
from product_vqa.modeling.item_urls import downloading
from product_vqa.modeling.items import ImageItem, check_ocr, is_url, load_item
from product_vqa.modeling.recent_texts import RecentTexts, hash_pixels
from product_vqa.ocr.image_text import ImageText
from product_vqa.ocr.interface import OcrEngine, read_text
from product_vqa.quoting import one_line
from product_vqa.task.attributes import Schema

if TYPE_CHECKING:
    from transformers import PaliGemmaProcessor

DEFAULT_THREADS = min(8, os.cpu_count() or 1)  # that decode images, where `num_threads` is not given


@dataclass(frozen=True)
class PreparedItem:
    """An item in the model's size, or why it has none."""

    position: int
    entity_name: str
    pixels: torch.Tensor | None  # (3, H, W) uint8
    error: str | None  # names the item
    text: ImageText | None = None  # what an engine read in the image at its own size; None without one


class _Decoded(NamedTuple):
    pixels: torch.Tensor
    text: ImageText | None


@dataclass
class _Waiting:
    """A batch whose images are being decoded."""

    items: list[tuple[int, str, Future[_Decoded], str]] = field(default_factory=list)
    by_file: dict[str | bytes, Future[_Decoded]] = field(default_factory=dict)  # decoded once per batch
    by_pixels: dict[bytes, Future[_Decoded]] = field(default_factory=dict)  # of images and arrays: read once per batch


def check_arguments(
    items: object,
    *,
    entity_name: str | None,
    on_error: str,
    batch_size: int | None,
    num_threads: int | None,
    schema: Schema,
    allow_urls: bool = False,
    allow_private_hosts: bool = False,
    ocr: object = None,
) -> None:
    """Raise ValueError for arguments of `read_many` that are wrong for all items."""
    if isinstance(items, str | bytes | Mapping | Image.Image) or not isinstance(items, Iterable):
        given = "None" if items is None else type(items).__name__
        raise ValueError(f"`items` must be a list or a generator, got {given}; read() takes a single image")
    if entity_name is not None and entity_name not in schema.attributes:
        raise ValueError(f"unknown `entity_name` {entity_name!r}; known are {', '.join(schema.names)}")
    if on_error not in ("return", "raise"):
        raise ValueError(f"`on_error` must be return or raise, got {on_error!r}")
    for name, value in (("batch_size", batch_size), ("num_threads", num_threads)):
        if value is not None and value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}")
    if allow_private_hosts and not allow_urls:
        raise ValueError("`allow_private_hosts` is for URLs: set `allow_urls` too")
    check_ocr(ocr, takes="engine")


def answer_batches(
    batches: Generator[list[PreparedItem]],
    answer: Callable[[Sequence[PreparedItem]], list[Answer]],
    *,
    raises: bool,
) -> Iterator[Answer]:
    """Give an answer to each item, in order; for an item with an error that error, or raise it as an ImageError."""
    with closing(batches):
        for batch in batches:
            readable = [item for item in batch if item.error is None]
            answers = iter(answer(readable) if readable else [])
            for item in batch:
                if item.error is None:
                    yield next(answers)
                elif raises:
                    raise ImageError(item.error)
                else:
                    yield Answer.of_error(item.error, entity_name=item.entity_name)


def prepare_batches(
    items: Iterable[Any],
    *,
    entity_name: str | None,
    schema: Schema,
    processor: PaliGemmaProcessor,
    batch_size: int,
    decoding: Executor,
    num_threads: int | None = None,
    engine: OcrEngine | None = None,
    reads_ahead: bool = True,
    allow_urls: bool = False,
    allow_private_hosts: bool = False,
) -> Generator[list[PreparedItem]]:
    """Give the items in batches, in order. While a batch is used, the images of the next one are decoded.

    Not without `reads_ahead`: on a CPU, decoding would compete with the model for the cores, and both would be slower.
    Images and arrays are decoded at once, because whoever gives them may close or overwrite them afterwards; the
    `engine` reads copies of them, of which there is at most one more than threads. Of files and bytes, at most two
    batches are held. With `allow_urls`, URLs are downloaded by other threads. Images are decoded, and read by the
    `engine`, by `decoding`, which may be shared, or by `num_threads` of their own. The engine does not read one of the
    last images again.
    """
    texts = None if engine is None else RecentTexts(engine)

    def read(loaded: Image.Image) -> _Decoded:
        text = None if texts is None else read_text(texts, loaded)
        return _Decoded(resize_images([loaded], processor=processor)[0], text)

    def prepare(image: object) -> _Decoded:
        return read(load_item(image))

    def submit(image: ImageItem) -> Future[_Decoded]:
        return decoding.submit(prepare, image)

    def prepare_now(image: object, _: _Waiting) -> Future[_Decoded]:
        done: Future[_Decoded] = Future()
        done.set_result(prepare(image))
        return done

    copies = threading.BoundedSemaphore((num_threads or DEFAULT_THREADS) + 1)  # at full size

    def submit_copy(image: object, batch: _Waiting) -> Future[_Decoded]:
        loaded = load_item(image)
        key = hash_pixels(loaded)
        if key not in batch.by_pixels:
            copies.acquire()
            done = decoding.submit(read, loaded.copy())
            done.add_done_callback(lambda _: copies.release())
            batch.by_pixels[key] = done
        return batch.by_pixels[key]

    # Decoding alone is faster in this thread; an engine takes much longer than a copy.
    submit_image = prepare_now if texts is None else submit_copy
    with ExitStack() as stack:
        if num_threads is not None:
            decoding = stack.enter_context(ThreadPoolExecutor(num_threads, thread_name_prefix="product-vqa-images"))

        submit_url: Callable[[str], Future[_Decoded]] = submit
        if allow_urls:
            submit_url = stack.enter_context(downloading(submit, allow_private_hosts=allow_private_hosts))
        add = partial(_submit, schema=schema, submit_image=submit_image, submit=submit, submit_url=submit_url)
        waiting: deque[_Waiting] = deque()
        batch = _Waiting()
        stack.callback(lambda: [item[2].cancel() for one in (*waiting, batch) for item in one.items])
        for position, item in enumerate(items):
            batch.items.append(add(item, position, batch, entity_name))
            if len(batch.items) == batch_size:
                waiting.append(batch)
                batch = _Waiting()
            if len(waiting) == 1 + reads_ahead:
                yield _collect(waiting.popleft())
        waiting.append(batch)
        for last in waiting:
            if last.items:
                yield _collect(last)


def _submit(
    item: Any,
    position: int,
    batch: _Waiting,
    entity_name: str | None,
    *,
    schema: Schema,
    submit_image: Callable[[object, _Waiting], Future[_Decoded]],
    submit: Callable[[ImageItem], Future[_Decoded]],
    submit_url: Callable[[str], Future[_Decoded]],
) -> tuple[int, str, Future[_Decoded], str]:
    image, asked = item if isinstance(item, tuple) and len(item) == 2 else (item, entity_name)
    name = f"items[{position}]"
    if isinstance(image, str | os.PathLike):
        name += f" {one_line(os.fspath(image), max_length=200)}"
    done: Future[_Decoded] = Future()
    if not isinstance(asked, str) or asked not in schema.attributes:
        reason = "has no entity_name" if asked is None else f"unknown entity_name {asked!r}"
        done.set_exception(ImageError(f"{reason}; known are {', '.join(schema.names)}"))
        return position, asked if isinstance(asked, str) else "", done, name
    if isinstance(image, str | os.PathLike | bytes):
        key = image if isinstance(image, bytes) else os.fspath(image)
        if key not in batch.by_file:
            batch.by_file[key] = submit_url(image) if is_url(image) else submit(image)
        return position, asked, batch.by_file[key], name
    try:
        return position, asked, submit_image(image, batch), name
    except ImageError as error:
        done.set_exception(error)
        return position, asked, done, name


def _collect(batch: _Waiting) -> list[PreparedItem]:
    prepared = []
    for position, entity_name, future, name in batch.items:
        try:
            decoded = future.result()
            prepared.append(PreparedItem(position, entity_name, decoded.pixels, None, decoded.text))
        except ImageError as error:
            prepared.append(PreparedItem(position, entity_name, None, f"{name}: {error}"))
    return prepared


def collate_items(items: Sequence[PreparedItem], *, processor: PaliGemmaProcessor, schema: Schema) -> Batch:
    """Batch readable items for generation, as `make_generation_batch` does. Equal neighbours share one image."""
    pixels: list[torch.Tensor] = []
    image_index = []
    for item in items:
        assert item.pixels is not None
        if not pixels or not (pixels[-1] is item.pixels or torch.equal(pixels[-1], item.pixels)):
            pixels.append(item.pixels)
        image_index.append(len(pixels) - 1)
    return {
        **tokenize_questions([item.entity_name for item in items], processor=processor, schema=schema),
        "pixel_values": torch.stack(pixels),
        "image_index": torch.tensor(image_index),
    }
