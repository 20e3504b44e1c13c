"""Explain what the machine refused a command: disk space, permission, open files, memory, threads."""

import errno
import os
import re

from product_vqa.errors import first_line

_REMEDIES = {
    errno.ENOSPC: "free some space there, or choose a folder on another disk",
    errno.EDQUOT: "free some of your quota, or choose a folder on another disk",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "choose a folder on a disk that can be written",
    errno.EIO: "check the disk",
    errno.EACCES: "change its permissions",
    errno.EPERM: "change its permissions",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "raise the system's limit on open files",
    errno.ENOMEM: "free some memory",
    errno.EAGAIN: "raise the limit on processes (ulimit -u)",
}
# Libraries in Rust and C++, SQLite and Python's threads raise errors of their own.
_TEXTS = {
    **{os.strerror(number): number for number in _REMEDIES if number != errno.EAGAIN},
    **{f"(os error {number})": number for number in _REMEDIES},
    "database or disk is full": errno.ENOSPC,
    "disk I/O error": errno.EIO,
    "PytorchStreamWriter failed writing file": errno.ENOSPC,
    "can't start new thread": errno.EAGAIN,
}


def explain_machine_error(error: BaseException) -> str | None:
    """One line with the reason, the file if one is known, and the remedy; None for an error with another cause."""
    found = _find(error)
    if found is None or found.errno is None:
        return None
    reason = os.strerror(found.errno)
    if found.errno == errno.EAGAIN:
        reason = "no more threads or processes can be started"
    where = f"{found.filename}: " if found.filename else ""
    return f"{where}{reason}; {_REMEDIES[found.errno]}, and rerun the same command"


def _find(error: BaseException | None) -> OSError | None:
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


def _path_in(text: str) -> str | None:
    """The file that a library names in its message."""
    match = re.search(r"'(/[^'\n]+)'", text)
    return match[1] if match else None
