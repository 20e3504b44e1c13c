"""What the machine refuses is one line, whichever library found it."""

import errno
import sqlite3
import subprocess
import sys

import pytest

from product_vqa.errors import InputError
from product_vqa.machine_errors import explain_machine_error, machine_errors

RERUN = ", and rerun the same command"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/data/x"),
            "/data/x: No space left on device; free some space there, or choose a folder on another disk",
        ),
        (OSError(errno.EIO, "Input/output error"), "Input/output error; check the disk and its free space"),
        (PermissionError(errno.EACCES, "?", "/x"), "/x: Permission denied; change its permissions"),
        (OSError(errno.EMFILE, "?"), "Too many open files; raise the limit on open files (ulimit -n)"),
        (MemoryError(), "Cannot allocate memory; free some memory"),
        (
            RuntimeError("can't start new thread"),
            "no more threads or processes can be started; raise the limit on processes (ulimit -u)",
        ),
        (sqlite3.OperationalError("disk I/O error"), "Input/output error; check the disk and its free space"),
        (
            Exception("I/O error: No space left on device (os error 28)"),
            "No space left on device; free some space there, or choose a folder on another disk",
        ),
        (
            OSError(errno.EDQUOT, "?"),
            "Disk quota exceeded; free some of your quota, or choose a folder on another disk",
        ),
        (
            RuntimeError("Detail: [errno 27] File too large"),
            "File too large; raise the limit on the size of files (ulimit -f)",
        ),
        (
            RuntimeError("database or disk is full"),
            "No space left on device; free some space there, or choose a folder on another disk",
        ),
        (
            OSError("Cannot open '/x/y.parquet': Read-only file system"),
            "/x/y.parquet: Read-only file system; choose a folder on a disk that can be written",
        ),
    ],
)
def test_what_the_machine_refused_is_named_with_the_remedy(error: Exception, line: str) -> None:
    assert explain_machine_error(error) == line + RERUN


def test_the_cause_of_an_error_counts_and_a_suppressed_one_does_not() -> None:
    full = OSError(errno.ENOSPC, "full")
    wrapped = RuntimeError("failed")
    wrapped.__cause__ = full
    assert explain_machine_error(wrapped) is not None
    hidden = RuntimeError("failed")
    hidden.__context__, hidden.__suppress_context__ = full, True
    assert explain_machine_error(hidden) is None


def test_a_chain_without_an_end_ends() -> None:
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert explain_machine_error(first) is None


def test_the_line_names_what_was_being_written() -> None:
    with pytest.raises(InputError, match=r"^/data/out: No space"), machine_errors("/data/out"):
        raise OSError(errno.ENOSPC, "full", "/data/x")


@pytest.mark.parametrize(
    "error", [ValueError("File too large"), FileNotFoundError(errno.ENOENT, "none"), OSError("no number"), KeyError(1)]
)
def test_other_errors_are_not_the_machines(error: Exception) -> None:
    assert explain_machine_error(error) is None
    with pytest.raises(type(error)), machine_errors("/data"):
        raise error


def test_a_command_ends_in_one_line_and_a_fault_of_the_code_keeps_its_traceback() -> None:
    program = "from product_vqa.cli import run\ndef main(): open('/proc/self/mem', 'rb').read(1)\nrun(main)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        2,
        f"error: Input/output error; check the disk and its free space{RERUN}\n",
    )
    program = "from product_vqa.cli import run\ndef main(): raise KeyError('x')\nrun(main)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1 and "KeyError" in done.stderr
