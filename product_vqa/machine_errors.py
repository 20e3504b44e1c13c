"""Explain what the machine refused: disk space, permission, open files, memory, threads.

It is the same line for whichever library found it.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from product_vqa.errors import InputError, first_line

_REMEDIES = {
    errno.ENOSPC: "free some space there, or choose a folder on another disk",
    errno.EDQUOT: "free some of your quota, or choose a folder on another disk",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "choose a folder on a disk that can be written",
    errno.EIO: "check the disk and its free space",
    errno.EACCES: "change its permissions",
    errno.EPERM: "change its permissions",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "raise the system's limit on open files",
    errno.ENOMEM: "free some memory",
    errno.EAGAIN: "raise the limit on processes (ulimit -u)",
}
# Libraries in Rust and C++, SQLite and Python's threads raise errors of their own, with the system's text or number.
_CLEAR = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENOMEM)
_TEXTS = {
    **{os.strerror(number): number for number in _CLEAR},
    **{f"(os error {number})": number for number in _REMEDIES},
    **{f"[errno {number}]": number for number in _REMEDIES},
    "database or disk is full": errno.ENOSPC,
    "disk I/O error": errno.EIO,
    # torch hides why a file could not be written.
    "PytorchStreamWriter failed writing file": errno.EIO,
    "inline_container.cc": errno.EIO,
    "iostream error": errno.EIO,
    "can't start new thread": errno.EAGAIN,
}


def find_machine_error(error: BaseException | None) -> OSError | None:
    """The refusal of the machine that `error` is, wraps or follows from; None if it has another cause."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError):
            return OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        if isinstance(error, OSError) and error.errno in _REMEDIES:
            return error
        for text, number in _TEXTS.items():
            if text in str(error):
                return OSError(number, first_line(error), _path_in(str(error)))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def explain_machine_error(error: BaseException, path: str | Path | None = None) -> str | None:
    """One line with the reason, the file if one is known, and the remedy; None for an error with another cause.

    `path` is what was being written. Without it, the line names the file that the system named, if it did.
    """
    found = find_machine_error(error)
    if found is None or found.errno is None:
        return None
    reason = os.strerror(found.errno)
    if found.errno == errno.EAGAIN:
        reason = "no more threads or processes can be started"
    where = path or found.filename
    located = f"{where}: {reason}" if where else reason
    return f"{located}; {_REMEDIES[found.errno]}, and rerun the same command"


@contextmanager
def machine_errors(path: str | Path) -> Iterator[None]:
    """Raise InputError, which names `path`, for what the machine refuses. Other errors pass."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if (text := explain_machine_error(error, path)) is None:
            raise
        raise InputError(text) from error


def _path_in(text: str) -> str | None:
    """The file that a library names in its message."""
    match = re.search(r"'(/[^'\n]+)'", text)
    return match[1] if match else None
