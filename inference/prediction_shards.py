"""The predictions of shards: each machine writes one file or pushes it, and the last step merges them."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import CommitInfo, DatasetCard, DatasetCardData, HfApi, errors
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # not in its __all__

from inference.submission import PREDICTIONS, RUN_KEY
from product_vqa.atomic_io import atomic_write
from product_vqa.cards import CARD_FILE, mark_card
from product_vqa.documents import DocumentError, parse_json
from product_vqa.errors import InputError, argument, first_line
from product_vqa.hub import commit_files, download, find_file, hub_errors, list_files, locate, retry
from product_vqa.parquet_files import ParquetError, check_parquet
from product_vqa.provenance import list_changes
from product_vqa.sharding import Shard, all_shards, missing_message

_DIGEST_KEY, _SHARD_KEY = b"product_vqa.digest", b"product_vqa.shard"
_PATHS = {
    "index": "INT64", "image_link": "BYTE_ARRAY", "entity_name": "BYTE_ARRAY", "prediction": "BYTE_ARRAY",
    "answer": "BYTE_ARRAY", "confidence": "DOUBLE", "shown": "DOUBLE", "number_confidence": "DOUBLE",
    "unit_confidence": "DOUBLE", "allowed_probability": "DOUBLE", "reason": "BYTE_ARRAY",
}  # fmt: skip
_LISTS = {"box.list.element", *(f"alternatives.list.element.{name}" for name in ("prediction", "confidence"))}


def shard_file(output: Path, shard: Shard) -> Path:
    """`submission.csv`, shard 2/6 -> `submission-00001-of-00006.parquet`."""
    return output.with_name(f"{output.stem}-{shard.suffix}.parquet")


def write_shard(table: pa.Table, file: Path, *, shard: Shard, run: dict[str, Any]) -> None:
    metadata = {RUN_KEY: json.dumps(run), _SHARD_KEY: str(shard), _DIGEST_KEY: _digest(table, shard, run)}
    with atomic_write(file) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary)


def is_done(file: Path, *, shard: Shard, run: dict[str, Any]) -> bool:
    """Whether the file holds this shard of this run as it was written."""
    if not file.is_file():
        return False
    try:
        return read_shard(file, shard=shard)[1] == run
    except InputError:
        return False


def _digest(table: pa.Table, shard: Shard, run: dict[str, Any]) -> str:
    """A hash of the rows, and of the shard and the run that they are of."""
    content = json.dumps([run, str(shard), table.to_pylist()], sort_keys=True)
    return hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()


def has_shard(repo_id: str, *, split: str, shard: Shard, run: dict[str, Any]) -> bool:
    """Whether the repo holds this shard of this run as it was written."""
    name = f"data/{split}-{shard.suffix}.parquet"
    with argument("hub_predictions_id"):
        location = locate(repo_id, repo_type="dataset")
        if name not in list_files(location, repo_type="dataset"):
            return False
        file = find_file(location, download(location, patterns=[name], repo_type="dataset"), name)
    return file is not None and is_done(file, shard=shard, run=run)


# ---- Merging ------------------------------------------------------------------------------------------------------


def find_shards(output: Path, count: int) -> list[Path]:
    """The files of all shards next to `output`. Raises InputError, with the missing ones, unless all are there."""
    files = {shard: shard_file(output, shard) for shard in all_shards(count)}
    missing = [shard for shard, file in files.items() if not file.is_file()]
    if missing:
        raise InputError(missing_message(missing, where=str(output.parent)))
    return list(files.values())


def download_shards(repo_id: str, *, split: str, count: int) -> list[Path]:
    """The files of all shards in a dataset repo. Raises InputError, with the missing ones, unless all are there."""
    location = locate(full_id(repo_id), repo_type="dataset")
    names = {shard: f"data/{split}-{shard.suffix}.parquet" for shard in all_shards(count)}
    present = set(list_files(location, repo_type="dataset"))
    missing = [shard for shard, name in names.items() if name not in present]
    if missing:
        raise InputError(missing_message(missing, where=location.name))
    folder = download(location, patterns=list(names.values()), repo_type="dataset")
    files = [find_file(location, folder, name) for name in names.values()]
    assert None not in files  # they are listed
    return [file for file in files if file is not None]


def merge_shards(files: Sequence[Path], *, expected: dict[str, Any]) -> tuple[pa.Table, dict[str, Any]]:
    """The rows of all shards in the order of the split, and their run.

    Raises InputError if a shard is damaged, was made with other inputs or settings than those of `expected` or of the
    first shard, or has other rows than its batches have.
    """
    read = [read_shard(file, shard=shard) for file, shard in zip(files, all_shards(len(files)), strict=True)]
    for file, (_, run) in zip(files, read, strict=True):
        _check_same(expected, {key: run.get(key) for key in expected}, name=file.name)
        _check_same(read[0][1], run, name=file.name)
    tables, run = [table for table, _ in read], read[0][1]
    rows, batch_size = run.get("rows"), run.get("batch_size")
    if type(batch_size) is not int or batch_size < 1 or rows != sum(map(len, tables)):
        raise InputError(f"{files[0].parent}: the shards have {sum(map(len, tables))} rows instead of {rows}")
    parts: list[pa.Table] = []
    taken = [0] * len(files)
    for number, start in enumerate(range(0, rows, batch_size)):
        owner, size = number % len(files), min(batch_size, rows - start)
        parts.append(tables[owner].slice(taken[owner], size))
        taken[owner] += size
    for file, table, number in zip(files, tables, taken, strict=True):
        if len(table) != number:
            raise InputError(f"{file.name}: has {len(table)} rows instead of {number}; run this shard again")
    table = pa.concat_tables(parts) if parts else PREDICTIONS.empty_table()
    if len(set(table["index"].to_pylist())) != rows:
        raise InputError(f"{files[0].parent}: an index occurs twice; run all shards again")
    return table, run


def _check_same(run: dict[str, Any], other: dict[str, Any], *, name: str) -> None:
    if changes := list_changes(run, other):
        raise InputError(f"{name}: was made with other inputs or settings ({changes}); run this shard again")


def read_shard(file: Path, *, shard: Shard) -> tuple[pa.Table, dict[str, Any]]:
    """The rows and the run of a shard. Raises InputError unless they are as they were written, and of this shard."""
    try:
        paths = check_parquet(file, {path: (kind,) for path, kind in _PATHS.items()})
        if set(paths) != _PATHS.keys() | _LISTS:
            raise ParquetError(f"it has other columns: {', '.join(paths)[:200]}")
        with pq.ParquetFile(file) as parquet:
            table = parquet.read()
        table.validate(full=True)
        metadata = table.schema.metadata or {}
        run = parse_json(metadata[RUN_KEY])
        table = table.replace_schema_metadata(None)
        is_intact = table.schema == PREDICTIONS and metadata[_DIGEST_KEY].decode() == _digest(table, shard, run)
    except (ParquetError, DocumentError, OSError, ValueError, KeyError, MemoryError, pa.ArrowException) as error:
        raise InputError(f"{file.name}: cannot be read ({first_line(error)}); run this shard again") from error
    if not is_intact or not isinstance(run, dict):
        raise InputError(f"{file.name}: is not as it was written; run this shard again")
    return table, run


# ---- Pushing ------------------------------------------------------------------------------------------------------


def full_id(repo_id: str) -> str:
    """`name` -> `user/name`, of the token's user."""
    with argument("hub_predictions_id"), hub_errors(repo_id, repo_type="dataset"):
        validate_repo_id(repo_id)
        return repo_id if "/" in repo_id else f"{retry(HfApi().whoami)['name']}/{repo_id}"


def open_predictions_repo(repo_id: str, *, split: str, count: int, private: bool) -> str:
    """Create the dataset repo if it does not exist, and return its full id, before anything long begins.

    Raises InputError for a repo that holds something else, such as a dataset, and one that cannot be written.
    """
    repo_id = full_id(repo_id)
    own = re.compile(rf"data/{re.escape(split)}-\d{{5}}-of-{count:05d}\.parquet")
    with argument("hub_predictions_id"), hub_errors(repo_id, repo_type="dataset"):
        api = HfApi()
        try:
            names = retry(lambda: api.list_repo_files(repo_id, repo_type="dataset"))
        except errors.RepositoryNotFoundError:
            names = []
        other = [name for name in names if name.endswith((".parquet", ".csv", ".json")) and not own.fullmatch(name)]
        if other:
            raise InputError(
                f"{repo_id} has {other[0]}, which is not a shard of these predictions; choose another repo"
            )
        retry(lambda: api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True))
        retry(lambda: api.auth_check(repo_id, repo_type="dataset", write=True))
    return repo_id


def push_shard(file: Path, repo_id: str, *, split: str, shard: Shard, run: dict[str, Any]) -> CommitInfo:
    """Upload the file of a shard and the card in one commit."""
    card = mark_card(_make_card(repo_id, split=split, count=shard.count, run=run)).encode()
    with argument("hub_predictions_id"), hub_errors(repo_id, repo_type="dataset"):
        return commit_files(
            repo_id,
            {f"data/{split}-{shard.suffix}.parquet": file, CARD_FILE: card},
            message=f"Predictions of shard {shard}",
            repo_type="dataset",
            needed_metadata=("configs",),
            is_alone=False,
        )


def _make_card(repo_id: str, *, split: str, count: int, run: dict[str, Any]) -> str:
    pattern = f"data/{split}-*-of-{count:05d}.parquet"
    data = DatasetCardData(
        configs=[{"config_name": "default", "data_files": [{"split": split, "path": pattern}]}],
        tags=["product-vqa", "product-attributes", "predictions"],
    )
    template = Path(__file__).with_name("predictions_card.md")
    return str(
        DatasetCard.from_template(
            data, template_path=str(template), repo_id=repo_id, count=count, run=run, split=split
        )
    )
