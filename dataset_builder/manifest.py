"""The manifest of a build, `build.json`: what a dataset folder was made from, and what is in it."""

import json
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import datasets

import product_vqa
from dataset_builder.corrections import DECISIONS
from dataset_builder.csv_reader import Tables
from dataset_builder.fingerprint import schema_digest
from dataset_builder.leakage import Leak
from dataset_builder.ocr_files import is_ocr
from dataset_builder.options import SelectionOptions
from dataset_builder.output_folder import MANIFEST_FILE, read_earlier_manifest
from dataset_builder.placeholders import Placeholder
from dataset_builder.row_filter import FilteredRows
from dataset_builder.split import JOINING_COLUMNS, Oversize, Splits
from dataset_builder.unanswered_sources import describe
from dataset_builder.unit_spellings import spellings_sha256
from product_vqa.atomic_io import atomic_write
from product_vqa.row_selection import RowSelection, is_description
from product_vqa.tables.layout import is_layout
from product_vqa.task.attributes import Schema
from product_vqa.task.columns import SPLITS
from product_vqa.task.quantity import RANGE_POLICIES
from product_vqa.task.schema import is_challenge
from product_vqa.task.schema_file import SCHEMA_FILE

# All images of the challenge have such a URL. A single other image makes it a dataset of somebody else's, for which
# the card's statement about the challenge's license may be wrong.
_CHALLENGE_URL = re.compile(r"\s*https?://m\.media-amazon\.com/", re.IGNORECASE)

_NAME = re.compile(r"[\w.+!-]{1,80}")
_REASON = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Manifest:
    """The content of `build.json`: its fields are the keys. Names and counts only, because the file is published."""

    fingerprint: str
    sources: dict[str, dict[str, str]]  # train_csv, test_csv, schema (unless the challenge's) -> file, sha256
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
    files: dict[str, str]  # file of data/ and rows/, and left_out.csv -> digest
    dataset_info: dict[str, Any] = field(default_factory=dict)  # as in the card's metadata
    row_selection: dict[str, str | int] = field(default_factory=dict)  # RowSelection.describe
    layout: dict[str, Any] = field(default_factory=dict)  # Layout.describe; not in the file if it is the default
    unit_spellings: str = ""  # sha256 of the table that labels were read with; not in the file if there is none
    unanswered: dict[str, Any] = field(default_factory=dict)  # `unanswered.choose_rows`; not in the file if empty
    ocr: dict[str, Any] = field(default_factory=dict)  # `ocr_files.write_ocr_files`; not in the file if empty
    corrections: dict[str, Any] = field(default_factory=dict)  # `Corrections.describe`; not in the file if empty
    is_challenge: bool = False  # whether the images are those of the Amazon ML Challenge 2024


def make_manifest(
    *,
    fingerprint: str,
    tables: Tables,
    image_source: str,
    image_size: int,
    selection: SelectionOptions,
    row_selection: RowSelection,
    filtered: FilteredRows,
    splits: Splits,
    leaks: list[Leak],
    placeholders: list[Placeholder],
    files: dict[str, str],
    dataset_info: dict[str, Any],
    unanswered: dict[str, Any],
    ocr: dict[str, Any],
) -> Manifest:
    return Manifest(
        fingerprint=fingerprint,
        sources=_sources(tables),
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
        files=files,
        dataset_info=dataset_info,
        row_selection=row_selection.describe(),
        layout=tables.layout.describe(),
        unit_spellings=spellings_sha256() if selection.unit_spellings else "",
        unanswered=unanswered,
        ocr=ocr,
        corrections=tables.describe_corrections(),
        is_challenge=is_challenge(tables.schema)
        and all(_CHALLENGE_URL.match(row.image_link) for row in tables.rows()),
    )


def _sources(tables: Tables) -> dict[str, dict[str, str]]:
    named = (("train_csv", tables.train), ("test_csv", tables.test))
    sources = {option: {"file": table.name, "sha256": table.sha256} for option, table in named if table is not None}
    if own := schema_digest(tables.schema):
        sources["schema"] = {"file": SCHEMA_FILE, "sha256": own}
    return sources


def save_manifest(manifest: Manifest, folder: Path) -> None:
    content = {
        name: value
        for name, value in asdict(manifest).items()
        if name not in ("layout", "unit_spellings", "unanswered", "ocr", "corrections") or value
    }
    with atomic_write(folder / MANIFEST_FILE) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def find_earlier_build(folder: Path, *, schema: Schema) -> Manifest | None:
    """The manifest of the earlier build in `folder`; None if the folder is missing, or holds nothing but shards.

    Raises InputError if anything else is there. A build of another version, with other keys, counts as none, and so
    does one with entities that the schema lacks.
    """
    content = read_earlier_manifest(folder)
    return None if content is None else parse_manifest(content, schema)


def is_made_from(
    manifest: Manifest | None,
    tables: Tables,
    row_selection: RowSelection,
    *,
    image_size: int,
    selection: SelectionOptions,
) -> bool:
    """Whether a build was made from these rows with these options. The images are not compared."""
    return manifest is not None and (
        {name: source["sha256"] for name, source in manifest.sources.items()}
        == {name: source["sha256"] for name, source in _sources(tables).items()}
        and manifest.row_selection == row_selection.describe()
        and manifest.layout == tables.layout.describe()
        and manifest.unit_spellings == (spellings_sha256() if selection.unit_spellings else "")
        and manifest.corrections == tables.describe_corrections()
        and {key: manifest.unanswered.get(key) for key in ("share", "from", "sha256", "below")}
        == {key: describe(selection).get(key) for key in ("share", "from", "sha256", "below")}
        and (manifest.image_size, manifest.ranges, manifest.validation_size, manifest.seed)
        == (image_size, selection.ranges, selection.validation_size, selection.seed)
    )


def parse_manifest(content: dict[str, Any], schema: Schema) -> Manifest | None:
    """The manifest; None unless it has the keys, and values of the types, that a build writes."""
    records = {"oversize": Oversize, "leaks": Leak, "placeholders": Placeholder}
    try:
        if not all(isinstance(content[key], list) for key in records):
            return None
        lists = {key: [record(**one) for one in content[key]] for key, record in records.items()}
        manifest = Manifest(**content | lists)
        return manifest if _is_valid(manifest, schema) else None
    except (TypeError, KeyError, AttributeError, ValueError):
        return None


def _is_valid(manifest: Manifest, schema: Schema) -> bool:
    """Whether everything in it can be shown in a card."""
    return (
        re.fullmatch("[0-9a-f]{16}", manifest.fingerprint) is not None
        and manifest.picture_source in ("image_dir", "image_store")
        and manifest.sources.keys() <= {"train_csv", "test_csv", "schema"}
        and all(
            source.keys() == {"file", "sha256"} and re.fullmatch("[0-9a-f]{64}", source["sha256"]) and source["file"]
            for source in manifest.sources.values()
        )
        and _are_counts({"image_size": manifest.image_size, "seed": abs(manifest.seed)})
        and manifest.ranges in RANGE_POLICIES
        and type(manifest.validation_size) in (int, float)
        and 0 <= manifest.validation_size < 1
        and all(_NAME.fullmatch(name) and _NAME.fullmatch(version) for name, version in manifest.versions.items())
        and bool(manifest.rows)
        and manifest.rows.keys() <= set(SPLITS)
        and all(counts.keys() <= set(schema.names) and _are_counts(counts) for counts in manifest.rows.values())
        and all(
            _are_counts(counts) and all(_REASON.fullmatch(reason) for reason in counts)
            for counts in (manifest.rows_left_out, manifest.images_missing)
        )
        and all(_are_counts({"rows": one.rows}) and isinstance(one.example, str) for one in manifest.oversize)
        and all(
            _are_counts({"urls": one.urls, "rows": one.rows}) and isinstance(one.example, str) and bool(str(one))
            for one in manifest.placeholders
        )
        and all(
            len(leak.splits) == 2
            and set(leak.splits) <= set(SPLITS)
            and _are_counts({key: value for key, value in asdict(leak).items() if key not in ("splits", "shared")})
            and _are_counts(leak.shared)
            and leak.shared.keys() <= set(JOINING_COLUMNS)
            for leak in manifest.leaks
        )
        and isinstance(manifest.files, dict)
        and isinstance(manifest.dataset_info, dict)
        and is_description(manifest.row_selection, schema=schema)
        and is_layout(manifest.layout)
        and re.fullmatch("([0-9a-f]{64})?", manifest.unit_spellings) is not None
        and _is_unanswered(manifest.unanswered, schema)
        and is_ocr(manifest.ocr)
        and _is_corrections(manifest.corrections)
        and isinstance(manifest.is_challenge, bool)
    )


def _is_unanswered(unanswered: dict[str, Any], schema: Schema) -> bool:
    """Whether a card can show what a manifest says about questions without an answer."""
    if not unanswered:
        return unanswered == {}
    optional = {"sha256": str, "below": float, "first_index": int}
    return (
        {"share", "from", "rows"} <= unanswered.keys() <= {"share", "from", "rows", *optional}
        and type(unanswered["share"]) is float
        and isinstance(unanswered["from"], str)
        and all(type(unanswered[key]) is kind for key, kind in optional.items() if key in unanswered)
        and set(unanswered["rows"]) <= set(SPLITS)
        and all(counts.keys() <= set(schema.names) and _are_counts(counts) for counts in unanswered["rows"].values())
    )


def _is_corrections(corrections: dict[str, Any]) -> bool:
    """Whether a card can show what a manifest says about corrections."""
    if not corrections:
        return corrections == {}
    counts = {decision: corrections[decision] for decision in DECISIONS}
    return (
        corrections.keys() == {"files", *DECISIONS}
        and _are_counts(counts)
        and isinstance(corrections["files"], list)
        and bool(corrections["files"])
        and all(
            one.keys() == {"file", "sha256"}
            and isinstance(one["file"], str)
            and bool(one["file"])
            and re.fullmatch("[0-9a-f]{64}", one["sha256"]) is not None
            for one in corrections["files"]
        )
    )


def _are_counts(counts: dict[str, Any]) -> bool:
    return all(type(count) is int and count >= 0 for count in counts.values())
