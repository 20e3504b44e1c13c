"""Where the texts of a split's images come from: the dataset's configuration `ocr`, or an engine that reads them."""

from dataclasses import dataclass

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

    def describe(self) -> dict[str, str | None]:
        """What a run records."""
        found: dict[str, str | None] = {}
        if self.engine is not None:
            found["ocr_engine"] = self.engine.description
        if self.stored is not None:
            found |= {"ocr_texts": self.stored.description, "ocr_texts_sha256": self.sha256}
        return found


def load_source(dataset: Location, split: str, *, reads: bool) -> TextSource | None:
    """The dataset's texts and, if it `reads`, an engine for other images; None without either.

    Raises InputError if an engine is needed and not installed.
    """
    with argument("dataset"):
        stored = load_texts(dataset, split)
    engine = load_engine() if reads and (stored is None or is_installed()) else None
    if stored is None and engine is None:
        return None
    return TextSource(stored, engine, None if stored is None else content_sha256(dataset, TEXT_FILES))
