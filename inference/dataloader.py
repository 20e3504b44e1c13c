"""The batches of a split, ready for the model. Worker processes decode the images ahead of the model, if asked."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import datasets
import torch
from PIL import Image
from torch.utils.data import DataLoader
from transformers import PaliGemmaProcessor

from inference.candidate_finder import CandidateFinder
from inference.submission import NO_IMAGE
from product_vqa.errors import InputError
from product_vqa.images import ImageError, as_image
from product_vqa.modeling.collator import Batch, make_generation_batch
from product_vqa.ocr.candidate import Candidate
from product_vqa.ocr.text_files import hash_image
from product_vqa.task.attributes import Schema
from product_vqa.workers import TIMEOUT_S, is_worker, limit_queue, to_arrays, to_tensors


@dataclass(frozen=True)
class RowBatch:
    """Rows of a split, and the model's inputs for those that have an image."""

    number: int
    rows: list[dict[str, Any]]  # without their images
    failures: list[str | None]  # why a row has no readable image; None where it has one
    inputs: Batch  # empty where no row has one
    candidates: list[list[Candidate] | None] | None = None  # of OCR, for each row of `inputs`; None without OCR

    @property
    def entity_names(self) -> list[str]:
        """The attributes asked for in `inputs`, row by row."""
        return [row["entity_name"] for row, failure in zip(self.rows, self.failures, strict=True) if failure is None]


class RowBatches(torch.utils.data.Dataset[RowBatch]):
    """The batches of a split, fixed by its order and `batch_size`.

    In the challenge's test.csv, rows of the same image are consecutive. A batch decodes it once, and the model encodes
    it once.
    """

    def __init__(
        self,
        dataset: datasets.Dataset,
        *,
        processor: PaliGemmaProcessor,
        batch_size: int,
        schema: Schema,
        finder: CandidateFinder | None = None,
    ) -> None:
        self.dataset = dataset.cast_column("image", datasets.Image(decode=False))
        self.processor = processor
        self.batch_size = batch_size
        self.schema = schema
        self.finder = finder  # of what OCR suggests

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    @property
    def batch_bytes(self) -> int:
        """The size of a full batch's images, if no two rows share one."""
        size = self.processor.image_processor.size
        return min(self.batch_size, len(self.dataset)) * 3 * int(size["height"]) * int(size["width"])

    def __getitem__(self, number: int) -> RowBatch:
        start = number * self.batch_size
        rows = self.dataset.select(range(start, min(start + self.batch_size, len(self.dataset)))).to_list()
        stored = [row.pop("image") for row in rows]
        decoded: dict[bytes, Image.Image | ImageError] = {}
        readable: list[dict[str, Any]] = []
        failures: list[str | None] = []
        for row, image in zip(rows, stored, strict=True):
            if image is None:
                failures.append(NO_IMAGE)
                continue
            if image["bytes"] not in decoded:
                decoded[image["bytes"]] = _decode(image)
            result = decoded[image["bytes"]]
            if isinstance(result, ImageError):
                failures.append(str(result))
                continue
            failures.append(None)
            readable.append(row | {"image": result})
            if self.finder is not None:
                readable[-1]["image_sha256"] = hash_image(image["bytes"])
        inputs: Batch = {}
        if readable:
            inputs = make_generation_batch(readable, processor=self.processor, schema=self.schema)
        candidates = None
        if self.finder is not None:
            candidates = self.finder.find(readable, [row["image"] for row in readable])
        return RowBatch(number, rows, failures, inputs, candidates)


def _decode(image: dict[str, Any]) -> Image.Image | ImageError:
    try:
        return as_image(image)
    except ImageError as error:
        return error


def load_batches(batches: RowBatches, numbers: Sequence[int], *, num_workers: int) -> Iterator[RowBatch]:
    """Yield the batches of these numbers, in this order. Workers make them before they are asked for.

    Call and iterate within `product_vqa.workers.worker_errors`.
    """
    num_workers, prefetch_factor = limit_queue(num_workers, batch_bytes=batches.batch_bytes)
    loader = DataLoader(
        _WorkerBatches(batches),
        sampler=numbers,
        batch_size=None,
        num_workers=num_workers,
        prefetch_factor=prefetch_factor,
        timeout=TIMEOUT_S if num_workers else 0,
    )
    for batch in loader:
        if isinstance(batch, InputError):
            raise batch
        yield replace(batch, inputs=to_tensors(batch.inputs))


class _WorkerBatches(torch.utils.data.Dataset[RowBatch | InputError]):
    """Batches in the form in which a worker process hands them over.

    An InputError is handed over like a batch: raised in a worker, torch would turn it into a traceback.
    """

    def __init__(self, batches: RowBatches) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> RowBatch | InputError:
        try:
            batch = self.batches[number]
        except InputError as error:
            return error
        if not is_worker():
            return batch
        return replace(batch, inputs=to_arrays(batch.inputs))  # type: ignore[arg-type]


def default_workers(device: torch.device, *, num_processes: int = 1) -> int:
    """Up to 8 for a GPU; 0 on a CPU, where workers would compete with the model for cores."""
    return 0 if device.type == "cpu" else min(8, max(1, (os.cpu_count() or 1) // num_processes))
