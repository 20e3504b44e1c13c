"""A dataset folder becomes a repo on the Hub."""

from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, errors, utils
from tqdm.auto import tqdm

from product_vqa.command import InputError
from product_vqa.hub import explained

_FLAG = "--hub_dataset_id"


def check_target(repo_id: str, *, private: bool) -> str:
    """The full id (`user/name`) to push to. Before the long work, so that nothing is built in vain.

    Raises InputError for an id that is none, a token that is missing, bad or may not write there, no Hub, and a repo
    that is there already and public where a private one was meant, or the other way round.
    """
    with explained(repo_id, flag=_FLAG, repo_type="dataset"):
        utils.validate_repo_id(repo_id)
        api = HfApi()
        account = api.whoami()
        user = account["name"]
        repo_id = repo_id if "/" in repo_id else f"{user}/{repo_id}"
        if account.get("auth", {}).get("accessToken", {}).get("role") == "read":
            raise InputError(f"{_FLAG} {repo_id}: the token may only read; make one that may write")
        namespaces = {user, *(organisation["name"] for organisation in account.get("orgs", []))}
        if (namespace := repo_id.partition("/")[0]) not in namespaces:
            raise InputError(
                f"{_FLAG} {repo_id}: the token is {user}'s, who cannot write to {namespace}; "
                f"expected one of {', '.join(sorted(namespaces))} before the slash"
            )
        try:
            is_private = api.dataset_info(repo_id).private
        except errors.RepositoryNotFoundError:
            return repo_id
    if private != is_private:
        raise InputError(
            f"{_FLAG} {repo_id} is there already, and {'private' if is_private else 'public'}: change that in its "
            f"settings, or say --hub_private_repo {str(is_private).lower()}"
        )
    return repo_id


def push(folder: Path, repo_id: str, *, private: bool) -> CommitInfo:
    """Make the repo hold what `folder` holds, in one commit; in none where it does so already.

    The shards go first, one by one, to where no revision shows them yet: cut off and started again, a push sends those
    that are missing, and whoever reads the repo meanwhile sees the earlier build.
    """
    with explained(repo_id, flag=_FLAG, repo_type="dataset"):
        api = HfApi()
        api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        repo_files = set(api.list_repo_files(repo_id, repo_type="dataset"))
        names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
        additions = [CommitOperationAdd(name, folder / name) for name in names]
        for addition in tqdm(additions, desc="Pushing", unit=" files"):
            api.preupload_lfs_files(repo_id, [addition], repo_type="dataset", free_memory=False)
        # Those of an earlier build that this one does not write.
        gone = [name for name in repo_files - set(names) if name.startswith(("data/", "rows/"))]
        return api.create_commit(
            repo_id,
            [*additions, *(CommitOperationDelete(name) for name in sorted(gone))],
            commit_message="Build with product-vqa",
            repo_type="dataset",
        )
