"""Files and folders that are whole or absent: written beside their place, then renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(file: Path) -> Iterator[Path]:
    """`with written_whole(file) as temporary:` puts `temporary` in the place of `file` if the block ends without an
    error; a kill leaves the old file, or none. One process may write a file at a time."""
    temporary = file.with_name(f".{file.name}.part")
    try:
        yield temporary
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def replace_folder(temporary: Path, final: Path) -> None:
    """Put a finished folder in the place of another, so that no half-written one ever bears the final name.

    The earlier folder is removed last: where the new one cannot be put in place, it is there as before.
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
