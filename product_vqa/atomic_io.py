"""Write files and folders that are complete or absent: write next to the target, then rename."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """Replace `file` by the file written to the yielded path, if the block ends without an error.

    A kill leaves the old file, or none. Only one process may write a file at a time.
    """
    temporary = file.with_name(f".{file.name}.part")
    try:
        yield temporary
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def replace_folder(temporary: Path, final: Path) -> None:
    """Rename a complete folder to `final`, replacing the folder of that name, if any.

    The old folder is removed last. If the new one cannot be renamed, the old one is kept.
    """
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    try:
        temporary.rename(final)
    except OSError:
        if old.exists():
            old.rename(final)
        raise
    shutil.rmtree(old, ignore_errors=True)
