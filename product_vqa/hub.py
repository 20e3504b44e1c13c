"""The Hub: repos pinned to a commit, attempts and commits that survive its bad moments, and its errors in one line."""

import email.utils
import json
import logging
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import httpx2  # huggingface_hub's own client
import huggingface_hub
from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, constants, errors
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._http import default_client_factory, hf_raise_for_status, parse_ratelimit_headers
from tqdm.auto import tqdm

from product_vqa.cards import CARD_FILE, merge_cards
from product_vqa.errors import InputError, first_line

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Seconds before each further attempt. A push comes after hours of work and waits for minutes; a question before it
# does not, for a wrong address answers no better later.
WAITS_S = (1, 2, 5, 15, 30, 60)
BRIEF_WAITS_S = (1, 2)
LONGEST_WAIT_S = 300  # that a Hub may ask for by Retry-After
LARGE_FILE_BYTES = 256_000  # sent one by one: what was sent is not sent again after a failure


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


def locate(name: str, *, repo_type: str = "model", revision: str | None = None) -> Location:
    """Find a folder or a repo and pin the repo to the commit that `revision` (default: main) is now.

    `name` may carry the revision itself: `user/name@v1`. Raises InputError, with the remedy, for a repo
    that does not exist, is gated or private, for a bad token, and where no Hub answers.
    """
    if Path(name).is_dir():
        if revision is not None:
            raise InputError(f"{name} is a folder: it has no revision {revision!r}")
        return Location(name)
    repo_id, _, own_revision = name.partition("@")
    if own_revision and revision:
        raise InputError(f"{name} names a revision already; leave out {revision!r}")
    if repo_id.startswith((".", "/", "~")) or repo_id.count("/") > 1:
        raise InputError(f"{name}: no such folder")
    revision = revision or own_revision or None
    with explained(repo_id, repo_type=repo_type, revision=revision):
        api = HfApi()
        if constants.HF_HUB_OFFLINE:
            commit = api.resolve_revision(
                repo_id, repo_type=repo_type, revision=revision, local_files_only=True
            ).resolved
            cached = Path(constants.HF_HUB_CACHE).expanduser() / repo_folder_name(repo_id=repo_id, repo_type=repo_type)
            if not (cached / "snapshots" / commit).is_dir():
                raise errors.LocalEntryNotFoundError(f"no snapshot of {commit}")
            return Location(repo_id, commit)
        info = retried(lambda: api.repo_info(repo_id, repo_type=repo_type, revision=revision), waits_s=BRIEF_WAITS_S)
        if getattr(info, "gated", False):  # its page can be seen by everyone, its files cannot
            retried(lambda: api.auth_check(repo_id, repo_type=repo_type), waits_s=BRIEF_WAITS_S)
        assert info.sha is not None
        if revision != info.sha:
            # Files are fetched at the commit: without this, nothing in the cache would say which one `main` was.
            retried(
                lambda: api.resolve_revision(repo_id, repo_type=repo_type, revision=revision), waits_s=BRIEF_WAITS_S
            )
        return Location(repo_id, info.sha)


def fetch(location: Location, *, patterns: list[str], repo_type: str = "model") -> Path:
    """The folder that holds those files of `location` whose names match: its own, or one in the cache.

    Raises InputError if they cannot be had.
    """
    if location.folder is not None:
        return location.folder
    with explained(location.name, repo_type=repo_type, revision=location.revision):
        snapshot = retried(
            lambda: huggingface_hub.snapshot_download(
                location.name,
                repo_type=repo_type,
                revision=location.revision,
                allow_patterns=patterns,
                local_files_only=constants.HF_HUB_OFFLINE,
            ),
            waits_s=BRIEF_WAITS_S,
        )
    return Path(snapshot)


def list_files(location: Location, *, repo_type: str = "model") -> list[str]:
    """Paths of all files, relative, with slashes: of a repo those of its commit, in the cache or not."""
    if location.folder is not None:
        return sorted(
            file.relative_to(location.folder).as_posix() for file in location.folder.rglob("*") if file.is_file()
        )

    def cached() -> list[str]:
        tree = huggingface_hub.get_cached_repo_tree(location.name, repo_type=repo_type, revision=location.revision)
        return sorted(file.path for file in tree)

    try:
        return cached()
    except errors.CachedRepoTreeNotFoundError:
        # Fetching leaves the listing in the cache; a pattern that matches nothing would be warned of.
        fetch(location, patterns=[CARD_FILE, ".gitattributes"], repo_type=repo_type)
    try:
        return cached()
    except errors.CachedRepoTreeNotFoundError as error:
        raise InputError(f"{location} is not in the cache, and HF_HUB_OFFLINE forbids to fetch it") from error


# ---- Attempts ------------------------------------------------------------------------------------------------------


def retried(request: Callable[[], T], *, waits_s: tuple[float, ...] = WAITS_S) -> T:
    """What `request` returns, asked again after each of `waits_s` where its failure may pass: HTTP 429 and 5xx, a lost
    connection, an answer that was cut off. A longer wait that the Hub asks for is kept, up to LONGEST_WAIT_S.

    Raises what `request` raises last.
    """
    waited_s = 0.0
    for wait_s in waits_s:
        try:
            return request()
        except Exception as error:
            waited_s += _wait(error, wait_s, left_s=sum(waits_s) + LONGEST_WAIT_S - waited_s)
    return request()


_PASSING_STATUS = (408, 412, 425, 429, 500, 502, 503, 504)  # 412: somebody else's commit came between
_NEVER_PASSING = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, httpx2.ProxyError)


def _wait(error: Exception, wait_s: float, *, left_s: float) -> float:
    """Sleep before another attempt; returns for how long. Raises `error` if there is no sense in one, or no time."""
    cause = _passing_cause(error)
    if cause is None:
        raise error
    if isinstance(cause, errors.HfHubHTTPError):
        what = f"HTTP {cause.response.status_code}"
        _limit_waits(cause.response)
        wait_s = max(wait_s, float(cause.response.headers.get("Retry-After", 0)))
    else:
        what = type(cause).__name__
    if wait_s > left_s:
        raise error
    logger.warning("The Hub: %s. Trying again in %g s.", what, wait_s)
    time.sleep(wait_s)
    return wait_s


def _passing_cause(error: BaseException | None) -> BaseException | None:
    """What, in the chain of causes, may be gone at another attempt; None if nothing is."""
    while error is not None:
        if isinstance(error, errors.HfHubHTTPError):
            return error if error.response is not None and error.response.status_code in _PASSING_STATUS else None
        if isinstance(error, httpx2.TransportError):
            return None if isinstance(error, _NEVER_PASSING) else error
        if isinstance(error, json.JSONDecodeError | ConnectionResetError | BrokenPipeError | TimeoutError):
            return error  # the first: a proxy's page in place of the Hub's answer
        if type(error) is RuntimeError and re.search(r"CAS|Data processing|reconstruction", str(error)):
            return error  # hf_xet's, about the network
        error = error.__cause__ or error.__context__  # transformers raises others' errors anew, without a cause
    return None


def _limit_waits(response: httpx2.Response) -> None:
    """Leave one header that says how long to wait, Retry-After in seconds, and none that asks for too long.

    The client obeys whatever it finds at some of its requests: a day, or a number that crashes it.
    """
    asked = response.headers.pop("Retry-After", "").strip()
    limit = parse_ratelimit_headers(response.headers) if response.status_code == 429 else None
    response.headers.pop("RateLimit", None)
    seconds: float | None = None
    if limit is not None and limit.remaining == 0:
        seconds = limit.reset_in_seconds
    elif re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", asked):
        seconds = float(asked)
    elif asked:
        try:
            seconds = email.utils.parsedate_to_datetime(asked).timestamp() - time.time()
        except (ValueError, OverflowError, OSError):
            seconds = None
    if seconds is not None and 0 <= seconds <= LONGEST_WAIT_S:
        response.headers["Retry-After"] = str(math.ceil(seconds))


def _make_client() -> httpx2.Client:
    client = default_client_factory()
    client.event_hooks = {**client.event_hooks, "response": [*client.event_hooks["response"], _limit_waits]}
    return client


huggingface_hub.set_client_factory(_make_client)


# ---- Commits -------------------------------------------------------------------------------------------------------


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
        info = retried(lambda: api.repo_info(repo_id, repo_type=repo_type, revision=revision), waits_s=waits_s)
        assert info.sha is not None
        if info.sha == head:
            return  # what was sent is known to be there
        names = {file.rfilename for file in getattr(info, "siblings", None) or ()}
        contents = dict(files)
        if CARD_FILE in files and CARD_FILE in names:
            card = retried(
                lambda: read_file(repo_id, CARD_FILE, repo_type=repo_type, revision=info.sha), waits_s=waits_s
            )
            contents[CARD_FILE] = merge_cards(_text(files[CARD_FILE]), _text(card), needed=needed_metadata).encode()
        additions = [CommitOperationAdd(name, content) for name, content in sorted(contents.items())]
        sizes = [addition.upload_info.size for addition in additions]
        small = [one for one, size in zip(additions, sizes, strict=True) if size < LARGE_FILE_BYTES]
        large = [[one] for one, size in zip(additions, sizes, strict=True) if size >= LARGE_FILE_BYTES]
        for batch in tqdm([*large, small] if small else large, desc="Pushing", disable=not large):
            retried(
                lambda batch=batch: api.preupload_lfs_files(  # type: ignore[misc]
                    repo_id, batch, repo_type=repo_type, revision=revision, free_memory=False
                ),
                waits_s=waits_s,
            )
        gone = [CommitOperationDelete(name) for name in sorted(names - files.keys()) if is_obsolete(name)]
        head, operations = info.sha, [*additions, *gone]

    waited_s = 0.0
    for wait_s in (*waits_s, None):
        prepare()
        try:
            return api.create_commit(
                repo_id, operations, commit_message=message, repo_type=repo_type, revision=revision, parent_commit=head
            )
        except Exception as error:
            if wait_s is None:
                raise
            waited_s += _wait(error, wait_s, left_s=sum(waits_s) + LONGEST_WAIT_S - waited_s)
    raise AssertionError("unreachable")


def read_file(repo_id: str, name: str, *, repo_type: str = "model", revision: str | None = None) -> bytes:
    """A small file of a repo, from the Hub and not by way of the cache, which would take it for a part of a snapshot
    that somebody asked for. Raises EntryNotFoundError if the repo has none of that name."""
    url = f"{page_url(repo_id, repo_type=repo_type)}/resolve/{quote(revision or 'main', safe='')}/{quote(name)}"
    response = huggingface_hub.get_session().get(url, headers=build_hf_headers(), follow_redirects=True)
    hf_raise_for_status(response)
    return response.content


def _text(content: Path | bytes) -> str:
    return (content if isinstance(content, bytes) else content.read_bytes()).decode("utf-8", "replace")


# ---- Errors --------------------------------------------------------------------------------------------------------


def page_url(repo_id: str, *, repo_type: str = "model") -> str:
    """The repo's page on the Hub in use."""
    prefix = {"model": "", "dataset": "datasets/", "space": "spaces/"}[repo_type]
    return f"{constants.ENDPOINT}/{prefix}{repo_id}"


@contextmanager
def explained(repo_id: str, *, repo_type: str = "model", revision: str | None = None) -> Iterator[None]:
    """Turn what the Hub's client raises about `repo_id` into an InputError that says what to do."""
    what = repo_id
    url = page_url(repo_id, repo_type=repo_type)
    try:
        _check_token()
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
    except (errors.LocalEntryNotFoundError, errors.RevisionResolutionError) as error:
        if not constants.HF_HUB_OFFLINE:
            raise InputError(f"{what}: the Hub failed to answer: {first_line(error)}") from error
        at = f" at {revision}" if revision else ""
        raise InputError(
            f"{what}{at} is not in the cache, or not all of it, and HF_HUB_OFFLINE forbids to fetch it"
        ) from error
    except errors.EntryNotFoundError as error:
        raise InputError(f"{what}: a file is missing there: {str(error).strip().rpartition(chr(10))[2]}") from error
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
    except errors.OfflineModeIsEnabled as error:
        raise InputError(f"{what}: HF_HUB_OFFLINE is set, which this cannot do without a Hub") from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"{what}: {constants.ENDPOINT} answers, but not as a Hub does. Check HF_ENDPOINT, and proxies"
        ) from error
    except (httpx2.UnsupportedProtocol, httpx2.InvalidURL) as error:
        raise InputError(f"{what}: HF_ENDPOINT is {constants.ENDPOINT!r}, which is no http address") from error
    except httpx2.TransportError as error:
        raise InputError(
            f"{what}: no Hub answers at {constants.ENDPOINT} ({type(error).__name__}). Check network and HF_ENDPOINT"
        ) from error
    except (RuntimeError, ValueError, OSError) as error:  # what the client makes of a failure amid a file
        if isinstance(error, InputError):
            raise
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise InputError(f"{what} failed: {reason or type(error).__name__}") from error


class TokenError(InputError):
    """The token, and no argument, is what is wrong."""

    names_argument = True


def _check_token() -> None:
    """Raises TokenError for a token that no header can carry; the client would end in a UnicodeEncodeError."""
    if not re.fullmatch(r"[\x21-\x7e]*", huggingface_hub.get_token() or ""):
        raise TokenError(
            "the token (HF_TOKEN, or that of `hf auth login`) holds a space, or a character that is not ASCII: no "
            "token does. Copy it again from the settings of your account on the Hub"
        )
