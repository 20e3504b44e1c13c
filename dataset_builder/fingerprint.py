"""The fingerprint of a build: equal for two builds that would give the same rows and images."""

import hashlib
from importlib import metadata
from typing import TYPE_CHECKING

from dataset_builder.csv_reader import Tables
from dataset_builder.image_dir import ImageDir
from dataset_builder.options import SelectionOptions
from dataset_builder.unanswered_sources import describe
from dataset_builder.unit_spellings import spellings_sha256
from product_vqa.row_selection import ALL_ROWS, RowSelection
from product_vqa.task.attributes import Schema
from product_vqa.task.schema import CHALLENGE
from product_vqa.task.schema_file import format_schema

if TYPE_CHECKING:  # its shards have a fingerprint too
    from dataset_builder.shard_images import StoredImages

# Part of every fingerprint, so that an earlier build does not count as unchanged. Increase it with every change of
# this code after which the same input gives other rows or images: other splits, labels, columns, or image files.
FORMAT_VERSION = 2
IMAGE_LIBRARIES = ("pillow", "cykooz-resizer", "imagehash")  # other versions may decode, resize or hash differently


def compute_fingerprint(
    tables: Tables,
    images: "ImageDir | StoredImages",
    *,
    image_size: int,
    selection: SelectionOptions,
    row_selection: RowSelection = ALL_ROWS,
    texts: str = "",
) -> str:
    """Hash the CSVs, which of their rows are used, a schema of their own, the images, the options, and FORMAT_VERSION.

    For a folder, the versions of the libraries that prepare its images count too. The images of a store are prepared
    already. `texts` identifies the texts of the images, if they are published.
    """
    sources = tuple(table and (table.name, table.sha256) for table in tables)
    libraries = IMAGE_LIBRARIES if isinstance(images, ImageDir) else ()
    parts = [
        repr(sources),
        repr((image_size, selection.ranges, float(selection.validation_size), selection.seed, FORMAT_VERSION)),
        images.fingerprint(tables.urls()),  # a folder or a store may also hold images of other CSVs
        repr([(name, library_version(name)) for name in libraries]),
    ]
    if not row_selection.is_all:
        parts.append(repr(row_selection.describe()))
    if selection.unit_spellings:
        parts.append(f"unit_spellings {spellings_sha256()}")
    if own := schema_digest(tables.schema):
        parts.append(own)
    if unanswered := describe(selection):
        parts.append(repr(unanswered))
    if corrections := tables.describe_corrections():
        parts.append(repr(corrections))
    if layout := tables.layout.describe():
        parts.append(repr(layout))
    if texts:
        parts.append(f"ocr {texts}")
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def schema_digest(schema: Schema) -> str:
    """The sha256 of the dataset's schema.yaml; "" for the challenge's schema, of which a dataset has no file."""
    return "" if schema == CHALLENGE else hashlib.sha256(format_schema(schema).encode()).hexdigest()


def library_version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:  # the resizer, where there is no wheel
        return None
