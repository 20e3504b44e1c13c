"""What the Hub's client raises, as one line that says what to do."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2  # huggingface_hub's own client
import huggingface_hub
from huggingface_hub import constants, errors

from product_vqa.errors import InputError, first_line
from product_vqa.hub.urls import page_url


@contextmanager
def hub_errors(repo_id: str, *, repo_type: str = "model", revision: str | None = None) -> Iterator[None]:
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
