"""The answers to all rows of a split, in memory: for what is fitted on a few thousand labelled rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import datasets
import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from inference.candidate_finder import CandidateFinder
from inference.dataloader import RowBatch, RowBatches, default_workers, load_batches
from inference.predictions import to_table
from product_vqa.modeling.answer import Answer
from product_vqa.modeling.attribute_reader import AttributeReader
from product_vqa.ocr.candidate import Candidate
from product_vqa.workers import worker_errors


@dataclass(frozen=True)
class PredictedRows:
    """Rows in batches, without images, and the answers to those that have a readable one."""

    batches: list[RowBatch]
    answers: list[Answer]

    @property
    def positions(self) -> list[int]:
        """The row of each answer in the dataset."""
        failures = [failure for batch in self.batches for failure in batch.failures]
        return [position for position, failure in enumerate(failures) if failure is None]

    @property
    def candidates(self) -> list[list[Candidate] | None]:
        """What OCR suggested for each answer."""
        return [row for batch in self.batches for row in batch.candidates or []]

    def table(self, answers: Sequence[Answer] | None = None) -> pd.DataFrame:
        """The predictions of all rows, as a prediction's Parquet file has them; of other `answers`, if given."""
        remaining = iter(self.answers if answers is None else answers)
        tables = [to_table(batch, [next(remaining) for _ in batch.entity_names]) for batch in self.batches]
        return pa.concat_tables(tables).to_pandas()


def predict_rows(
    dataset: datasets.Dataset,
    reader: AttributeReader,
    *,
    batch_size: int,
    num_workers: int | None,
    finder: CandidateFinder | None = None,
) -> PredictedRows:
    """Answer all rows; with a finder, grounded ones. `num_workers` decode the images; default: as for a prediction."""
    batches = RowBatches(
        dataset, processor=reader.processor, batch_size=batch_size, schema=reader.schema, finder=finder
    )
    if num_workers is None:
        num_workers = default_workers(reader.model.device)
    predicted = PredictedRows([], [])
    with worker_errors():
        for batch, answers in tqdm(_answer(batches, reader, num_workers), total=len(batches), desc="batches"):
            predicted.batches.append(batch)
            predicted.answers.extend(answers)
    return predicted


def _answer(batches: RowBatches, reader: AttributeReader, num_workers: int) -> Iterator[tuple[RowBatch, list[Answer]]]:
    for batch in load_batches(batches, range(len(batches)), num_workers=num_workers):
        answers = reader.answer(batch.inputs, batch.entity_names, candidates=batch.candidates)
        yield replace(batch, inputs={}), answers
