"""Publishes a dataset folder as a repo on the Hub."""

from pathlib import Path

from huggingface_hub import CommitInfo, HfApi, errors
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # not in its __all__

from dataset_builder.dataset_card import NEEDED_METADATA
from product_vqa.errors import InputError, argument
from product_vqa.hub import BRIEF_WAITS_S, commit_files, hub_errors, retry


def check_target(repo_id: str, *, private: bool) -> str:
    """Check that a push to `repo_id` can succeed, before the long work begins, and return its full id (`user/name`).

    Raises InputError for an invalid id, a token that is missing, invalid or may not write there, an unreachable Hub,
    and an existing repo with the other visibility.
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
                f"{repo_id}: the token belongs to {user}, who cannot write to {namespace}; "
                f"use one of {', '.join(sorted(namespaces))} before the slash"
            )
        try:
            is_private = retry(lambda: api.dataset_info(repo_id), waits_s=BRIEF_WAITS_S).private
        except errors.RepositoryNotFoundError:
            return repo_id
    if private != is_private:
        raise InputError(
            f"`hub_dataset_id` {repo_id} exists already and is {'private' if is_private else 'public'}: change its "
            f"visibility on the Hub, or set `hub_private_repo` to {str(is_private).lower()}"
        )
    return repo_id


def push(folder: Path, repo_id: str, *, private: bool) -> CommitInfo:
    """Upload `folder` to the repo in one commit, or in none if nothing has changed.

    Until then, readers see the earlier build. Data files of the earlier build are removed.
    """
    with argument("hub_dataset_id"), hub_errors(repo_id, repo_type="dataset"):
        api = HfApi()
        retry(lambda: api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True))
        return commit_files(
            repo_id,
            {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()},
            message="Build with product-vqa",
            repo_type="dataset",
            is_obsolete=lambda name: name.startswith(("data/", "rows/")),
            needed_metadata=NEEDED_METADATA,
        )
