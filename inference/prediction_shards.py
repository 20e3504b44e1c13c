"""The predictions of shards: each machine writes one file or pushes it, and the last step merges them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import CommitInfo, DatasetCard, DatasetCardData, HfApi

from inference.predictions import PREDICTIONS
from inference.submission import RUN_KEY, read_run
from product_vqa.atomic_io import atomic_write
from product_vqa.cards import CARD_FILE, mark_card
from product_vqa.errors import InputError, argument, first_line
from product_vqa.hub import Location, commit_files, download, find_file, hub_errors, list_files, locate, retry
from product_vqa.parquet_files import ParquetError, check_parquet
from product_vqa.sharding import Shard, all_shards, missing_message

_LOCATIONS = ("dataset", "adapter", "base_model")  # keys of the run: a repo at a commit, or a folder
_TEXT, _NUMBER = ("BYTE_ARRAY",), ("DOUBLE",)


def shard_file(output: Path, shard: Shard) -> Path:
    """`submission.csv`, shard 2/6 -> `submission-00001-of-00006.parquet`."""
    return output.with_name(f"{output.stem}-{shard.suffix}.parquet")


def without_folders(run: dict[str, Any]) -> dict[str, Any]:
    """The run of a shard: other machines keep the same files in other folders, and nobody needs to know where."""
    names = {key: run[key] for key in _LOCATIONS if isinstance(run.get(key), str)}
    return run | {key: Path(name).name for key, name in names.items() if "@" not in name}


def write_shard(table: pa.Table, file: Path, *, run: dict[str, Any]) -> None:
    with atomic_write(file) as temporary:
        pq.write_table(table.replace_schema_metadata({RUN_KEY: json.dumps(run)}), temporary)


def is_done(file: Path, *, run: dict[str, Any]) -> bool:
    """Whether the file holds the predictions of this run."""
    try:
        return file.is_file() and read_run(file) == run
    except InputError:
        return False


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
    location = locate(repo_id, repo_type="dataset")
    names = {shard: f"data/{split}-{shard.suffix}.parquet" for shard in all_shards(count)}
    present = set(list_files(location, repo_type="dataset"))
    missing = [shard for shard, name in names.items() if name not in present]
    if missing:
        raise InputError(missing_message(missing, where=repo_id))
    folder = download(location, patterns=list(names.values()), repo_type="dataset")
    return [_existing(location, folder, name) for name in names.values()]


def _existing(location: Location, folder: Path, name: str) -> Path:
    file = find_file(location, folder, name)
    if file is None:
        raise InputError(f"{location}: its file {name} does not exist")
    return file


def merge_shards(files: Sequence[Path], *, expected: dict[str, Any]) -> tuple[pa.Table, dict[str, Any]]:
    """The rows of all shards in the order of the split, and their run.

    Raises InputError if a shard was made with other inputs or settings than the first one, or than those of
    `expected`, or if it has other rows than its batches have.
    """
    runs = [read_run(file) for file in files]
    for file, run in zip(files, runs, strict=True):
        _check_same(runs[0], run, name=file.name)
        _check_same(expected, {key: run.get(key) for key in expected}, name=file.name)
    tables = [_read(file) for file in files]
    rows, batch_size = runs[0].get("rows"), runs[0].get("batch_size")
    if type(rows) is not int or type(batch_size) is not int or batch_size < 1 or rows < 0:
        raise InputError(f"{files[0].name}: was not written by inference.predict with --shard; run it again")
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
        raise InputError(f"{files[0].parent}: an index occurs in two shards; run all shards again")
    return table, runs[0]


def _check_same(run: dict[str, Any], other: dict[str, Any], *, name: str) -> None:
    changed = [
        f"{key}: {run.get(key)} -> {other.get(key)}" for key in sorted(run | other) if run.get(key) != other.get(key)
    ]
    if changed:
        raise InputError(
            f"{name}: was made with other inputs or settings ({'; '.join(changed)}); run this shard again"
        )


def _read(file: Path) -> pa.Table:
    try:
        check_parquet(file, {field.name: _TEXT for field in PREDICTIONS if pa.types.is_string(field.type)})
        with pq.ParquetFile(file) as parquet:
            table = parquet.read()
        table.validate(full=True)
    except (ParquetError, OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{file.name}: cannot be read ({first_line(error)}); run this shard again") from error
    table = table.replace_schema_metadata(None)
    if table.schema != PREDICTIONS:
        raise InputError(f"{file.name}: has other columns than predictions; run this shard again")
    return table


# ---- Pushing ------------------------------------------------------------------------------------------------------


def open_predictions_repo(repo_id: str, *, private: bool) -> str:
    """Create the dataset repo if it does not exist, and return its full id, before anything long begins."""
    with argument("hub_predictions_id"), hub_errors(repo_id, repo_type="dataset"):
        api = HfApi()
        full_id = retry(lambda: api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)).repo_id
        retry(lambda: api.auth_check(full_id, repo_type="dataset", write=True))
    return full_id


def push_shard(file: Path, repo_id: str, *, split: str, shard: Shard, run: dict[str, Any]) -> CommitInfo:
    """Upload the file of a shard and the card in one commit. Whoever pushes the same shard again changes nothing."""
    card = mark_card(_make_card(repo_id, split=split, count=shard.count, run=run)).encode()
    with argument("hub_predictions_id"), hub_errors(repo_id, repo_type="dataset"):
        return commit_files(
            repo_id,
            {f"data/{split}-{shard.suffix}.parquet": file, CARD_FILE: card},
            message=f"Predictions of shard {shard}",
            repo_type="dataset",
            needed_metadata=("configs",),
        )


def _make_card(repo_id: str, *, split: str, count: int, run: dict[str, Any]) -> str:
    pattern = f"data/{split}-*-of-{count:05d}.parquet"
    data = DatasetCardData(
        configs=[{"config_name": "default", "data_files": [{"split": split, "path": pattern}]}],
        tags=["product-vqa", "product-attributes", "predictions"],
    )
    return str(
        DatasetCard.from_template(
            data, template_path=str(Path(__file__).with_name("predictions_card.md")), repo_id=repo_id, count=count,
            run=run, split=split,
        )
    )  # fmt: skip
