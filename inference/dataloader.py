"""A split in batches to be answered: pictures decoded once each, ahead of the model, by worker processes if asked."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import datasets
import torch
from PIL import Image
from torch.utils.data import DataLoader
from transformers import PaliGemmaProcessor

from product_vqa.errors import InputError
from product_vqa.images import ImageError, as_image
from product_vqa.modeling.collator import Batch, make_generation_batch
from product_vqa.workers import TIMEOUT_S, is_worker, limit_queue, to_arrays, to_tensors

NO_IMAGE = "no_image"  # the dataset has none for this row


@dataclass(frozen=True)
class RowBatch:
    """Rows of a split, and what the model takes in of those that have an image."""

    number: int
    rows: list[dict[str, Any]]  # without their images
    failures: list[str | None]  # why a row has no image that can be read; None where it has one
    inputs: Batch | None  # None where no row has one

    @property
    def entity_names(self) -> list[str]:
        """Of the rows that `inputs` holds."""
        return [row["entity_name"] for row, failure in zip(self.rows, self.failures, strict=True) if failure is None]


class RowBatches(torch.utils.data.Dataset[RowBatch]):
    """The batches of a split, fixed by its order and `batch_size`.

    Rows of one picture stand together in the challenge's test.csv: a batch decodes it, and the model encodes it, once.
    """

    def __init__(self, dataset: datasets.Dataset, *, processor: PaliGemmaProcessor, batch_size: int) -> None:
        self.dataset = dataset.cast_column("image", datasets.Image(decode=False))
        self.processor = processor
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def indexes(self) -> list[list[int]]:
        """Of each batch's rows."""
        column = self.dataset.select_columns("index")["index"][:]
        return [column[start : start + self.batch_size] for start in range(0, len(column), self.batch_size)]

    @property
    def batch_bytes(self) -> int:
        """Of a whole batch's images, if no two rows share one."""
        size = self.processor.image_processor.size
        return min(self.batch_size, len(self.dataset)) * 3 * size["height"] * size["width"]

    def __getitem__(self, number: int) -> RowBatch:
        start = number * self.batch_size
        rows = self.dataset.select(range(start, min(start + self.batch_size, len(self.dataset)))).to_list()
        stored = [row.pop("image") for row in rows]
        images: dict[bytes, Image.Image | ImageError] = {}
        asked, failures = [], []
        for row, image in zip(rows, stored, strict=True):
            if image is None:
                failures.append(NO_IMAGE)
                continue
            if image["bytes"] not in images:
                images[image["bytes"]] = _decode(image)
            decoded = images[image["bytes"]]
            failures.append(str(decoded) if isinstance(decoded, ImageError) else None)
            if not isinstance(decoded, ImageError):
                asked.append(row | {"image": decoded})
        inputs = make_generation_batch(asked, processor=self.processor) if asked else None
        return RowBatch(number, rows, failures, inputs)


def _decode(image: dict[str, Any]) -> Image.Image | ImageError:
    try:
        return as_image(image)
    except ImageError as error:
        return error


def load_batches(batches: RowBatches, numbers: Sequence[int], *, num_workers: int) -> Iterator[RowBatch]:
    """The batches of these numbers, in this order; with workers, made ahead of being asked for.

    Call it and use it within `product_vqa.workers.worker_errors`.
    """
    num_workers, prefetch_factor = limit_queue(num_workers, batch_bytes=batches.batch_bytes)
    loader = DataLoader(
        _HandedOver(batches),
        sampler=numbers,
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=num_workers,
        prefetch_factor=prefetch_factor,
        timeout=TIMEOUT_S if num_workers else 0,
    )
    for batch in loader:
        if isinstance(batch, InputError):
            raise batch
        yield batch if batch.inputs is None else replace(batch, inputs=to_tensors(batch.inputs))


class _HandedOver(torch.utils.data.Dataset[RowBatch | InputError]):
    """Batches as they can come from a worker process; so does an InputError, of which torch would make a traceback."""

    def __init__(self, batches: RowBatches) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> RowBatch | InputError:
        try:
            batch = self.batches[number]
        except InputError as error:
            return error
        return replace(batch, inputs=to_arrays(batch.inputs)) if batch.inputs is not None and is_worker() else batch


def default_workers(device: torch.device, *, num_processes: int = 1) -> int:
    """None beside a model on the CPU, which they would take from it."""
    return 0 if device.type == "cpu" else min(8, max(1, (os.cpu_count() or 1) // num_processes))


def _as_it_is(batch: RowBatch) -> RowBatch:
    return batch
