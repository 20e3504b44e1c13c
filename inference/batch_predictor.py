"""From the numbers of batches to tables of predictions: what a process of `predict` does, and a worker of Ray too."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset

from inference import predictions
from inference.batch_files import BatchFiles
from inference.dataloader import RowBatches, load_batches
from inference.sources import Sources
from inference.submission import RECORDED
from product_vqa.dataset import load_split
from product_vqa.errors import InputError, argument
from product_vqa.hub import Location
from product_vqa.modeling.attribute_reader import AttributeReader
from product_vqa.provenance import BASE_MODEL_FILES, DATASET_FILES, content_sha256
from product_vqa.row_selection import RowKey, RowSelection
from product_vqa.workers import worker_errors

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How the rows of a split are answered: the same for all who share them."""

    split: str
    selection: RowSelection
    dtype: str
    load_in_4bit: bool | None
    constrain: str  # on, off
    allow_empty: bool
    num_beams: int
    min_confidence: float
    ground: str | None = "none"  # none, ocr; None where the calibration decides

    @classmethod
    def of(cls, options: Any, selection: RowSelection) -> "Settings":
        """Those of the options of `predict`, which have the same names."""
        names = [field.name for field in fields(cls) if field.name != "selection"]
        return cls(selection=selection, **{name: getattr(options, name) for name in names})

    def describe(
        self,
        *,
        dataset: Location,
        base_model: Location,
        rows: int,
        batch_size: int,
        provenance: dict[str, str | None],
    ) -> dict[str, Any]:
        """Everything that a prediction depends on. A run with another description cannot resume from its batches."""
        run = {
            "dataset": str(dataset),
            "dataset_sha256": content_sha256(dataset, DATASET_FILES),
            "rows": rows,
            "batch_size": batch_size,
            **{name: getattr(self, name) for name in RECORDED},
            "base_sha256": content_sha256(base_model, BASE_MODEL_FILES),
            **provenance,
        }
        return run if self.selection.is_all else {**run, "row_selection": self.selection.describe()}


def load_rows(location: Location, settings: Settings) -> Dataset:
    """The rows of a split that are predicted. Raises InputError if there are none."""
    with argument("dataset"):
        dataset = load_split(location, settings.split)
        if settings.selection.is_all:
            return dataset
        columns = dataset.select_columns(list(RowKey._fields))
        keys = [RowKey(*values) for values in zip(*(columns[name][:] for name in RowKey._fields), strict=True)]
        positions = settings.selection.positions(keys, name=f"split {settings.split}")
        logger.info("split %s: %s of %s rows selected", settings.split, len(positions), len(dataset))
        return dataset.select(positions)


def load_reader(sources: Sources, settings: Settings, *, device: torch.device | None = None) -> AttributeReader:
    return AttributeReader.from_pretrained(
        sources.adapter,
        base_model=sources.base_model,
        dtype=settings.dtype,
        load_in_4bit=settings.load_in_4bit,
        device=device,
        constrain=settings.constrain == "on",
        allow_empty=settings.allow_empty,
        num_beams=settings.num_beams,
        schema=sources.schema,
    )


def find_indexes(dataset: Dataset, *, batch_size: int, location: Location, split: str) -> list[list[int]]:
    """The `index` of each row, batch by batch. Raises InputError if one occurs twice."""
    column = dataset.select_columns("index")["index"][:]
    if len(set(column)) != len(column):
        raise InputError(
            f"`dataset` {location}: split {split} has a duplicate index; each index of a submission must be unique"
        )
    return [column[start : start + batch_size] for start in range(0, len(column), batch_size)]


def predict_batches(
    reader: AttributeReader, batches: RowBatches, numbers: Sequence[int], *, num_workers: int, min_confidence: float
) -> Iterator[tuple[int, pa.Table]]:
    """Give the predictions of the batches of these numbers, in this order."""
    with worker_errors():
        for batch in load_batches(batches, numbers, num_workers=num_workers):
            answers = reader.answer(batch.inputs, batch.entity_names, candidates=batch.candidates)
            yield batch.number, predictions.to_table(batch, answers, min_confidence=min_confidence)


def agree_on_batch_size(asked: int | None, *, files: BatchFiles, reader: AttributeReader, state: PartialState) -> int:
    """The batch size of all processes: `asked`, else that of the run to resume, else the largest that fits in memory.

    The first process decides for all of them, because they must cut the split into the same batches.
    """
    batch_size = asked
    if batch_size is None and state.is_main_process:
        batch_size = files.recorded_batch_size() or reader.find_batch_size()
    (agreed,) = broadcast_object_list([batch_size])
    return int(agreed)
