"""What the text of an image may answer, for the rows of a batch: from the dataset's texts, or read by an engine."""

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from PIL import Image

from product_vqa.errors import InputError, argument
from product_vqa.hub import Location
from product_vqa.modeling.attribute_reader import AttributeReader
from product_vqa.modeling.calibration import Calibration
from product_vqa.ocr.candidate import Candidate
from product_vqa.ocr.candidates import find_candidates
from product_vqa.ocr.engine import is_installed, load_engine
from product_vqa.ocr.image_text import ImageText
from product_vqa.ocr.interface import OcrEngine, read_text
from product_vqa.ocr.stored_texts import StoredTexts, load_texts
from product_vqa.task.attributes import Schema
from product_vqa.workers import is_worker

logger = logging.getLogger(__name__)

_NOT_CALIBRATED = (
    "`ground` ocr: the adapter has no calibration.json that says how far to trust OCR; calibrate it with `ground` ocr "
    "on a labelled split"
)
TextSource = StoredTexts | OcrEngine


def find_source(
    ground: str | None, *, calibration: Calibration | None, constrain: str, dataset: Location, split: str
) -> TextSource | None:
    """Where the texts that ground predictions come from: the dataset, or else an engine; None to ground none.

    `ground` None grounds where the adapter's calibration.json says that it gains, if the dataset has the texts. Raises
    InputError for `ocr` where that is not possible.
    """
    grounding = calibration.grounding if calibration else None
    if ground == "ocr":
        if constrain != "on":
            raise InputError("`ground` ocr chooses among valid answers: leave `constrain` on")
        if grounding is None:
            raise InputError(_NOT_CALIBRATED)
    elif ground == "none" or constrain != "on" or grounding is None or not grounding.is_better:
        return None
    with argument("dataset"):
        texts = load_texts(dataset, split)
    if texts is None and ground is None:
        logger.warning(
            "This adapter is better with OCR, and %s has no texts of the images of split %s: --ground ocr reads them "
            "now, `python -m dataset_builder.ocr` once for all, and --ground none avoids this message",
            dataset,
            split,
        )
        return None
    return texts if texts is not None else load_engine()


def find_texts(ground: str | None, *, dataset: Location, split: str) -> TextSource | None:
    """The texts to find out with whether OCR gains anything: the dataset's, or an engine's where `ground` is ocr."""
    if ground == "none":
        return None
    with argument("dataset"):
        texts = load_texts(dataset, split)
    return load_engine() if texts is None and ground == "ocr" else texts


def find_engine(ground: str | None, reader: AttributeReader) -> OcrEngine | None:
    """The engine that reads images of one's own; None to ground no answers.

    `ground` None is ocr where the adapter's calibration.json says that it gains, and the extra is installed. Raises
    InputError for ocr without such a file, or without the extra.
    """
    grounding = reader.calibration.grounding
    if ground == "ocr" and grounding is None:
        raise InputError(_NOT_CALIBRATED)
    if ground == "none" or grounding is None or (ground is None and not (grounding.is_better and is_installed())):
        return None
    return load_engine()


def describe_grounding(source: TextSource | None, calibration: Calibration | None) -> dict[str, str | None]:
    """What a run records about the grounding of its predictions."""
    if source is None or calibration is None:
        return {}
    return {"ground": "ocr", "grounding": str(calibration.grounding), "ocr_engine": source.description}


class CandidateFinder:
    """Finds the candidates of rows. `unit_shares`: attribute -> unit -> its share of the labels."""

    def __init__(self, source: TextSource, *, schema: Schema, unit_shares: Mapping[str, Mapping[str, float]]) -> None:
        self._source, self._schema, self._unit_shares = source, schema, unit_shares

    def find(self, rows: Sequence[Mapping[str, Any]], images: Sequence[Image.Image]) -> list[list[Candidate]]:
        """The candidates of each row, best first. None for an image whose text the dataset does not have."""
        texts = self._read(rows, images)
        return [
            []
            if text is None
            else find_candidates(
                text, self._schema[row["entity_name"]], unit_shares=self._unit_shares.get(row["entity_name"], {})
            )
            for row, text in zip(rows, texts, strict=True)
        ]

    def _read(self, rows: Sequence[Mapping[str, Any]], images: Sequence[Image.Image]) -> list[ImageText | None]:
        if isinstance(self._source, StoredTexts):
            return [self._source.find(row["image_link"]) for row in rows]
        distinct = {id(image): image for image in images}  # rows of one image share it
        num_threads = 1 if is_worker() else os.cpu_count() or 1  # workers share the cores already
        with ThreadPoolExecutor(num_threads) as pool:
            texts = dict(zip(distinct, pool.map(partial(read_text, self._source), distinct.values()), strict=True))
        return [texts[id(image)] for image in images]


def make_finder(source: TextSource | None, reader: AttributeReader) -> CandidateFinder | None:
    """The finder of a reader's candidates, as when its grounding was fitted; None without a source."""
    if source is None:
        return None
    grounding = reader.calibration.grounding
    return CandidateFinder(source, schema=reader.schema, unit_shares=grounding.unit_shares if grounding else {})
