"""Explain a failed disk: full, over a quota, read-only, or broken. The same line for whichever library found it."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from product_vqa.errors import InputError

_REMEDIES = {
    errno.ENOSPC: "free some space there, or choose a folder on another disk",
    errno.EDQUOT: "free some of your quota, or choose a folder on another disk",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or choose a folder on another disk",
    errno.EROFS: "choose a folder on a disk that can be written",
    errno.EIO: "check the disk, or choose a folder on another one",
}
# Libraries in Rust, C and C++ raise errors of their own, with the system's text in the message.
_TEXTS = {
    **{os.strerror(number): number for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)},
    **{f"(os error {number})": number for number in _REMEDIES},
    "database or disk is full": errno.ENOSPC,
}


def find_disk_error(error: BaseException | None) -> OSError | None:
    """The failure of a disk that `error` is, wraps or follows from; None if it has another cause."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _REMEDIES:
            return error
        for text, number in _TEXTS.items():
            if text in str(error):
                return OSError(number, os.strerror(number))
        error = error.__cause__ or error.__context__
    return None


def explain_disk_error(error: BaseException, path: str | Path | None = None) -> str | None:
    """One line with the file or folder, the reason and the remedy; None if `error` is not the failure of a disk.

    `path` is what was being written. Without it, the line names the file that the system named, if it did.
    """
    found = find_disk_error(error)
    if found is None or found.errno is None:
        return None
    where = path or found.filename or "the disk"
    return f"{where}: cannot be read or written ({os.strerror(found.errno)}); {_REMEDIES[found.errno]}"


@contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Raise InputError, which names `path`, where the disk fails. Other errors pass."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if (text := explain_disk_error(error, path)) is None:
            raise
        raise InputError(text) from error
