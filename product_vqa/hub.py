"""Where a dataset, a base or an adapter lies: a folder, or a Hub repo pinned to a commit. And why it cannot be had."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2  # huggingface_hub's own client
import huggingface_hub
from huggingface_hub import HfApi, constants, errors

from product_vqa.command import InputError


@dataclass(frozen=True)
class Location:
    """A local folder (`revision` None) or a Hub repo at a commit."""

    name: str
    revision: str | None = None

    @property
    def folder(self) -> Path | None:
        return Path(self.name) if self.revision is None else None

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name


def locate(name: str, *, flag: str, repo_type: str = "model", revision: str | None = None) -> Location:
    """Find a folder or a repo and pin the repo to the commit that `revision` (default: main) is now.

    `name` may carry the revision itself: `user/name@v1`. Raises InputError, naming `flag` and the remedy, for a repo
    that does not exist, is gated or private, for a bad token, and where no Hub answers.
    """
    if Path(name).is_dir():
        if revision is not None:
            raise InputError(f"{flag} {name} is a folder: it has no revision {revision!r}")
        return Location(name)
    repo_id, _, own_revision = name.partition("@")
    if own_revision and revision:
        raise InputError(f"{flag} {name} names a revision already; leave out {revision!r}")
    if repo_id.startswith((".", "/", "~")) or repo_id.count("/") > 1:
        raise InputError(f"{flag} {name}: no such folder")
    revision = revision or own_revision or None
    with explained(repo_id, flag=flag, repo_type=repo_type, revision=revision):
        if constants.HF_HUB_OFFLINE:
            # The cache is all there is; a snapshot's folder is named by its commit.
            snapshot = huggingface_hub.snapshot_download(
                repo_id, repo_type=repo_type, revision=revision, local_files_only=True
            )
            return Location(repo_id, Path(snapshot).name)
        api = HfApi()
        info = api.repo_info(repo_id, repo_type=repo_type, revision=revision)
        if getattr(info, "gated", False):  # its page can be seen by everyone, its files cannot
            api.auth_check(repo_id, repo_type=repo_type)
        assert info.sha is not None
        return Location(repo_id, info.sha)


def page_url(repo_id: str, *, repo_type: str = "model") -> str:
    """The repo's page on the Hub in use."""
    prefix = {"model": "", "dataset": "datasets/", "space": "spaces/"}[repo_type]
    return f"{constants.ENDPOINT}/{prefix}{repo_id}"


@contextmanager
def explained(repo_id: str, *, flag: str, repo_type: str = "model", revision: str | None = None) -> Iterator[None]:
    """Turn what the Hub's client raises about `repo_id` into an InputError that says what to do."""
    what = f"{flag} {repo_id}"
    url = page_url(repo_id, repo_type=repo_type)
    try:
        yield
    except errors.LocalTokenNotFoundError as error:
        raise InputError(f"{what}: no token to write with. Set HF_TOKEN, or `hf auth login`") from error
    except errors.GatedRepoError as error:
        raise InputError(
            f"{what} is gated: open {url}, accept its licence there, then `hf auth login` with a token of that account"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"{what}: no such {repo_type} repo on {constants.ENDPOINT}, and no such folder here. If it is private, "
            "`hf auth login` with a token that may read it"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{what} has no revision {revision!r}; {url}/commits/main lists them") from error
    except errors.LocalEntryNotFoundError as error:
        raise InputError(f"{what} is not in the cache, and HF_HUB_OFFLINE forbids to fetch it") from error
    except errors.EntryNotFoundError as error:
        raise InputError(f"{what}: a file is missing there: {str(error).splitlines()[-1]}") from error
    except errors.HFValidationError as error:
        raise InputError(f"{what} is neither a folder here nor a repo id like user/name") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in (401, 403):
            raise InputError(
                f"{what}: the Hub refused the token (HTTP {status}: {error.server_message or 'no reason given'}). "
                "Check HF_TOKEN, or `hf auth login` with a token that may "
                f"{'read' if status == 401 else 'write to'} it"
            ) from error
        raise InputError(f"{what}: the Hub answered HTTP {status}: {error.server_message or error}") from error
    except (httpx2.TransportError, errors.OfflineModeIsEnabled) as error:
        raise InputError(
            f"{what}: no Hub answers at {constants.ENDPOINT} ({type(error).__name__}). Check network and HF_ENDPOINT"
        ) from error
