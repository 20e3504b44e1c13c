"""What the text of an image may answer, for the rows of a batch: from the dataset's texts, or read by an engine."""

import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from datasets import Dataset
from PIL import Image

from inference.text_source import TextSource, load_source
from product_vqa.errors import InputError
from product_vqa.hub import Location
from product_vqa.modeling.attribute_reader import AttributeReader
from product_vqa.modeling.calibration import Calibration
from product_vqa.ocr.candidate import Candidate
from product_vqa.ocr.candidates import CandidateRules
from product_vqa.ocr.engine import is_installed, load_engine
from product_vqa.ocr.image_text import ImageText
from product_vqa.ocr.interface import OcrEngine, read_text
from product_vqa.quoting import one_line
from product_vqa.workers import is_worker

logger = logging.getLogger(__name__)

_NOT_CALIBRATED = (
    "`ground` ocr: the adapter has no calibration.json that says how far to trust OCR; calibrate it with `ground` ocr "
    "on a labelled split"
)


def find_source(
    ground: str | None,
    *,
    calibration: Calibration | None,
    constrain: str,
    dataset: Location,
    split: str,
    rows: Dataset,
    warns: bool = True,
) -> TextSource | None:
    """Where the texts that ground predictions come from: the dataset, or else an engine; None to ground none.

    `ground` None grounds where the adapter's calibration.json says that it gains, if the dataset has the texts; if it
    has none, one of the processes `warns`. Raises InputError for `ocr` where the adapter is not calibrated for it.
    """
    grounding = calibration.grounding if calibration else None
    if ground == "ocr":
        if grounding is None:
            raise InputError(_NOT_CALIBRATED)
    elif ground == "none" or constrain != "on" or grounding is None or not grounding.is_better:
        return None
    source = load_source(dataset, split, rows=rows, reads=ground == "ocr")
    if source is not None and source.num_missing and source.engine is None and warns:
        logger.warning(
            "%d of %d rows have an image without texts in %s: they are not grounded. `python -m dataset_builder.ocr` "
            "reads these images once for all, and --ground ocr now (extra ocr)",
            source.num_missing,
            len(rows),
            dataset,
        )
    if source is None and warns:
        logger.warning(
            "This adapter is better with OCR, and %s has no texts of the images of split %s: --ground ocr reads them "
            "now, `python -m dataset_builder.ocr` once for all, and --ground none avoids this message",
            dataset,
            split,
        )
    return source


def find_texts(ground: str | None, *, dataset: Location, split: str, rows: Dataset) -> TextSource | None:
    """The texts to find out with whether OCR gains anything: the dataset's, or an engine's where `ground` is ocr."""
    return None if ground == "none" else load_source(dataset, split, rows=rows, reads=ground == "ocr")


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
    return {"ground": "ocr", "grounding": str(calibration.grounding), **source.describe()}


class CandidateFinder:
    """Finds the candidates of rows by rules in the texts of their images."""

    def __init__(self, source: TextSource, rules: CandidateRules) -> None:
        self._source, self._rules = source, rules
        self._pool: ThreadPoolExecutor | None = None  # its threads keep their engines, which take a second to load
        self._has_warned = False

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pool": None}  # for a worker, which reads in its own thread

    def find(self, rows: Sequence[Mapping[str, Any]], images: Sequence[Image.Image]) -> list[list[Candidate] | None]:
        """The candidates of each row, best first.

        None for an image that nobody has read, and for an attribute that the rules do not look for. Stored texts that
        were read in another image than the row's, according to its `image_sha256`, if it has one, do not count.
        """
        return [
            None if text is None else self._rules.find(text, row["entity_name"])
            for row, text in zip(rows, self._read(rows, images), strict=True)
        ]

    def _read(self, rows: Sequence[Mapping[str, Any]], images: Sequence[Image.Image]) -> list[ImageText | None]:
        stored, engine = self._source.stored, self._source.engine
        found = [None if stored is None else stored.find(row["image_link"], row.get("image_sha256")) for row in rows]
        if engine is None:
            self._warn_of_others(rows, found)
            return found
        # Rows of one image share it.
        missing = {id(image): image for image, text in zip(images, found, strict=True) if text is None}
        read = dict(zip(missing, self._map(partial(read_text, engine), missing.values()), strict=True))
        return [text or read[id(image)] for image, text in zip(images, found, strict=True)]

    def _warn_of_others(self, rows: Sequence[Mapping[str, Any]], found: Sequence[ImageText | None]) -> None:
        stored = self._source.stored
        for row, text in zip(rows, found, strict=True):
            if text is None and stored is not None and row["image_link"] in stored and not self._has_warned:
                self._has_warned = True
                logger.warning(
                    "The texts of %s were read in another image (sha256), so its rows are not grounded, and perhaps "
                    "others: read the images again with `python -m dataset_builder.ocr`",
                    one_line(row["image_link"]),
                )

    def _map(self, read: Callable[[Image.Image], ImageText], images: Collection[Image.Image]) -> Iterable[ImageText]:
        if is_worker():  # workers share the cores already
            return map(read, images)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="product-vqa-ocr")
        return self._pool.map(read, images)


def make_finder(source: TextSource | None, reader: AttributeReader) -> CandidateFinder | None:
    """The finder of a reader's candidates, as when its grounding was fitted; None without a source."""
    if source is None:
        return None
    grounding = reader.calibration.grounding
    return CandidateFinder(source, CandidateRules(reader.schema, grounding.unit_shares if grounding else {}))
