"""The shards of a build: what each machine downloaded, as files in a folder or on a branch.

A shard is `shards/00001-of-00006/` with the outcome for each of its URLs, a JSON object per line (`states.jsonl`), its
distinct images in the order of the URLs, one after the other (`images-00000.bin` ...), and `shard.json`, written last,
which says what it was made from. `shard_images` reads them. Neither needs pyarrow, which takes as long to import as
hundreds of images take to download.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dataset_builder.csv_reader import Tables
from dataset_builder.fingerprint import FORMAT_VERSION, IMAGE_LIBRARIES, library_version, schema_digest
from dataset_builder.image_store import NOT_FETCHED, ImageStore
from dataset_builder.stored_image import StoredImage
from product_vqa.documents import DocumentError, read_json
from product_vqa.errors import InputError, first_line
from product_vqa.provenance import list_changes
from product_vqa.row_selection import RowSelection
from product_vqa.sharding import Shard

SHARDS_FOLDER = "shards"
MANIFEST_FILE = "shard.json"
STATES_FILE = "states.jsonl"
IMAGES_FILE = re.compile(r"images-\d{5}\.bin")
MAX_FILE_BYTES = 500 * 1024**2


@dataclass(frozen=True)
class Inputs:
    """What all shards of a build have in common."""

    sources: dict[str, str]  # train_csv, test_csv, schema (unless it is the challenge's) -> sha256
    row_selection: dict[str, str | int]
    image_size: int
    libraries: dict[str, str | None]  # that decode, resize and hash images
    format_version: int
    layout: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """What the manifest of a shard records; `layout` only where it is not the default."""
        return {name: value for name, value in asdict(self).items() if name != "layout" or value}

    @classmethod
    def of(cls, tables: Tables, row_selection: RowSelection, *, image_size: int) -> "Inputs":
        named = {"train_csv": tables.train, "test_csv": tables.test}
        sources = {name: table.sha256 for name, table in named.items() if table is not None}
        if own := schema_digest(tables.schema):
            sources["schema"] = own
        return cls(
            sources=sources,
            row_selection=row_selection.describe(),
            image_size=image_size,
            libraries={name: library_version(name) for name in IMAGE_LIBRARIES},
            format_version=FORMAT_VERSION,
            layout=tables.layout.describe(),
        )


def shard_folder(output_dir: Path, shard: Shard) -> Path:
    return output_dir / SHARDS_FOLDER / shard.suffix


def write_shard(folder: Path, store: ImageStore, urls: Sequence[str], *, shard: Shard, inputs: Inputs) -> None:
    """Write the files of a shard to `folder`, which must not exist. `urls` are those of the shard, in order.

    Raises InputError if the store does not know what became of a URL.
    """
    folder.mkdir(parents=True)
    images: dict[bytes, StoredImage] = {}  # by hash, in the order of the URLs
    with (folder / STATES_FILE).open("w", encoding="utf-8") as stream:
        for state in store.states(urls):
            if state.reason == NOT_FETCHED:
                raise InputError(f"shard {shard}: {state.url} was not downloaded; set `download` true")
            image = state.image
            if image is not None:
                images.setdefault(image.digest, image)
            # Without the times of this machine: whoever does the same shard writes the same files.
            outcome = {"reason": state.reason} if image is None else image.as_dict()
            stream.write(json.dumps({"url": state.url} | outcome) + "\n")
    for name, group in group_by_file(images.values()).items():
        with (folder / name).open("wb") as stream:
            for image in group:
                stream.write(store.read_image(image))
    content = {
        "shard": str(shard),
        "inputs": inputs.as_dict(),
        "images": store.fingerprint(urls),
        "files": {file.name: _digest(file) for file in sorted(folder.iterdir())},
    }
    (folder / MANIFEST_FILE).write_text(json.dumps(content, indent=2) + "\n")


def group_by_file(images: Iterable[StoredImage]) -> dict[str, list[StoredImage]]:
    """The files of a shard that hold these images, each with its own. A file has a bounded size."""
    groups: list[list[StoredImage]] = []
    size = 0
    for image in images:
        if not groups or size + image.num_bytes > MAX_FILE_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(image)
        size += image.num_bytes
    return {f"images-{number:05d}.bin": group for number, group in enumerate(groups)}


def is_done(folder: Path, store: ImageStore, urls: Sequence[str], *, shard: Shard, inputs: Inputs) -> bool:
    """Whether the folder holds this shard as it was written, from what the store has now."""
    try:
        content = read_manifest(folder, shard=shard, inputs=inputs)
        for name in content["files"]:
            check_file(folder, name, content, shard=shard)
    except InputError:
        return False
    return bool(content["images"] == store.fingerprint(urls))


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
    of_inputs = list_changes(content["inputs"], json.loads(json.dumps(inputs.as_dict())))
    if changes := "; ".join(filter(None, (of_shard, of_inputs))):
        raise InputError(f"shard {shard} was made from other inputs or settings ({changes}); run it again")
    if STATES_FILE not in content["files"] or any(
        name != STATES_FILE and not IMAGES_FILE.fullmatch(name) for name in content["files"]
    ):
        raise InputError(f"shard {shard}: its {MANIFEST_FILE} lists files that no build writes; run it again")
    return content


def check_file(folder: Path, name: str, content: dict[str, Any], *, shard: Shard) -> None:
    """Raise InputError unless a file of a shard is as it was written."""
    if not (folder / name).is_file() or _digest(folder / name) != content["files"][name]:
        raise InputError(f"shard {shard}: its file {name} is not as it was written; run it again")


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
