"""Convert errors of the Hub's client into one line that says what to do."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2  # huggingface_hub's own client
import huggingface_hub
from huggingface_hub import constants, errors

from product_vqa.errors import InputError, first_line
from product_vqa.hub.urls import page_url
from product_vqa.quoting import one_line


@contextmanager
def hub_errors(repo_id: str, *, repo_type: str = "model", revision: str | None = None) -> Iterator[None]:
    """Convert what the Hub's client raises about `repo_id` into an InputError."""
    url = page_url(repo_id, repo_type=repo_type)
    try:
        _check_token()
        yield
    except errors.LocalTokenNotFoundError as error:
        raise InputError(f"{repo_id}: no token with write access. Set HF_TOKEN, or run `hf auth login`") from error
    except errors.GatedRepoError as error:
        raise InputError(
            f"{repo_id} is gated: open {url} and accept its license, then run `hf auth login` with a token of that "
            "account"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"{repo_id}: no such {repo_type} repo on {constants.ENDPOINT}, and no such folder. If it is private, run "
            "`hf auth login` with a token that can read it"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{repo_id} has no revision {revision!r}; {url}/commits/main lists them") from error
    except (errors.LocalEntryNotFoundError, errors.RevisionResolutionError) as error:
        if not constants.HF_HUB_OFFLINE:
            raise InputError(f"{repo_id}: the Hub did not answer: {one_line(first_line(error))}") from error
        where = f"{repo_id} at {revision}" if revision else repo_id
        raise InputError(
            f"{where} is not in the cache, or only in part, and HF_HUB_OFFLINE forbids downloading it"
        ) from error
    except errors.EntryNotFoundError as error:
        raise InputError(
            f"{repo_id}: the repo has no such file: {one_line(str(error).strip().rpartition(chr(10))[2])}"
        ) from error
    except errors.HFValidationError as error:
        raise InputError(f"{repo_id} is neither a folder nor a repo id like user/name") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if host := _other_host(error):
            raise InputError(
                f"{repo_id}: {host}, where the Hub stores its files, answered HTTP {status}: {_reason(error)}"
            ) from error
        if status in (401, 403):
            access = "read" if status == 401 or "/resolve/" in _url(error).path else "write to"
            raise InputError(
                f"{repo_id}: the Hub refused the token (HTTP {status}: {_reason(error)}). "
                f"Check HF_TOKEN, or run `hf auth login` with a token that can {access} it"
            ) from error
        raise InputError(f"{repo_id}: the Hub answered HTTP {status}: {_reason(error)}") from error
    except errors.OfflineModeIsEnabled as error:
        raise InputError(f"{repo_id}: HF_HUB_OFFLINE is set, but this needs the Hub") from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"{repo_id}: {constants.ENDPOINT} answers, but is not a Hub. Check HF_ENDPOINT and proxies"
        ) from error
    except (httpx2.UnsupportedProtocol, httpx2.InvalidURL) as error:
        raise InputError(f"{repo_id}: HF_ENDPOINT is {constants.ENDPOINT!r}, which is not an http URL") from error
    except httpx2.TransportError as error:
        if host := _other_host(error):
            raise InputError(
                f"{repo_id}: the Hub answers, but {host}, where it stores its files, does not "
                f"({type(error).__name__}). Check the network, proxies and firewalls"
            ) from error
        raise InputError(
            f"{repo_id}: no Hub answers at {constants.ENDPOINT} ({type(error).__name__}). Check the network and "
            "HF_ENDPOINT"
        ) from error
    except (httpx2.DecodingError, httpx2.TooManyRedirects, AttributeError, IndexError, KeyError, TypeError) as error:
        # The last four: the client looks for what is not in the answer.
        raise InputError(
            f"{repo_id}: {constants.ENDPOINT} answers, but not as a Hub does ({type(error).__name__}: "
            f"{one_line(str(error))}). Check HF_ENDPOINT and proxies"
        ) from error
    except (RuntimeError, ValueError, OSError) as error:  # the client raises these if a transfer fails midway
        if isinstance(error, InputError):
            raise
        reason = one_line(first_line(error.__cause__ or error))
        raise InputError(f"{repo_id}: the transfer to or from the Hub failed: {reason}") from error


def _other_host(error: errors.HfHubHTTPError | httpx2.TransportError) -> str | None:
    """Return the host that failed, if the Hub redirected to it, as it does for large files."""
    netloc = _url(error).netloc
    return one_line(netloc.decode()) if netloc not in (b"", httpx2.URL(constants.ENDPOINT).netloc) else None


def _url(error: errors.HfHubHTTPError | httpx2.TransportError) -> httpx2.URL:
    """Return the URL that failed; an empty one if there was no request."""
    try:
        return error.response.url if isinstance(error, errors.HfHubHTTPError) else error.request.url
    except (RuntimeError, AttributeError):
        return httpx2.URL("")


def _reason(error: errors.HfHubHTTPError) -> str:
    """What the server says, or the client about it, on one line."""
    return one_line(first_line(error.server_message or error))


class TokenError(InputError):
    """Raised for a malformed token, whatever the argument was."""

    names_argument = True


def _check_token() -> None:
    """Raise TokenError for a token that cannot be sent in a header, for which the client raises UnicodeEncodeError."""
    token = huggingface_hub.get_token() or ""
    if not re.fullmatch(r"[\x21-\x7e]*", token):
        raise TokenError(
            "the token (HF_TOKEN, or that of `hf auth login`) contains a space or a character that is not ASCII. Copy "
            "it again from the settings of your account on the Hub"
        )
    if set(token) & set("'\"`"):
        raise TokenError(
            "the token (HF_TOKEN, or that of `hf auth login`) contains quotation marks. Set it without them: a file "
            "of variables, such as that of `docker --env-file`, keeps them"
        )
