"""Publishes a dataset folder as a repo on the Hub."""

import logging
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi, errors
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # not in its __all__

from dataset_builder.output_folder import MANIFEST_FILE, is_written
from product_vqa.errors import InputError, argument
from product_vqa.hub import BRIEF_WAITS_S, commit_files, hub_errors, retry
from product_vqa.quoting import one_line
from product_vqa.task.schema_file import SCHEMA_FILE

logger = logging.getLogger(__name__)

NEEDED_METADATA = ("configs", "dataset_info")  # of the card: `load_dataset` needs them to find and read the splits


def check_target(repo_id: str, *, private: bool | None) -> str:
    """Check that a push to `repo_id` can succeed, before the long work begins, and return its full id (`user/name`).

    Raises InputError for an invalid id, a token that is missing, invalid or may not write there, an unreachable Hub,
    and an existing repo with the other visibility; `private` None allows both.
    """
    with argument("hub_dataset_id"), hub_errors(repo_id, repo_type="dataset"):
        validate_repo_id(repo_id)
        api = HfApi()
        account = retry(api.whoami, waits_s=BRIEF_WAITS_S)
        user = account["name"]
        repo_id = repo_id if "/" in repo_id else f"{user}/{repo_id}"
        if account.get("auth", {}).get("accessToken", {}).get("role") == "read":
            raise InputError(f"{repo_id}: the token can only read; create one that can write")
        namespaces = {user, *(organisation["name"] for organisation in account.get("orgs", []))}
        namespace = repo_id.partition("/")[0]
        if namespace not in namespaces:
            raise InputError(
                f"{repo_id}: the token belongs to {one_line(user)}, who cannot write to {namespace}; "
                f"use one of {one_line(', '.join(sorted(namespaces)))} before the slash"
            )
        try:
            info = retry(lambda: api.dataset_info(repo_id), waits_s=BRIEF_WAITS_S)
        except errors.RepositoryNotFoundError:
            return repo_id
        is_private = info.private
        _check_files(repo_id, [file.rfilename for file in info.siblings or []])
    if private not in (None, is_private):
        raise InputError(
            f"`hub_dataset_id` {repo_id} exists already and is {'private' if is_private else 'public'}: change its "
            f"visibility on the Hub, or set `hub_private_repo` to {str(is_private).lower()}"
        )
    return repo_id


def _check_files(repo_id: str, names: list[str]) -> None:
    """Raise InputError if a push would replace or remove data that no earlier push wrote."""
    data = [name for name in names if name.startswith(("data/", "rows/", "ocr/"))]
    if MANIFEST_FILE not in names and (written := [name for name in data if is_written(name)]):
        raise InputError(
            f"{repo_id} contains data that no build wrote, like {written[0]}, and a push would replace it; choose "
            "another repo, or delete the data there first"
        )
    for name in data:
        if not is_written(name):
            logger.warning(
                "%s: %s is not of a build. It is kept; if its name begins like that of a split, `load_dataset` reads "
                "it as a part of the split.",
                repo_id,
                one_line(name),
            )


def push(folder: Path, repo_id: str, *, private: bool) -> CommitInfo:
    """Upload `folder` to the repo in one commit, or in none if nothing has changed.

    Until then, readers see the earlier build. Its data files are removed, and no others. Files that no build writes
    are not uploaded.
    """
    with argument("hub_dataset_id"), hub_errors(repo_id, repo_type="dataset"):
        api = HfApi()
        names = [file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*")) if file.is_file()]
        retry(lambda: api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True))
        return commit_files(
            repo_id,
            {name: folder / name for name in names if is_written(name)},
            message="Build with product-vqa",
            repo_type="dataset",
            is_obsolete=lambda name: is_written(name) and name.startswith(("data/", "rows/", "ocr/", SCHEMA_FILE)),
            needed_metadata=NEEDED_METADATA,
        )
