"""The Parquet files of a dataset's configuration `ocr`: one row per image, with the texts that were read in it."""

import hashlib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from product_vqa.atomic_io import atomic_write
from product_vqa.ocr.image_text import ImageText

ENGINE_KEY = b"ocr_engine"  # of the schema's metadata: the engine's description
ROW_GROUP_ROWS = 500  # images
SCHEMA = pa.schema(
    {
        "image_link": pa.string(),
        "sha256": pa.string(),  # of the dataset's image; null if it is not known
        "width": pa.int32(),  # at which it was read
        "height": pa.int32(),
        "texts": pa.list_(
            pa.struct({"text": pa.string(), "score": pa.float32(), "corners": pa.list_(pa.float32())})  # of TextBox
        ),
    }
)
COLUMNS = {  # their types, by their paths in a Parquet file
    "image_link": ("BYTE_ARRAY",),
    "width": ("INT32", "INT64"),
    "height": ("INT32", "INT64"),
    "texts.list.element.text": ("BYTE_ARRAY",),
    "texts.list.element.score": ("FLOAT", "DOUBLE"),
    "texts.list.element.corners.list.element": ("FLOAT", "DOUBLE"),
}


class TextRow(NamedTuple):
    """The texts of the image of a URL."""

    image_link: str
    sha256: str | None
    text: ImageText


def hash_image(content: bytes) -> str:
    """The SHA-256 of a dataset's image, as the configuration `ocr` has it."""
    return hashlib.sha256(content).hexdigest()


def write_texts(path: Path, rows: Iterable[TextRow], *, engine: str) -> None:
    """Write a file, complete or not at all. `engine` is the description of the engine that read all of the texts."""
    schema = SCHEMA.with_metadata({ENGINE_KEY: engine.encode()})
    remaining = iter(rows)
    with atomic_write(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        while some := list(islice(remaining, ROW_GROUP_ROWS)):
            values = [{"image_link": row.image_link, "sha256": row.sha256, **row.text.as_dict()} for row in some]
            writer.write_table(pa.Table.from_pylist(values, schema=schema))
