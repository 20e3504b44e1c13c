"""A failed disk is one line, whichever library found it."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from product_vqa.atomic_io import atomic_write
from product_vqa.disk_errors import disk_errors, explain_disk_error
from product_vqa.errors import InputError


def wrapped(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


FULL = OSError(errno.ENOSPC, "No space left on device", "/data/x")
ERRORS = [
    (FULL, "/data/x: cannot be read or written (No space left on device); free some space there"),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk: cannot be read or written (Disk quota exceeded)"),
    (OSError(errno.EIO, "Input/output error", "/data/x"), "/data/x: cannot be read or written (Input/output error)"),
    (wrapped(RuntimeError("generating"), FULL), "/data/x: cannot be read or written (No space"),
    (wrapped(KeyError(), wrapped(ValueError(), FULL)), "/data/x: cannot be read or written (No space"),
    (RuntimeError("I/O error: No space left on device (os error 28)"), "the disk: cannot be read or written (No sp"),
    (RuntimeError("I/O error: File too large (os error 27)"), "the disk: cannot be read or written (File too large)"),
    (RuntimeError("database or disk is full"), "the disk: cannot be read or written (No space left on device)"),
]


@pytest.mark.parametrize(("error", "line"), ERRORS, ids=[str(case[0]) for case in ERRORS])
def test_the_failure_of_a_disk_is_found_behind_other_errors(error: Exception, line: str) -> None:
    assert str(explain_disk_error(error)).startswith(line)


@pytest.mark.parametrize(
    "error", [ValueError("File too large"), OSError("no number"), PermissionError(errno.EACCES, "denied"), KeyError(1)]
)
def test_another_error_is_none(error: Exception) -> None:
    assert explain_disk_error(error) is None
    with pytest.raises(type(error)), disk_errors("/data"):
        raise error


def test_a_chain_without_an_end_ends() -> None:
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert explain_disk_error(first) is None


def test_the_line_names_what_was_being_written() -> None:
    with (
        pytest.raises(InputError, match=r"^/data/out: cannot be read or written \(No space"),
        disk_errors("/data/out"),
    ):
        raise FULL


def test_a_file_that_does_not_fit_names_itself_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"^{tmp_path}/s\.csv: cannot be"), atomic_write(tmp_path / "s.csv"):
        raise FULL
    assert not os.listdir(tmp_path)


def test_a_command_ends_in_one_line_wherever_its_disk_fails() -> None:
    code = (
        "from product_vqa.cli import run\n"
        "def main():\n"
        "    try:\n"
        "        raise OSError(28, 'No space left on device', '/cache/x')\n"
        "    except OSError as error:\n"
        "        raise RuntimeError('An error occurred') from error\n"
        "run(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == (
        "error: /cache/x: cannot be read or written (No space left on device); free some space there, or choose a "
        "folder on another disk\n"
    )
