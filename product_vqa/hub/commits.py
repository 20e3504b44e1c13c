"""Commit files to a repo, with retries, and keep what people have edited in its card."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from tqdm.auto import tqdm

from product_vqa.cards import CARD_FILE, merge_cards
from product_vqa.hub.locations import commit_of, read_file
from product_vqa.hub.retries import WAITS_S, Backoff, retry

LARGE_FILE_BYTES = 256_000  # larger files are uploaded one by one: after a failure, only the rest is sent again


def commit_files(
    repo_id: str,
    files: Mapping[str, Path | bytes],
    *,
    message: str,
    repo_type: str = "model",
    revision: str | None = None,
    is_obsolete: Callable[[str], bool] = lambda name: False,
    needed_metadata: tuple[str, ...] = (),
    is_alone: bool = True,
    waits_s: tuple[float, ...] = WAITS_S,
) -> CommitInfo:
    """Commit `files` (path -> content) to a repo, in one commit; none if the repo already has them.

    Files of the repo that are not in `files` and for which `is_obsolete` is true are deleted. Edits by hand in the
    repo's card are kept, except of `needed_metadata` (`product_vqa.cards.merge_cards`).

    Large files are uploaded first, one by one, and appear in no revision before the commit. After an interruption, the
    next call uploads only the rest.

    Every request is retried if its failure is transient. A commit may succeed although its response is an error: the
    next attempt then finds nothing left to do. If somebody else commits in between, the next attempt starts over,
    unless `is_alone` is false: others commit to the same branch, but other files.
    """
    api = HfApi()
    head = ""
    operations: list[CommitOperationAdd | CommitOperationDelete] = []
    backoff = Backoff(waits_s)
    while True:
        info = retry(lambda: api.repo_info(repo_id, repo_type=repo_type, revision=revision), waits_s=waits_s)
        if commit_of(info) != head:  # else this is another attempt, and all files are uploaded
            head = commit_of(info)
            names = {file.rfilename for file in getattr(info, "siblings", None) or ()}
            contents = dict(files)
            if CARD_FILE in files and CARD_FILE in names:
                read_card = partial(read_file, repo_id, CARD_FILE, repo_type=repo_type, revision=head)
                old = retry(read_card, waits_s=waits_s)
                contents[CARD_FILE] = merge_cards(_text(files[CARD_FILE]), _text(old), needed=needed_metadata).encode()
            additions = [CommitOperationAdd(name, content) for name, content in sorted(contents.items())]
            _upload(additions, repo_id=repo_id, repo_type=repo_type, revision=revision, waits_s=waits_s)
            obsolete = [name for name in sorted(names - files.keys()) if is_obsolete(name)]
            operations = [*additions, *(CommitOperationDelete(name) for name in obsolete)]
        try:
            return api.create_commit(
                repo_id,
                operations,
                commit_message=message,
                repo_type=repo_type,
                revision=revision,
                parent_commit=head if is_alone else None,
            )
        except Exception as error:
            backoff.wait(error)


def _upload(
    additions: Sequence[CommitOperationAdd],
    *,
    repo_id: str,
    repo_type: str,
    revision: str | None,
    waits_s: tuple[float, ...],
) -> None:
    """Upload what the commit will add: large files one by one, then the small ones together."""
    small = [addition for addition in additions if addition.upload_info.size < LARGE_FILE_BYTES]
    large = [[addition] for addition in additions if addition.upload_info.size >= LARGE_FILE_BYTES]
    for batch in tqdm([*large, small] if small else large, desc="Pushing", disable=not large):
        upload = partial(
            HfApi().preupload_lfs_files, repo_id, batch, repo_type=repo_type, revision=revision, free_memory=False
        )
        retry(upload, waits_s=waits_s)


def _text(content: Path | bytes) -> str:
    return (content if isinstance(content, bytes) else content.read_bytes()).decode("utf-8", "replace")
