"""Check paths before any long work starts."""

import os
from pathlib import Path

from product_vqa.errors import InputError


def readable_file(path: str | Path) -> Path:
    """Return `path` as a Path. Raises InputError if it is not a file."""
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file}: {'is a folder, not a file' if file.is_dir() else 'no such file'}")
    return file


def writable_folder(path: str | Path) -> Path:
    """Return `path` as a Path, created if it does not exist. Raises InputError if it is not writable."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be created ({error.strerror}); choose another folder") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{folder}: not writable; choose another folder or change its permissions")
    return folder
