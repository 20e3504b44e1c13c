"""Where the texts of a split's images come from: the dataset's configuration `ocr`, or an engine that reads them."""

from dataclasses import dataclass

import pyarrow.compute as pc
from datasets import Dataset

from product_vqa.errors import argument
from product_vqa.hub import Location
from product_vqa.ocr.engine import is_installed, load_engine
from product_vqa.ocr.interface import OcrEngine
from product_vqa.ocr.stored_texts import StoredTexts, load_texts
from product_vqa.provenance import TEXT_FILES, content_sha256


@dataclass(frozen=True)
class TextSource:
    """The texts of rows' images: those that the dataset has, and those that an engine, if any, reads in others."""

    stored: StoredTexts | None = None
    engine: OcrEngine | None = None
    sha256: str | None = None  # of the stored texts in a folder
    num_missing: int = 0  # rows whose image has no stored texts

    def describe(self) -> dict[str, str | None]:
        """What a run records."""
        found: dict[str, str | None] = {}
        if self.engine is not None:
            found["ocr_engine"] = self.engine.description
        if self.stored is not None:
            found |= {"ocr_texts": self.stored.description, "ocr_texts_sha256": self.sha256}
        return found


def load_source(location: Location, split: str, *, rows: Dataset, reads: bool) -> TextSource | None:
    """The stored texts of a split's `rows` and, if it `reads` and some are missing, an engine; None without either.

    Raises InputError if there are no stored texts, and the engine that is needed is not installed.
    """
    with argument("dataset"):
        stored = load_texts(location, split)
    if stored is None:
        return TextSource(engine=load_engine()) if reads else None
    num_missing = count_missing(rows, stored)
    engine = load_engine() if reads and num_missing and is_installed() else None
    return TextSource(stored, engine, content_sha256(location, TEXT_FILES), num_missing)


def count_missing(rows: Dataset, stored: StoredTexts) -> int:
    """How many rows have an image whose URL has no stored texts."""
    all_rows = rows.data  # of the split, also those that are not selected
    with_image = set(all_rows.column("image_link").filter(pc.is_valid(all_rows.column("image"))).to_pylist())
    return sum(link in with_image and link not in stored for link in rows.select_columns("image_link")["image_link"])
