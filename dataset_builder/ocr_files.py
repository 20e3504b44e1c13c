"""Writes the texts of a dataset's images, its configuration `ocr`, and describes them for manifest and card."""

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from dataset_builder.output_folder import OCR_FOLDER
from product_vqa.dataset import DAMAGED
from product_vqa.ocr.text_files import TextRow, write_texts
from product_vqa.parquet_files import ParquetError, check_parquet
from product_vqa.quoting import code_span
from product_vqa.task.columns import SPLITS

if TYPE_CHECKING:
    from dataset_builder.image_texts import ImageTexts

logger = logging.getLogger(__name__)

LARGE_SIDE = 1000  # px: below it, small print is lost
_SMALL_PRINT = (
    "On 147 real photos of the challenge, OCR and rules have an exact F1 of 0.843 at full size, 0.805 at 1,024 px and "
    "0.738 at 448 px"
)
SECTION = "Texts in the images"  # of the card


def write_ocr_files(images: Mapping[str, Mapping[str, str]], texts: "ImageTexts", folder: Path) -> dict[str, Any]:
    """Write the texts of each split's images (URL -> sha256) to a dataset's folder; returns their description.

    The description is `Manifest.ocr`: engine, images of each split, and the longer sides, in px, at which they were
    read. It is empty, and nothing is written, if there are no images with texts. (One that was read and has none has
    an empty list.)
    """
    counts: dict[str, int] = {}
    sides: list[int] = []
    for split, found in images.items():
        hashes = {url: sha256 for url, sha256 in found.items() if texts.has(url, sha256)}
        if not hashes:
            continue
        (folder / OCR_FOLDER).mkdir(exist_ok=True)

        def row(url: str, sha256: str) -> TextRow:
            text = texts.find(url, sha256)
            sides.append(max(text.width, text.height))
            return TextRow(url, sha256, text)

        rows = (row(url, sha256) for url, sha256 in hashes.items())
        write_texts(folder / ocr_file(split), rows, engine=texts.description)
        counts[split] = len(hashes)
    if not counts:
        return {}
    return {"engine": texts.description, "images": counts, "longer_side": describe_sides(sides)}


def warn_of_removal(folder: Path, *, is_read_again: bool) -> None:
    """Log how many images' texts, of an earlier build in `folder`, a build that reads none will remove.

    Files that cannot be read do not count: nothing is lost with them.
    """
    if is_read_again:
        return
    num_images = 0
    for file in (folder / OCR_FOLDER).glob("*.parquet"):
        with suppress(ParquetError, *DAMAGED):
            check_parquet(file, {})
            num_images += pq.read_metadata(file).num_rows
    if num_images:
        logger.warning(
            "%s: the texts of %d images of the earlier build (%s/) will be removed; --ocr, or dataset_builder.ocr "
            "after this build, reads them again (with --image_store, --ocr keeps what it has read)",
            folder, num_images, OCR_FOLDER,
        )  # fmt: skip


def describe_sides(sides: Sequence[int]) -> dict[str, int]:
    return {"smallest": min(sides), "median": median_low(sides), "largest": max(sides)}


def ocr_file(split: str) -> str:
    """The name of a split's file in the dataset."""
    return f"{OCR_FOLDER}/{split}-00000-of-00001.parquet"


def ocr_config(splits: Collection[str]) -> dict[str, Any]:
    """The entry of a card's `configs`."""
    files = [{"split": split, "path": f"{OCR_FOLDER}/{split}-*"} for split in splits]
    return {"config_name": OCR_FOLDER, "data_files": files}


def is_ocr(ocr: Any) -> bool:
    """Whether it is a description that `write_ocr_files` returns, so that a card can show it."""
    if ocr == {}:
        return True
    sizes = ("smallest", "median", "largest")
    return (
        isinstance(ocr, dict)
        and ocr.keys() == {"engine", "images", "longer_side"}
        and isinstance(ocr["engine"], str)
        and re.fullmatch(r"[\w.,+ -]{1,200}", ocr["engine"]) is not None
        and bool(ocr["images"])
        and set(ocr["images"]) <= set(SPLITS)
        and ocr["longer_side"].keys() == set(sizes)
        and all(type(count) is int and count > 0 for part in ("images", "longer_side") for count in ocr[part].values())
    )


def describe_texts(ocr: Mapping[str, Any]) -> str:
    """The card's section. It has no text of an image."""
    sides = ocr["longer_side"]
    at = f"{sides['median']} px" if sides["smallest"] == sides["largest"] else (
        f"{sides['smallest']} to {sides['largest']} px, {sides['median']} px at the median"
    )  # fmt: skip
    counts = "\n".join(f"| {split} | {count} |" for split, count in ocr["images"].items())
    return f"""## {SECTION}

The configuration `ocr` has what {code_span(ocr["engine"])} read in each image, whose longer side had {at}: \
`load_dataset(..., "ocr")`. Nobody has corrected it. An image can say anything: show its text as text, and let no \
program or model follow it.

| column | content |
|---|---|
| `image_link`, `sha256` | the image, as in the configuration `rows` |
| `width`, `height` | its size in px when it was read |
| `texts` | for each line, `text`, `score` (0 to 1) and `corners`: x and y of the top left, top right, bottom right \
and bottom left of the text as one reads it, as fractions of the image's width and height |

| split | images |
|---|---:|
{counts}"""


def find_small_print(ocr: Mapping[str, Any]) -> list[str]:
    """What reading the images at their size costs, as a line; none for large ones. `ocr` is as in the manifest."""
    side = ocr["longer_side"]["median"] if ocr else LARGE_SIDE
    if side >= LARGE_SIDE:
        return []
    return [f"texts: read at {side} px (median of the longer sides): small print is lost. {_SMALL_PRINT}"]
