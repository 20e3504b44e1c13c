"""Read and move a branch of a repo so that of several writers, one at a time succeeds."""

import email.utils
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

import huggingface_hub
from huggingface_hub import CommitOperationAdd, HfApi, constants, errors
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._http import hf_raise_for_status

from product_vqa.hub.locations import is_commit
from product_vqa.hub.retries import BRIEF_WAITS_S, Backoff, retry


@dataclass(frozen=True)
class Branch:
    """A branch at a moment: its newest commit, and the age of that commit by the Hub's own clock, in seconds."""

    commit: str
    age_s: float


def read_branch(repo_id: str, name: str, *, repo_type: str = "model") -> Branch | None:
    """Read a branch of a repo; None if the repo has no such branch.

    Both times are the Hub's, so it does not matter whether the clock of this machine is right.
    """
    url = f"{constants.ENDPOINT}/api/{repo_type}s/{repo_id}/commits/{quote(name, safe='')}"

    def read() -> Branch:
        response = huggingface_hub.get_session().get(url, headers=build_hf_headers())
        hf_raise_for_status(response)
        newest = response.json()[0]
        if not is_commit(newest["id"]):
            raise TypeError(f"the commit of the branch is {str(newest['id'])[:100]!r}")
        return Branch(newest["id"], age_s=_age(newest["date"], now=response.headers.get("Date", "")))

    try:
        return retry(read, waits_s=BRIEF_WAITS_S)
    except errors.RevisionNotFoundError:
        return None


def _age(date: str, *, now: str) -> float:
    """Return the seconds from a commit's date to the date of a response; 0 if one of them is not a date."""
    try:
        age = email.utils.parsedate_to_datetime(now) - datetime.fromisoformat(date)
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return max(0.0, age.total_seconds())


def commit_on_top(
    repo_id: str,
    files: Mapping[str, bytes],
    *,
    branch: str,
    parent: str,
    message: str,
    waits_s: tuple[float, ...] = BRIEF_WAITS_S,
) -> str | None:
    """Commit small files to a branch of a model repo, if its newest commit is still `parent`.

    Returns the new commit; None if somebody else has moved or deleted the branch. The commit may also be ours then, if
    the response to it was lost: read the branch.
    """
    operations = [CommitOperationAdd(name, content) for name, content in sorted(files.items())]
    backoff = Backoff(waits_s)
    while True:
        try:
            return (
                HfApi()
                .create_commit(repo_id, operations, commit_message=message, revision=branch, parent_commit=parent)
                .oid
            )
        except errors.RevisionNotFoundError:
            return None
        except Exception as error:
            if isinstance(error, errors.HfHubHTTPError) and error.response.status_code == 412:
                return None
            backoff.wait(error)
