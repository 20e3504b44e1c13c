"""The shards of a build: what each machine downloaded, as files in a folder or on a branch, and their merge.

A shard is `shards/00001-of-00006/` with the outcome for each of its URLs (`states.parquet`), the distinct images
(`images-00000.parquet` ...), and `shard.json`, written last, which says what it was made from. Shards are read like
anything of a stranger's: what no build writes is refused.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from dataset_builder.csv_reader import Tables
from dataset_builder.fingerprint import FORMAT_VERSION, IMAGE_LIBRARIES, library_version
from dataset_builder.image_preparation import PreparedImage
from dataset_builder.image_store import IMAGE_STARTS, NOT_FETCHED, ImageStore, StoredImage, UrlState, is_possible
from product_vqa.documents import DocumentError, read_json
from product_vqa.errors import InputError, first_line
from product_vqa.parquet_files import ParquetError, check_parquet
from product_vqa.provenance import list_changes
from product_vqa.row_selection import RowSelection
from product_vqa.sharding import Shard, all_shards, missing_message

Item = TypeVar("Item")

SHARDS_FOLDER = "shards"
MANIFEST_FILE = "shard.json"
STATES_FILE = "states.parquet"
MAX_FILE_BYTES = 500 * 1024**2
ROW_GROUP_IMAGES, ROW_GROUP_STATES = 100, 10_000
_STATES = pa.schema(
    [
        ("url", pa.string()), ("status", pa.string()), ("reason", pa.string()), ("http_status", pa.int32()),
        ("tries", pa.int32()), ("seconds", pa.float64()), ("finished_at", pa.string()), ("num_bytes", pa.int64()),
        ("width", pa.int32()), ("height", pa.int32()), ("sha256", pa.string()), ("phash", pa.int64()),
    ]
)  # fmt: skip
_IMAGES = pa.schema([("sha256", pa.string()), ("bytes", pa.binary())])
_PHYSICAL_TYPES = {
    pa.string(): "BYTE_ARRAY", pa.binary(): "BYTE_ARRAY", pa.int32(): "INT32", pa.int64(): "INT64",
    pa.float64(): "DOUBLE",
}  # fmt: skip
IMAGES_FILE = re.compile(r"images-\d{5}\.parquet")
assert tuple(_STATES.names) == UrlState._fields


@dataclass(frozen=True)
class Inputs:
    """What all shards of a build have in common."""

    sources: dict[str, str]  # train_csv, test_csv -> sha256
    row_selection: dict[str, str | int]
    image_size: int
    libraries: dict[str, str | None]  # that decode, resize and hash images
    format_version: int

    @classmethod
    def of(cls, tables: Tables, row_selection: RowSelection, *, image_size: int) -> "Inputs":
        named = {"train_csv": tables.train, "test_csv": tables.test}
        return cls(
            sources={name: table.sha256 for name, table in named.items() if table is not None},
            row_selection=row_selection.describe(),
            image_size=image_size,
            libraries={name: library_version(name) for name in IMAGE_LIBRARIES},
            format_version=FORMAT_VERSION,
        )


def shard_folder(output_dir: Path, shard: Shard) -> Path:
    return output_dir / SHARDS_FOLDER / shard.suffix


# ---- Writing ------------------------------------------------------------------------------------------------------


def write_shard(folder: Path, store: ImageStore, urls: Sequence[str], *, shard: Shard, inputs: Inputs) -> None:
    """Write the files of a shard to `folder`, which must not exist. `urls` are those of the shard, in order.

    Raises InputError if the store does not know what became of a URL.
    """
    folder.mkdir(parents=True)
    images: dict[str, StoredImage] = {}  # by sha256, in the order of the URLs
    with pq.ParquetWriter(folder / STATES_FILE, _STATES) as writer:
        for batch in _batches(store.states(urls), ROW_GROUP_STATES):
            for state in batch:
                if state.reason == NOT_FETCHED:
                    raise InputError(f"shard {shard}: {state.url} was not downloaded; set `download` true")
                if state.image is not None:
                    images.setdefault(state.image.sha256, state.image)
            # Without the times of this machine: whoever does the same shard writes the same files.
            rows = [state._replace(tries=0, seconds=0.0, finished_at="")._asdict() for state in batch]
            writer.write_table(pa.Table.from_pylist(rows, schema=_STATES))
    for number, part in enumerate(_parts(images.values())):
        with pq.ParquetWriter(folder / f"images-{number:05d}.parquet", _IMAGES, compression="none") as writer:
            for group in _batches(part, ROW_GROUP_IMAGES):
                rows = [{"sha256": image.sha256, "bytes": store.read_image(image)} for image in group]
                writer.write_table(pa.Table.from_pylist(rows, schema=_IMAGES))
    content = {
        "shard": str(shard),
        "inputs": asdict(inputs),
        "images": store.fingerprint(urls),
        "files": {file.name: _digest(file) for file in sorted(folder.glob("*.parquet"))},
    }
    (folder / MANIFEST_FILE).write_text(json.dumps(content, indent=2) + "\n")


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _parts(images: Iterable[StoredImage]) -> Iterator[list[StoredImage]]:
    """The images, cut into files of a bounded size."""
    part: list[StoredImage] = []
    size = 0
    for image in images:
        if part and size + image.num_bytes > MAX_FILE_BYTES:
            yield part
            part, size = [], 0
        part.append(image)
        size += image.num_bytes
    if part:
        yield part


def is_done(folder: Path, store: ImageStore, urls: Sequence[str], *, shard: Shard, inputs: Inputs) -> bool:
    """Whether the folder holds this shard as it was written, from what the store has now."""
    try:
        content = read_manifest(folder, shard=shard, inputs=inputs)
        check_files(folder, content, shard=shard)
    except InputError:
        return False
    return bool(content["images"] == store.fingerprint(urls))


# ---- Reading ------------------------------------------------------------------------------------------------------


def read_manifest(folder: Path, *, shard: Shard, inputs: Inputs) -> dict[str, Any]:
    """Return `shard.json`. Raises InputError unless the shard was made from these inputs with these settings."""
    try:
        content = read_json(folder / MANIFEST_FILE)
    except (OSError, DocumentError) as error:
        raise InputError(
            f"shard {shard}: {MANIFEST_FILE} cannot be read ({first_line(error)}); run it again"
        ) from error
    keys = {"shard": str, "inputs": dict, "images": str, "files": dict}
    if not isinstance(content, dict) or any(not isinstance(content.get(key), kind) for key, kind in keys.items()):
        raise InputError(f"shard {shard}: its {MANIFEST_FILE} was not written by build; run it again")
    of_shard = list_changes({"shard": content["shard"]}, {"shard": str(shard)})
    of_inputs = list_changes(content["inputs"], json.loads(json.dumps(asdict(inputs))))
    if changes := "; ".join(filter(None, (of_shard, of_inputs))):
        raise InputError(f"shard {shard} was made from other inputs or settings ({changes}); run it again")
    if STATES_FILE not in content["files"] or any(
        name != STATES_FILE and not IMAGES_FILE.fullmatch(name) for name in content["files"]
    ):
        raise InputError(f"shard {shard}: its {MANIFEST_FILE} lists files that no build writes; run it again")
    return content


def check_files(folder: Path, content: dict[str, Any], *, shard: Shard) -> None:
    """Raise InputError unless the files of a shard are as they were written."""
    for name, digest in content["files"].items():
        if not (folder / name).is_file() or _digest(folder / name) != digest:
            raise InputError(f"shard {shard}: its file {name} is not as it was written; run it again")


def import_shards(
    output_dir: Path, store: ImageStore, urls: Sequence[str], *, count: int, inputs: Inputs, where: str
) -> None:
    """Copy all shards of a folder to an empty store.

    Raises InputError unless all of them are there, were made from the same inputs, and hold what a build writes.
    `where` names the folder or the repo in messages.
    """
    shards = all_shards(count)
    missing = [shard for shard in shards if not (shard_folder(output_dir, shard) / MANIFEST_FILE).is_file()]
    if missing:
        raise InputError(missing_message(missing, where=where))
    contents = [read_manifest(shard_folder(output_dir, shard), shard=shard, inputs=inputs) for shard in shards]
    own: list[set[str]] = [set() for _ in shards]
    for url in urls:
        own[Shard.of_url(url, count).number - 1].add(url)
    with store.locked():
        for shard, content in zip(shards, contents, strict=True):
            folder = shard_folder(output_dir, shard)
            check_files(folder, content, shard=shard)
            try:
                _import(folder, content, store, shard=shard, urls=own[shard.number - 1])
            except (ParquetError, OSError, ValueError, TypeError, MemoryError, pa.ArrowException) as error:
                raise InputError(f"shard {shard}: cannot be read ({first_line(error)}); run it again") from error
        store.write_failures()


def _import(folder: Path, content: dict[str, Any], store: ImageStore, *, shard: Shard, urls: set[str]) -> None:
    images: dict[str, StoredImage] = {}
    for row in _rows(folder / STATES_FILE, _STATES):
        state = UrlState(**row)
        if state.url not in urls or not is_possible(state) or state.reason == NOT_FETCHED:
            raise InputError(f"shard {shard}: its {STATES_FILE} holds what no build writes; run it again")
        urls.discard(state.url)
        if state.image is not None and images.setdefault(state.image.sha256, state.image) != state.image:
            raise InputError(f"shard {shard}: its {STATES_FILE} describes one image in two ways; run it again")
    if urls:
        raise InputError(f"shard {shard}: lacks {len(urls)} of its URLs; run it again")
    for name in sorted(content["files"].keys() - {STATES_FILE}):
        for row in _rows(folder / name, _IMAGES):
            image, data = images.pop(row["sha256"], None), row["bytes"] or b""
            is_intact = image is not None and len(data) == image.num_bytes and data.startswith(IMAGE_STARTS)
            if image is None or not is_intact or hashlib.sha256(data).hexdigest() != image.sha256:
                raise InputError(f"shard {shard}: {name} holds an image of none of its URLs; run it again")
            store.save(PreparedImage(data, image.width, image.height, image.phash))
    if images:
        raise InputError(f"shard {shard}: lacks {len(images)} of its images; run it again")
    for row in _rows(folder / STATES_FILE, _STATES):  # again, and not all of them in memory
        store.record(UrlState(**row))


def _rows(file: Path, schema: pa.Schema) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file with exactly this schema, one row group at a time."""
    paths = check_parquet(file, {field.name: (_PHYSICAL_TYPES[field.type],) for field in schema})
    if paths != schema.names:
        raise ParquetError(f"{file.name} has other columns: {', '.join(paths)[:200]}")
    with pq.ParquetFile(file) as parquet:
        if parquet.schema_arrow.remove_metadata() != schema:
            raise ParquetError(f"{file.name} has columns of other types")
        for number in range(parquet.num_row_groups):
            yield from parquet.read_row_group(number, columns=schema.names).to_pylist()


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
