"""The branch of a dataset repo on which the shards of a build meet."""

import ctypes
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from huggingface_hub import HfApi, errors

from dataset_builder.build_shards import MANIFEST_FILE, SHARDS_FOLDER, Inputs, read_manifest
from product_vqa.disk_space import DiskPlan, Need
from product_vqa.errors import InputError, argument
from product_vqa.hub import (
    Location,
    commit_files,
    download,
    hub_errors,
    list_files,
    locate,
    measure_download,
    read_branch,
    retry,
)
from product_vqa.sharding import Shard, all_shards, missing_message

logger = logging.getLogger(__name__)

BRANCH = "shards"
_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_MAPPED_BYTES = 1024**2


def push_shard(folder: Path, repo_id: str, *, shard: Shard, private: bool) -> None:
    """Commit a shard to the branch of the dataset repo. `load_dataset` does not read it there."""
    prefix = f"{SHARDS_FOLDER}/{shard.suffix}/"
    with argument("hub_dataset_id"), hub_errors(repo_id, repo_type="dataset", revision=BRANCH):
        api = HfApi()
        retry(lambda: api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True))
        retry(lambda: api.create_branch(repo_id, branch=BRANCH, repo_type="dataset", exist_ok=True))
        commit_files(
            repo_id,
            {prefix + file.name: file for file in sorted(folder.iterdir())},
            message=f"Shard {shard}",
            repo_type="dataset",
            revision=BRANCH,
            is_obsolete=lambda name: name.startswith(prefix),
            is_alone=False,
        )


def find_shards(repo_id: str, shards: Sequence[Shard], *, inputs: Inputs) -> set[Shard]:
    """The shards that the branch has and that were made from these inputs; none without a repo or a branch."""
    with argument("hub_dataset_id"):
        try:
            location = locate(repo_id, repo_type="dataset", revision=BRANCH)
        except InputError as error:
            if isinstance(error.__cause__, errors.RevisionNotFoundError | errors.RepositoryNotFoundError):
                return set()
            raise
        names = set(list_files(location, repo_type="dataset"))
        manifests = {shard: f"{SHARDS_FOLDER}/{shard.suffix}/{MANIFEST_FILE}" for shard in shards}
        manifests = {shard: name for shard, name in manifests.items() if name in names}
        if not manifests:
            return set()
        folder = download(location, patterns=list(manifests.values()), repo_type="dataset")
    found = set()
    for shard, name in manifests.items():
        with suppress(InputError):
            content = read_manifest((folder / name).parent, shard=shard, inputs=inputs)
            if {f"{SHARDS_FOLDER}/{shard.suffix}/{file}" for file in content["files"]} <= names:
                found.add(shard)
    return found


def remove_shard(repo_id: str, *, shard: Shard) -> None:
    """Delete a shard on the branch."""
    prefix = f"{SHARDS_FOLDER}/{shard.suffix}/"
    with argument("hub_dataset_id"), hub_errors(repo_id, repo_type="dataset", revision=BRANCH):
        commit_files(
            repo_id,
            {},
            message=f"Remove shard {shard}",
            repo_type="dataset",
            revision=BRANCH,
            is_obsolete=lambda name: name.startswith(prefix),
            is_alone=False,
        )


def download_shards(repo_id: str, *, count: int, inputs: Inputs) -> tuple[Path, Location]:
    """Download the shards; returns their folder, and the commit that was downloaded.

    Raises InputError, before anything large is downloaded, unless all are there and were made from these inputs.
    """
    _return_large_buffers()
    with argument("hub_dataset_id"):
        try:
            location = locate(repo_id, repo_type="dataset", revision=BRANCH)
        except InputError as error:
            if isinstance(error.__cause__, errors.RevisionNotFoundError):
                message = missing_message(all_shards(count), where=repo_id)
                raise InputError(f"{message}. If they were merged before, the dataset is in the repo") from error
            raise
        names = set(list_files(location, repo_type="dataset"))
        manifests = {shard: f"{SHARDS_FOLDER}/{shard.suffix}/{MANIFEST_FILE}" for shard in all_shards(count)}
        missing = [shard for shard, name in manifests.items() if name not in names]
        if missing:
            raise InputError(missing_message(missing, where=repo_id))
        folder = download(location, patterns=list(manifests.values()), repo_type="dataset")
        patterns = []
        for shard, name in manifests.items():
            content = read_manifest((folder / name).parent, shard=shard, inputs=inputs)
            patterns += [f"{SHARDS_FOLDER}/{shard.suffix}/{file}" for file in content["files"]]
        size = measure_download(location, patterns=patterns, repo_type="dataset").missing
        if size:
            DiskPlan((Need("shards", "HF_HOME", folder, size),), downloaded=size).announce()
        return download(location, patterns=[*manifests.values(), *patterns], repo_type="dataset"), location


def _return_large_buffers() -> None:
    """Have large buffers returned to the system when they are freed.

    glibc does so for those above a size that it raises to 32 MB when tables of a million rows are read. From then on,
    each thread that downloads would keep up to 50 MB, 190 MB in all.
    """
    with suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)


def has_branch(repo_id: str) -> bool:
    """Whether the repo has shards that are not merged yet."""
    with argument("hub_dataset_id"), hub_errors(repo_id, repo_type="dataset"):
        try:
            return read_branch(repo_id, BRANCH, repo_type="dataset") is not None
        except errors.RepositoryNotFoundError:
            return False


def remove_branch(merged: Location) -> None:
    """Delete the branch, unless somebody has pushed to it since it was downloaded. A failure is only logged."""
    repo_id = merged.name
    try:
        with hub_errors(repo_id, repo_type="dataset", revision=BRANCH):
            branch = read_branch(repo_id, BRANCH, repo_type="dataset")
            if branch is not None and branch.commit == merged.revision:
                retry(lambda: HfApi().delete_branch(repo_id, branch=BRANCH, repo_type="dataset"))
            elif branch is not None:
                logger.warning("%s: branch %s has newer shards, and is kept", repo_id, BRANCH)
    except InputError as error:
        logger.warning("The dataset was pushed, but its branch %s could not be deleted: %s", BRANCH, error)
