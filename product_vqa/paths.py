"""Check paths before any long work starts."""

import os
import stat
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from product_vqa.errors import InputError


def readable_file(path: str | Path) -> Path:
    """Return `path` as a Path. Raises InputError if it is not a regular file, and says what it is."""
    file = Path(path)
    try:
        mode = file.stat().st_mode
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError(f"{file}: cannot be read ({getattr(error, 'strerror', error)})") from error
    if stat.S_ISDIR(mode):
        raise InputError(f"{file}: is a folder, not a file")
    if not stat.S_ISREG(mode):
        kind = "a device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else "a pipe or a socket"
        raise InputError(f"{file}: is {kind}, not a file; write its content to a file and pass that")
    return file


def open_file(path: str | Path) -> IO[bytes]:
    """Open a regular file. Raises OSError for anything else: a pipe would block, and a device never ends."""
    stream = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError(0, "not a regular file", str(path))
    return stream


def open_regular(path: str | Path) -> IO[bytes]:
    """Open a file as `open_file` does. Raises InputError, which says what the path is instead of a file."""
    file = readable_file(path)
    try:
        return open_file(file)  # it could have been replaced by a pipe in between
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error


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


def find_shipped(name: str, *, folder: str) -> str:
    """The file of this name, or else the one that this project ships in `folder` of training.

    A shipped one may be written as `paligemma_3b_224_nf4` or `training/configs/paligemma_3b_224_nf4.yaml`. A name that
    is neither is returned as it is.
    """
    short = name.removeprefix(f"training/{folder}/").removesuffix(".yaml")
    if os.path.lexists(name) or short not in shipped_names(folder):
        return name
    return str(_shipped_folder(folder) / f"{short}.yaml")


def shipped_names(folder: str) -> list[str]:
    return sorted(file.stem for file in _shipped_folder(folder).glob("*.yaml"))


def _shipped_folder(folder: str) -> Path:
    training = find_spec("training")
    assert training is not None and training.origin is not None
    return Path(training.origin).parent / folder
