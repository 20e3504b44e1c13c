"""Write files and folders that are complete or absent: write next to the target, then rename.

Any number of processes may write the same file: each writes a temporary file of its own, and the last rename wins.
`one_writer` keeps all but one process away from a folder that takes long to write.
"""

import errno
import fcntl
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from product_vqa.errors import InputError
from product_vqa.machine_errors import find_machine_error, machine_errors

logger = logging.getLogger(__name__)

_LEFTOVER = re.compile(r"\..*\.[0-9a-f]{8}\.product-vqa", re.DOTALL)
_swept: set[Path] = set()  # folders from which this process has removed what killed processes left
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)  # of some network file systems; filelock itself handles ENOSYS
_WAIT_FOR_LOCK_S = 0.2  # a lock that is just being released is not yet free


@contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """Replace `file` by the file written to the yielded path, if the block ends without an error.

    A kill leaves the old file, or none. Raises InputError, which names `file`, where the disk fails.
    """
    with machine_errors(file), _temporary_file(file) as temporary:
        yield temporary
        os.replace(temporary, file)


@contextmanager
def _temporary_file(file: Path) -> Iterator[Path]:
    """A new empty file next to `file`. The lock on it ends with this process: a leftover of a kill is not locked."""
    if file.parent not in _swept:
        _remove_leftovers(file.parent)
        _swept.add(file.parent)
    # O_EXCL: never through a link that somebody put there.
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    while True:
        # 32 characters are at most 128 bytes, and a name may have 255.
        temporary = file.with_name(f".{file.name[:32]}.{secrets.token_hex(4)}.product-vqa")
        descriptor = os.open(temporary, flags, 0o666)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)  # another process took it for a leftover before it was locked
    try:
        yield temporary
    finally:
        os.close(descriptor)
        temporary.unlink(missing_ok=True)


def _remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes that were killed. Those of running processes are locked."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not _LEFTOVER.fullmatch(entry.name) or not entry.is_file():
                continue
            with suppress(OSError):
                descriptor = os.open(entry.path, os.O_RDWR | os.O_NOFOLLOW)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(entry.path)
                finally:
                    os.close(descriptor)


@contextmanager
def one_writer(
    path: Path, *, argument: str, lock_file: Path | None = None, doing: str = "writing it"
) -> Iterator[None]:
    """Keep other processes from writing `path`, a file or folder, at the same time: for them, raises InputError.

    The lock ends with the process, however it ends. `lock_file` is next to `path` by default. `argument` is the option
    that `path` comes from.
    """
    lock_file = lock_file or path.with_name(f".{path.name}.lock")
    name = f"`{argument}` {path}"
    lock = FileLock(lock_file, timeout=_WAIT_FOR_LOCK_S)
    with machine_errors(lock_file):
        try:
            lock.acquire()
        except Timeout as error:
            raise InputError(
                f"{name}: another process is {doing}; wait until it ends, or choose another name"
            ) from error
        except OSError as error:
            if find_machine_error(error):
                raise
            if error.errno not in _NO_LOCKS:
                remedy = "remove it" if os.path.lexists(lock_file) else "choose another name"
                raise InputError(f"{name}: {lock_file} cannot be locked ({error.strerror}); {remedy}") from error
            logger.warning("%s: its file system has no locks: do not write it from two processes at once.", path)
    try:
        yield
    finally:
        lock_file.unlink(missing_ok=True)  # while it is still locked: nobody else's
        lock.release()


def replace_folder(temporary: Path, final: Path) -> None:
    """Rename a complete folder to `final`, replacing the folder of that name, if any.

    The old folder is removed last. If the new one cannot be renamed, the old one is kept.
    """
    restore_folder(final)
    old = _old(final)
    if final.exists():
        final.rename(old)
    try:
        temporary.rename(final)
    except OSError:
        if old.exists():
            old.rename(final)
        raise
    shutil.rmtree(old, ignore_errors=True)


def restore_folder(final: Path) -> None:
    """Complete what `replace_folder` was killed at: rename the old folder back, or remove it if there is a new one."""
    if final.exists():
        shutil.rmtree(_old(final), ignore_errors=True)
    elif _old(final).is_dir():
        _old(final).rename(final)


def _old(final: Path) -> Path:
    return final.with_name(f".{final.name}.old")
