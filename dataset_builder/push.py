"""A dataset folder becomes a repo on the Hub."""

from pathlib import Path

from huggingface_hub import CommitInfo, HfApi, errors, utils

from dataset_builder.dataset_card import NEEDED_METADATA
from product_vqa.errors import InputError, argument
from product_vqa.hub import BRIEF_WAITS_S, commit_files, explained, retried


def check_target(repo_id: str, *, private: bool) -> str:
    """The full id (`user/name`) to push to. Before the long work, so that nothing is built in vain.

    Raises InputError for an id that is none, a token that is missing, bad or may not write there, no Hub, and a repo
    that is there already and public where a private one was meant, or the other way round.
    """
    with argument("hub_dataset_id"), explained(repo_id, repo_type="dataset"):
        utils.validate_repo_id(repo_id)
        api = HfApi()
        account = retried(api.whoami, waits_s=BRIEF_WAITS_S)
        user = account["name"]
        repo_id = repo_id if "/" in repo_id else f"{user}/{repo_id}"
        if account.get("auth", {}).get("accessToken", {}).get("role") == "read":
            raise InputError(f"{repo_id}: the token may only read; make one that may write")
        namespaces = {user, *(organisation["name"] for organisation in account.get("orgs", []))}
        if (namespace := repo_id.partition("/")[0]) not in namespaces:
            raise InputError(
                f"{repo_id}: the token is {user}'s, who cannot write to {namespace}; "
                f"expected one of {', '.join(sorted(namespaces))} before the slash"
            )
        try:
            is_private = retried(lambda: api.dataset_info(repo_id), waits_s=BRIEF_WAITS_S).private
        except errors.RepositoryNotFoundError:
            return repo_id
    if private != is_private:
        raise InputError(
            f"`hub_dataset_id` {repo_id} is there already, and {'private' if is_private else 'public'}: change "
            f"that in its settings, or pass `hub_private_repo` {str(is_private).lower()}"
        )
    return repo_id


def push(folder: Path, repo_id: str, *, private: bool) -> CommitInfo:
    """Make the repo hold what `folder` holds, in one commit; in none where it does so already.

    Whoever reads the repo meanwhile sees the earlier build. Data that this build does not write are removed.
    """
    with argument("hub_dataset_id"), explained(repo_id, repo_type="dataset"):
        api = HfApi()
        retried(lambda: api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True))
        return commit_files(
            repo_id,
            {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()},
            message="Build with product-vqa",
            repo_type="dataset",
            is_obsolete=lambda name: name.startswith(("data/", "rows/")),
            needed_metadata=NEEDED_METADATA,
        )
