"""A disk that fills up, at whichever write of a build: one line, and nothing that looks complete but is not."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import in_namespace
from tests.dataset_builder.files import Shop

BUILD = """
import os, sys
from dataset_builder import build
from product_vqa.cli import run
sys.argv = ["build", *sys.argv[1:]]
run(build.main)
"""
# Every write to a file fails from the n-th one on, in Python and in the libraries that write with it.
FAIL_AT = """
import builtins, errno, os, sys
number, name, target = int(sys.argv.pop(1)), sys.argv.pop(1), sys.argv.pop(1)
count = 0

def audit(event, arguments):
    global count
    if event == "open":
        path, mode, flags = arguments
        is_write = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
        path = os.fsdecode(path) if isinstance(path, (str, bytes)) else ""
    elif event in ("os.rename", "os.mkdir", "os.link", "os.symlink", "os.truncate"):
        is_write, path = True, os.fsdecode(arguments[0])
    else:
        return
    if is_write and path.startswith(target) and not path.endswith(".lock"):
        count += 1
        if count >= number:
            raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)), path)

sys.addaudithook(audit)
"""


def files(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def run_build(shop: Shop, *words: str | Path, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    def limited() -> None:
        assert limit is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [sys.executable, *map(str, words), *shop.arguments(), "--output_dir", str(shop.folder / "out")],
        capture_output=True, text=True, timeout=120, env=os.environ, preexec_fn=limited if limit is not None else None,
    )  # fmt: skip


def check(shop: Shop, done: subprocess.CompletedProcess[str], complete: dict[str, bytes]) -> None:
    """One line and no half of a dataset; or, if the fault came after the last write, the dataset."""
    out = shop.folder / "out"
    assert "Traceback" not in done.stderr, done.stderr
    if done.returncode == 0:
        assert files(out) == complete
        return
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and str(shop.folder) in errors[0], done.stderr
    assert not out.exists() or files(out) == complete


@pytest.mark.faults
@pytest.mark.parametrize("name", ["ENOSPC", "EIO"])
def test_a_disk_that_fails_from_any_file_on_is_one_line_and_leaves_no_half_of_a_dataset(shop: Shop, name: str) -> None:
    assert run_build(shop, "-c", BUILD).returncode == 0
    out = shop.folder / "out"
    complete = files(out)
    num_failed = 0
    for number in (1, 2, 3, 5, 8, 13, 21, 34, 48, 54, 60, 66, 70, 74):
        for file in [out, *shop.folder.glob(".out*")]:
            subprocess.run(["rm", "-rf", file], check=True)
        done = run_build(shop, "-c", FAIL_AT + BUILD, str(number), name, str(shop.folder))
        check(shop, done, complete)
        num_failed += done.returncode == 2
    assert num_failed >= 8
    assert run_build(shop, "-c", BUILD).returncode == 0  # nothing that is left is in its way
    assert files(out) == complete and not list(shop.folder.glob(".*"))


@pytest.mark.faults
def test_files_that_may_not_grow_are_one_line_and_leave_no_half_of_a_dataset(shop: Shop) -> None:
    assert run_build(shop, "-c", BUILD).returncode == 0
    complete = files(shop.folder / "out")
    for limit in (100, 1000, 3000, 5000, 8000, 12_000, 20_000, 30_000, 10**9):
        subprocess.run(["rm", "-rf", shop.folder / "out"], check=True)
        check(shop, run_build(shop, "-c", BUILD, limit=limit), complete)


@pytest.mark.faults
def test_a_small_disk_is_one_line_and_leaves_no_half_of_a_dataset(shop: Shop) -> None:
    for size in ("16k", "64k", "96k", "128k", "160k", "192k", "256k", "320k"):
        done = in_namespace(
            f"mkdir -p {shop.folder}/disk; mount -t tmpfs -o size={size} tmpfs {shop.folder}/disk",
            ["sh", "-c",
             f'"$@"; code=$?; ls -A {shop.folder}/disk/out 2> /dev/null | sort; exit $code', "sh",
             sys.executable, "-c", BUILD, *shop.arguments(), "--output_dir", f"{shop.folder}/disk/out"],
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode in (0, 2), done.stderr
        if done.returncode == 2:
            assert "error: " in done.stderr and f"{shop.folder}/disk" in done.stderr and not done.stdout
        else:
            assert done.stdout.splitlines()[-5:] == ["README.md", "build.json", "data", "left_out.csv", "rows"]
