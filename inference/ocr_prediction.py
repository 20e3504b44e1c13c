"""Predictions by OCR and rules alone, without a model: the baseline that every adapter has to beat.

Which units are usual comes from the labels of the dataset's split `train`, if it has one. Nothing else is learned.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, Image
from tqdm import tqdm

from inference.batch_files import BatchFiles
from inference.batch_predictor import Settings, find_indexes, load_rows
from inference.predict_options import PredictOptions
from inference.submission import NO_IMAGE, PREDICTIONS, RECORDED, summarize, write_submission
from inference.text_source import TextSource, load_source
from product_vqa.errors import InputError, argument
from product_vqa.hub import locate
from product_vqa.images import ImageError, as_image
from product_vqa.ocr.candidate import Candidate
from product_vqa.ocr.candidates import CandidateRules
from product_vqa.ocr.engine import load_engine
from product_vqa.ocr.image_text import ImageText
from product_vqa.ocr.text_files import hash_image
from product_vqa.ocr.unit_shares import load_shares
from product_vqa.provenance import DATASET_FILES, content_sha256
from product_vqa.quoting import one_line
from product_vqa.row_selection import RowSelectionOptions, read_selection
from product_vqa.schemas import load_schema

BATCH_SIZE = 32
_MODEL_OPTIONS = (
    "adapter",
    "ground",
    "base_model",
    "dtype",
    "load_in_4bit",
    "constrain",
    "allow_empty",
    "num_beams",
    "push_to_hub",
)


def check_ocr_options(options: PredictOptions) -> None:
    """Raise InputError for options of a model, which `reader` ocr does not have."""
    defaults = {field.name: field.default for field in fields(PredictOptions) if field.default is not MISSING}
    for name in _MODEL_OPTIONS:
        if getattr(options, name) != defaults[name]:
            raise InputError(f"`reader` ocr answers without a model: drop `{name}`, or drop `reader`")


def predict_by_ocr(
    options: PredictOptions, row_options: RowSelectionOptions, *, output: Path, files: BatchFiles
) -> None:
    """Predict the rows of a split, and write the submission. Resumes as a prediction by a model does."""
    with argument("dataset"):
        location = locate(options.dataset, repo_type="dataset")
        schema = load_schema(location)
    selection = read_selection(row_options, schema=schema)
    dataset = load_rows(location, Settings.of(options, selection)).cast_column("image", Image(decode=False))
    batch_size = options.batch_size or files.recorded_batch_size() or BATCH_SIZE
    indexes = find_indexes(dataset, batch_size=batch_size, location=location, split=options.split)
    source = load_source(location, options.split, rows=dataset, reads=True)
    assert source is not None  # it reads
    if source.num_missing and source.engine is None:
        load_engine()  # says what to install
    run = {
        "dataset": str(location),
        "dataset_sha256": content_sha256(location, DATASET_FILES),
        "rows": len(dataset),
        "batch_size": batch_size,
        **{name: getattr(options, name) for name in RECORDED},
        "reader": "ocr",
        **source.describe(),
    }
    if not selection.is_all:
        run["row_selection"] = selection.describe()
    files.open(run)
    missing = [number for number in range(len(indexes)) if not files.has(number, indexes[number])]
    rules = CandidateRules(schema, load_shares(location, schema))
    tables = read_batches(
        dataset,
        missing,
        batch_size=batch_size,
        source=source,
        num_threads=find_num_threads(options),
        rules=rules,
        min_confidence=options.min_confidence,
    )
    for number, table in tqdm(tables, total=len(missing), desc="batches"):
        files.save(number, table)
    table = files.load(dict(enumerate(indexes)))
    write_submission(table, output, run=run)
    print(f"{output}: {summarize(table)}")
    files.remove()


def find_num_threads(options: PredictOptions) -> int:
    """How many images are read at the same time, each on one core; by default, all cores are used."""
    if options.dataloader_num_workers is None:
        return os.cpu_count() or 1
    return max(1, options.dataloader_num_workers)


def read_row(source: TextSource, row: Mapping[str, Any]) -> ImageText | str:
    """The texts of the row's image, or why there are none. Raises InputError for those of another image at its URL."""
    if source.stored is not None:
        found = source.stored.find(row["image_link"], hash_image(row["image"]["bytes"]))
        if found is not None:
            return found
    if source.engine is None:
        raise InputError(
            f"`dataset`: the texts of {one_line(row['image_link'])} were read in another image (sha256); read the "
            "images again with dataset_builder.ocr"
        )
    try:
        return source.engine.read(as_image(row["image"]))
    except ImageError as error:
        return str(error)


def read_batches(
    dataset: Dataset,
    numbers: Sequence[int],
    *,
    batch_size: int,
    source: TextSource,
    num_threads: int,
    rules: CandidateRules,
    min_confidence: float,
) -> Iterator[tuple[int, pa.Table]]:
    """The predictions of the batches of these numbers, in this order. In a batch, each image is read once."""
    with ThreadPoolExecutor(num_threads) as pool:
        for number in numbers:
            start = number * batch_size
            rows = dataset.select(range(start, min(start + batch_size, len(dataset)))).to_list()
            images = {(row["image_link"], row["image"]["bytes"]): row for row in rows if row["image"] is not None}
            texts = dict(zip(images, pool.map(partial(read_row, source), images.values()), strict=True))
            records = []
            for row in rows:
                text = NO_IMAGE if row["image"] is None else texts[row["image_link"], row["image"]["bytes"]]
                records.append(_make_record(row, text, rules, min_confidence=min_confidence))
            yield number, pa.Table.from_pylist(records, schema=PREDICTIONS)


def _make_record(
    row: Mapping[str, Any], text: ImageText | str, rules: CandidateRules, *, min_confidence: float
) -> dict[str, Any]:
    record = {name: row[name] for name in ("index", "image_link", "entity_name")}
    if isinstance(text, str):
        return record | {"prediction": "", "reason": text}
    candidates = rules.find(text, row["entity_name"]) or []
    answers = list(zip(candidates, _confidences(candidates), strict=True))
    if not answers:
        return record | {"prediction": "", "answer": "", "alternatives": []}  # the rules know nothing about silence
    (best, confidence), *others = answers
    return record | {
        "prediction": best.answer if confidence >= min_confidence else "",
        "answer": best.answer,
        "confidence": confidence,
        "alternatives": [{"prediction": other.answer, "confidence": share} for other, share in others],
        "box": list(best.box),
    }


def _confidences(candidates: Sequence[Candidate]) -> list[float]:
    """The share of each candidate, by its points, times the engine's score: an order, and not yet a probability."""
    weights = [math.exp(candidate.rank_score - candidates[0].rank_score) for candidate in candidates]
    total = sum(weights)
    return [candidate.score * weight / total for candidate, weight in zip(candidates, weights, strict=True)]
