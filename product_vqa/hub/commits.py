"""Commits to a repo that survive the Hub's bad moments."""

from collections.abc import Callable, Mapping
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from tqdm.auto import tqdm

from product_vqa.cards import CARD_FILE, merge_cards
from product_vqa.hub.locations import read_file
from product_vqa.hub.retries import WAITS_S, Backoff, retry

LARGE_FILE_BYTES = 256_000  # sent one by one: what was sent is not sent again after a failure


def commit_files(
    repo_id: str,
    files: Mapping[str, Path | bytes],
    *,
    message: str,
    repo_type: str = "model",
    revision: str | None = None,
    is_obsolete: Callable[[str], bool] = lambda name: False,
    needed_metadata: tuple[str, ...] = (),
    waits_s: tuple[float, ...] = WAITS_S,
) -> CommitInfo:
    """Make the repo hold `files` (path -> content) in one commit; in none where it does so already.

    Files of the repo that are not among them and `is_obsolete` are removed. What was
    edited by hand in the repo's card is kept (`product_vqa.cards.merge_cards`, whose `needed` is `needed_metadata`).
    Large files go first, one by one, to where no revision shows them yet: cut off and started again, a push sends only
    those that are missing.

    Every request is tried again where that may help. A commit that was made though its answer was an error is found:
    the next attempt sees that nothing is left to do, and one that another commit came before begins anew.
    """
    api = HfApi()
    head, operations = "", list[CommitOperationAdd | CommitOperationDelete]()

    def prepare() -> None:
        nonlocal head, operations
        info = retry(lambda: api.repo_info(repo_id, repo_type=repo_type, revision=revision), waits_s=waits_s)
        assert info.sha is not None
        if info.sha == head:
            return  # what was sent is known to be there
        names = {file.rfilename for file in getattr(info, "siblings", None) or ()}
        contents = dict(files)
        if CARD_FILE in files and CARD_FILE in names:
            card = retry(
                lambda: read_file(repo_id, CARD_FILE, repo_type=repo_type, revision=info.sha), waits_s=waits_s
            )
            contents[CARD_FILE] = merge_cards(_text(files[CARD_FILE]), _text(card), needed=needed_metadata).encode()
        additions = [CommitOperationAdd(name, content) for name, content in sorted(contents.items())]
        sizes = [addition.upload_info.size for addition in additions]
        small = [one for one, size in zip(additions, sizes, strict=True) if size < LARGE_FILE_BYTES]
        large = [[one] for one, size in zip(additions, sizes, strict=True) if size >= LARGE_FILE_BYTES]
        for batch in tqdm([*large, small] if small else large, desc="Pushing", disable=not large):
            retry(
                lambda batch=batch: api.preupload_lfs_files(  # type: ignore[misc]
                    repo_id, batch, repo_type=repo_type, revision=revision, free_memory=False
                ),
                waits_s=waits_s,
            )
        gone = [CommitOperationDelete(name) for name in sorted(names - files.keys()) if is_obsolete(name)]
        head, operations = info.sha, [*additions, *gone]

    backoff = Backoff(waits_s)
    while True:
        prepare()
        try:
            return api.create_commit(
                repo_id, operations, commit_message=message, repo_type=repo_type, revision=revision, parent_commit=head
            )
        except Exception as error:
            backoff.wait(error)


def _text(content: Path | bytes) -> str:
    return (content if isinstance(content, bytes) else content.read_bytes()).decode("utf-8", "replace")
