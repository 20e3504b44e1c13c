"""The manifest of a build, `build.json`: what a dataset folder was made from, and what is in it."""

import json
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import datasets

import product_vqa
from dataset_builder.csv_reader import Tables
from dataset_builder.leakage import Leak
from dataset_builder.options import SelectionOptions
from dataset_builder.placeholders import Placeholder
from dataset_builder.row_filter import FilteredRows
from dataset_builder.split import Oversize, Splits
from product_vqa.errors import InputError, argument
from product_vqa.paths import writable_folder

MANIFEST_FILE = "build.json"
# All images of the challenge have such a URL. A single other image makes it a dataset of somebody else's, for which
# the card's statement about the challenge's license may be wrong.
_CHALLENGE_URL = re.compile(r"\s*https?://m\.media-amazon\.com/", re.IGNORECASE)


@dataclass(frozen=True)
class Manifest:
    """The content of `build.json`: its fields are the keys. Names and counts only, because the file is published."""

    fingerprint: str
    sources: dict[str, dict[str, str]]  # train_csv, test_csv -> file, sha256
    picture_source: str  # "image_dir" or "image_store"
    image_size: int
    ranges: str
    validation_size: float
    seed: int
    versions: dict[str, str]
    rows: dict[str, dict[str, int]]  # split -> entity -> rows
    rows_left_out: dict[str, int]  # reason -> rows of train.csv
    images_missing: dict[str, int]  # reason -> rows of test.csv
    oversize: list[Oversize]  # components that stay in train because of their size
    leaks: list[Leak]  # what every two splits share
    placeholders: list[Placeholder]  # images that show no product
    dataset_info: dict[str, Any] = field(default_factory=dict)  # as in the card's metadata
    is_challenge: bool = False  # whether the images are those of the Amazon ML Challenge 2024


def make_manifest(
    *,
    fingerprint: str,
    tables: Tables,
    image_source: str,
    image_size: int,
    selection: SelectionOptions,
    filtered: FilteredRows,
    splits: Splits,
    leaks: list[Leak],
    placeholders: list[Placeholder],
    dataset_info: dict[str, Any],
) -> Manifest:
    return Manifest(
        fingerprint=fingerprint,
        sources={
            option: {"file": table.name, "sha256": table.sha256}
            for option, table in (("train_csv", tables.train), ("test_csv", tables.test))
            if table is not None
        },
        picture_source=image_source,
        image_size=image_size,
        ranges=selection.ranges,
        validation_size=selection.validation_size,
        seed=selection.seed,
        versions={"product-vqa": product_vqa.__version__, "datasets": datasets.__version__},
        rows={
            split: dict(Counter(selected.row.entity_name for selected in rows).most_common())
            for split, rows in splits.rows.items()
        },
        rows_left_out=filtered.count_dropped("row"),
        images_missing=filtered.count_dropped("image"),
        oversize=list(splits.oversize),
        leaks=leaks,
        placeholders=placeholders,
        dataset_info=dataset_info,
        is_challenge=all(_CHALLENGE_URL.match(row.image_link) for row in tables.rows()),
    )


def save_manifest(manifest: Manifest, folder: Path) -> None:
    (folder / MANIFEST_FILE).write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")


def find_earlier_build(folder: Path) -> Manifest | None:
    """The manifest of the earlier build in `folder`, or None if the folder is missing or empty.

    Raises InputError if anything else is there, or if the folder cannot be written. A build of another version, with
    other keys, counts as none: it will be replaced.
    """
    with argument("output_dir"):
        writable_folder(folder.parent)
        if not folder.exists():
            return None
        if not folder.is_dir():
            raise InputError(f"{folder}: is a file; choose another name")
        writable_folder(folder)
        if not any(folder.iterdir()):
            return None
        try:
            content = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            content = None
        if not isinstance(content, dict) or "fingerprint" not in content:
            raise InputError(
                f"{folder}: contains files that are not an earlier build of this command; "
                "choose another folder, or empty it yourself"
            )
        try:
            return _from_json(content)
        except (TypeError, KeyError):
            return None


def _from_json(content: dict[str, Any]) -> Manifest:
    records = {"oversize": Oversize, "leaks": Leak, "placeholders": Placeholder}
    return Manifest(**content | {key: [record(**one) for one in content[key]] for key, record in records.items()})
