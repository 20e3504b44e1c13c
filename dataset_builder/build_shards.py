"""The shards of a build: what each machine downloaded, as files in a folder or on a branch, and their merge.

A shard is `shards/00001-of-00006/` with the outcome for each of its URLs (`states.parquet`), the distinct images
(`images-00000.parquet` ...), and `shard.json`, written last, which says what it was made from.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import HfApi, errors

from dataset_builder.csv_reader import Tables
from dataset_builder.fingerprint import FORMAT_VERSION, IMAGE_LIBRARIES, library_version
from dataset_builder.image_preparation import PreparedImage
from dataset_builder.image_store import ImageStore, UrlState, is_possible
from product_vqa.documents import DocumentError, read_json
from product_vqa.errors import InputError, argument, first_line
from product_vqa.hub import commit_files, download, hub_errors, locate, retry
from product_vqa.parquet_files import ParquetError, check_parquet
from product_vqa.row_selection import RowSelection
from product_vqa.sharding import Shard, all_shards, missing_message

SHARDS_FOLDER = "shards"
MANIFEST_FILE = "shard.json"
STATES_FILE = "states.parquet"
MAX_FILE_BYTES = 500 * 1024**2
ROW_GROUP_IMAGES = 100
_STATES = pa.schema(
    [
        ("url", pa.string()), ("status", pa.string()), ("reason", pa.string()), ("http_status", pa.int32()),
        ("tries", pa.int32()), ("seconds", pa.float64()), ("finished_at", pa.string()), ("num_bytes", pa.int64()),
        ("width", pa.int32()), ("height", pa.int32()), ("sha256", pa.string()), ("phash", pa.int64()),
    ]
)  # fmt: skip
_IMAGES = pa.schema([("sha256", pa.string()), ("bytes", pa.binary())])
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


def write_shard(folder: Path, store: ImageStore, urls: Sequence[str], *, shard: Shard, inputs: Inputs) -> None:
    """Write the files of a shard to `folder`, which must not exist. `urls` are those of the shard, in order."""
    folder.mkdir(parents=True)
    states = list(store.states(urls))
    pq.write_table(_to_table(states), folder / STATES_FILE)
    for number, part in enumerate(_parts(states)):
        with pq.ParquetWriter(folder / f"images-{number:05d}.parquet", _IMAGES, compression="none") as writer:
            for start in range(0, len(part), ROW_GROUP_IMAGES):
                images = [state.image for state in part[start : start + ROW_GROUP_IMAGES]]
                rows = [{"sha256": one.sha256, "bytes": store.read_image(one)} for one in images if one is not None]
                writer.write_table(pa.Table.from_pylist(rows, schema=_IMAGES))
    files = {file.name: _digest(file) for file in sorted(folder.glob("*.parquet"))}
    content = {"shard": str(shard), "inputs": vars(inputs), "files": files}
    (folder / MANIFEST_FILE).write_text(json.dumps(content, indent=2) + "\n")


def _to_table(states: Sequence[UrlState]) -> pa.Table:
    return pa.Table.from_pylist([state._asdict() for state in states], schema=_STATES)


def _parts(states: Sequence[UrlState]) -> Iterator[list[UrlState]]:
    """The states with distinct images, cut into files of a bounded size."""
    seen: set[str] = set()
    part: list[UrlState] = []
    size = 0
    for state in states:
        image = state.image
        if image is None or image.sha256 in seen:
            continue
        seen.add(image.sha256)
        if part and size + image.num_bytes > MAX_FILE_BYTES:
            yield part
            part, size = [], 0
        part.append(state)
        size += image.num_bytes
    if part:
        yield part


def is_done(folder: Path, *, shard: Shard, inputs: Inputs) -> bool:
    """Whether the folder holds this shard, as it was written."""
    try:
        check_shard(folder, shard=shard, inputs=inputs)
    except InputError:
        return False
    return True


def check_shard(folder: Path, *, shard: Shard, inputs: Inputs) -> dict[str, Any]:
    """Return the manifest of a shard.

    Raises InputError if the shard was made from other inputs or with other settings, or a file is not as written.
    """
    try:
        content = read_json(folder / MANIFEST_FILE)
    except (OSError, DocumentError) as error:
        raise InputError(
            f"shard {shard}: {MANIFEST_FILE} cannot be read ({first_line(error)}); run it again"
        ) from error
    wanted = json.loads(json.dumps(vars(inputs)))
    found = content.get("inputs") if isinstance(content, dict) else None
    if not isinstance(found, dict) or not isinstance(content.get("files"), dict):
        raise InputError(f"shard {shard}: its {MANIFEST_FILE} was not written by build --shard; run it again")
    keys = sorted(found.keys() | wanted.keys())
    changed = [f"{key}: {found.get(key)} -> {wanted.get(key)}" for key in keys if found.get(key) != wanted.get(key)]
    if content.get("shard") != str(shard):
        changed.insert(0, f"shard: {content.get('shard')} -> {shard}")
    if changed:
        raise InputError(f"shard {shard} was made from other inputs or settings ({'; '.join(changed)}); run it again")
    for name, digest in content["files"].items():
        if Path(name).name != name or not (folder / name).is_file() or _digest(folder / name) != digest:
            raise InputError(f"shard {shard}: its file {name} is not as it was written; run it again")
    if set(content["files"]) != {file.name for file in folder.glob("*.parquet")}:
        raise InputError(f"shard {shard}: has other files than it was written with; run it again")
    return content


def import_shard(folder: Path, store: ImageStore, *, shard: Shard, inputs: Inputs, urls: set[str]) -> None:
    """Copy the images and outcomes of a shard to a store. `urls` are those that the shard must have.

    Raises InputError as `check_shard` does, and for content that `write_shard` does not write.
    """
    content = check_shard(folder, shard=shard, inputs=inputs)
    try:
        check_parquet(folder / STATES_FILE, dict.fromkeys(("url", "reason", "sha256"), ("BYTE_ARRAY",)))
        with pq.ParquetFile(folder / STATES_FILE) as file:
            states = [UrlState(**row) for row in file.read().cast(_STATES).to_pylist()]
    except (ParquetError, OSError, ValueError, TypeError, pa.ArrowException) as error:
        raise InputError(f"shard {shard}: its {STATES_FILE} is damaged ({first_line(error)}); run it again") from error
    if {state.url for state in states} != urls or len(states) != len(urls) or not all(map(is_possible, states)):
        raise InputError(f"shard {shard}: its {STATES_FILE} holds what no build writes; run it again")
    by_sha256 = {state.sha256: state for state in states if state.sha256 is not None}
    stored = set()
    for name in sorted(content["files"]):
        if name == STATES_FILE:
            continue
        with pq.ParquetFile(folder / name) as file:
            for number in range(file.num_row_groups):
                for row in file.read_row_group(number).to_pylist():
                    state = by_sha256.get(row["sha256"])
                    if state is None or hashlib.sha256(row["bytes"]).hexdigest() != row["sha256"]:
                        raise InputError(f"shard {shard}: {name} has an image of none of its URLs; run it again")
                    store.save(PreparedImage(row["bytes"], state.width or 0, state.height or 0, state.phash or 0))
                    stored.add(row["sha256"])
    if stored != by_sha256.keys():
        raise InputError(f"shard {shard}: lacks {len(by_sha256.keys() - stored)} of its images; run it again")
    for state in states:
        store.record(state)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# ---- Where shards meet --------------------------------------------------------------------------------------------


def shard_folder(output_dir: Path, shard: Shard) -> Path:
    return output_dir / SHARDS_FOLDER / shard.suffix


def push_shard(folder: Path, repo_id: str, *, shard: Shard, private: bool) -> None:
    """Commit a shard to the branch `shards` of the dataset repo, which no reader sees."""
    with argument("hub_dataset_id"), hub_errors(repo_id, repo_type="dataset"):
        retry(lambda: HfApi().create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True))
        retry(lambda: HfApi().create_branch(repo_id, branch=SHARDS_FOLDER, repo_type="dataset", exist_ok=True))
        prefix = f"{SHARDS_FOLDER}/{shard.suffix}/"
        files = {prefix + file.name: file for file in sorted(folder.iterdir())}
        commit_files(
            repo_id,
            files,
            message=f"Shard {shard}",
            repo_type="dataset",
            revision=SHARDS_FOLDER,
            is_obsolete=lambda name: name.startswith(prefix),
        )


def remove_branch(repo_id: str) -> None:
    """Delete the branch of the shards, whose images are in the dataset by now."""
    with argument("hub_dataset_id"), hub_errors(repo_id, repo_type="dataset"), suppress(errors.RevisionNotFoundError):
        retry(lambda: HfApi().delete_branch(repo_id, branch=SHARDS_FOLDER, repo_type="dataset"))


def download_shards(repo_id: str) -> Path:
    """Download the branch of the shards; returns its folder."""
    with argument("hub_dataset_id"):
        location = locate(repo_id, repo_type="dataset", revision=SHARDS_FOLDER)
        return download(location, patterns=[f"{SHARDS_FOLDER}/*"], repo_type="dataset")


def import_shards(
    output_dir: Path, store: ImageStore, urls: Sequence[str], *, count: int, inputs: Inputs, where: str
) -> None:
    """Copy all shards of `output_dir` to a store. Raises InputError unless all of them are there and belong together.

    `where` names the folder or the repo in messages.
    """
    shards = all_shards(count)
    missing = [shard for shard in shards if not (shard_folder(output_dir, shard) / MANIFEST_FILE).is_file()]
    if missing:
        raise InputError(missing_message(missing, where=where))
    for shard in shards:
        check_shard(shard_folder(output_dir, shard), shard=shard, inputs=inputs)
    with store.locked():
        for shard in shards:
            own = {url for url in urls if shard.owns_url(url)}
            import_shard(shard_folder(output_dir, shard), store, shard=shard, inputs=inputs, urls=own)
        store.write_failures()
