"""Check paths before any long work starts."""

import os
from pathlib import Path

from product_vqa.errors import InputError


def readable_file(path: str | Path) -> Path:
    """Return `path` as a Path. Raises InputError if it is not a file."""
    file = Path(path)
    if "\0" in str(path):
        raise InputError(f"{file}: a name with a null character is not a file's")
    if not file.is_file():
        raise InputError(f"{file}: {'is a folder, not a file' if file.is_dir() else 'no such file'}")
    return file


def writable_folder(path: str | Path) -> Path:
    """Return `path` as a Path, created if it does not exist. Raises InputError if it is not writable."""
    folder = Path(path)
    if not str(path).strip():
        raise InputError(f"{str(path)!r} names no folder; choose one")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{folder}: cannot be created ({reason}); choose another folder") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{folder}: not writable; choose another folder or change its permissions")
    return folder
