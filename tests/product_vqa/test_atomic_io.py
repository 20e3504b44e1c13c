import errno
import fcntl
import logging
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from product_vqa.atomic_io import atomic_write, one_writer, replace_folder, restore_folder
from product_vqa.errors import InputError


def test_a_file_has_its_earlier_content_until_the_new_one_is_complete(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    for content in ("first", "second"):
        before = file.read_text() if file.exists() else None
        with atomic_write(file) as temporary:
            temporary.write_text(content)
            assert (file.read_text() if file.exists() else None) == before
        assert file.read_text() == content
    assert os.listdir(tmp_path) == ["report.html"]


@pytest.mark.parametrize("earlier", [None, "earlier"])
def test_an_error_while_writing_leaves_what_was_there_and_nothing_else(tmp_path: Path, earlier: str | None) -> None:
    file = tmp_path / "submission.csv"
    if earlier:
        file.write_text(earlier)
    with pytest.raises(ZeroDivisionError), atomic_write(file) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise ZeroDivisionError
    assert {name: (tmp_path / name).read_text() for name in os.listdir(tmp_path)} == (
        {"submission.csv": earlier} if earlier else {}
    )


def test_a_process_killed_while_writing_leaves_the_earlier_file(tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    file.write_text("earlier")
    code = (
        "import os, pathlib, sys\n"
        "from product_vqa.atomic_io import atomic_write\n"
        "with atomic_write(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, file], timeout=60).returncode == -9
    assert file.read_text() == "earlier"
    assert len(os.listdir(tmp_path)) == 2
    with atomic_write(file) as temporary:  # removes what the kill left
        temporary.write_text("later")
    assert {name: (tmp_path / name).read_text() for name in os.listdir(tmp_path)} == {"calibration.json": "later"}


def test_a_file_that_does_not_fit_names_itself_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"^{tmp_path}/s\.csv: No space"), atomic_write(tmp_path / "s.csv"):
        raise OSError(errno.ENOSPC, "full")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["x" * 255, "\N{PACKAGE}" * 62 + ".csv"])
def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path, name: str) -> None:
    with atomic_write(tmp_path / name) as temporary:
        temporary.write_text("x")
    assert os.listdir(tmp_path) == [name]


def test_what_kills_left_is_removed_whatever_else_is_in_the_folder(tmp_path: Path) -> None:
    """And nothing but that: no file of another name, no folder, no link."""
    kept = {f"{number}.txt" for number in range(20)} | {
        ".a.txt.0123abcd.product-vqa.txt", "a.txt.0123abcd.product-vqa", ".a.txt.0123ABCD.product-vqa",
        ".a.txt.0123abc.product-vqa", ".folder.0123abcd.product-vqa", ".link.0123abcd.product-vqa",
    }  # fmt: skip
    (tmp_path / ".folder.0123abcd.product-vqa").mkdir()
    (tmp_path / ".link.0123abcd.product-vqa").symlink_to(tmp_path / "0.txt")
    left = {f".{number}.txt.0123abc{number}.product-vqa" for number in range(9)} | {".a\n.txt.0123abcd.product-vqa"}
    for name in [*kept, *left]:
        if not (tmp_path / name).exists():
            (tmp_path / name).touch()
    with atomic_write(tmp_path / "0.txt") as temporary:
        temporary.write_text("later")
    assert set(os.listdir(tmp_path)) == kept
    assert (tmp_path / "0.txt").read_text() == "later"


def test_a_folder_that_cannot_be_listed_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:  # as a folder without the permission to read it does, for all but root
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", refuse)
        with atomic_write(tmp_path / "a") as temporary:
            temporary.write_text("x")
    assert {name: (tmp_path / name).read_text() for name in os.listdir(tmp_path)} == {"a": "x"}


def folder_with(path: Path, content: str) -> Path:
    path.mkdir()
    (path / "data").write_text(content)
    return path


def test_a_folder_is_replaced_by_a_finished_one(tmp_path: Path) -> None:
    final = tmp_path / "dataset"
    for content in ("first", "second"):
        replace_folder(folder_with(tmp_path / "building", content), final)
        assert (final / "data").read_text() == content
        assert os.listdir(tmp_path) == ["dataset"]


def test_a_folder_that_cannot_be_replaced_is_there_as_before(tmp_path: Path) -> None:
    final = folder_with(tmp_path / "dataset", "earlier")
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "building", final)
    assert (final / "data").read_text() == "earlier"
    assert os.listdir(tmp_path) == ["dataset"]


def test_two_writers_of_one_file_do_not_mix_their_content(tmp_path: Path) -> None:
    file = tmp_path / "submission.csv"
    with atomic_write(file) as first:
        first.write_text("first")
        with atomic_write(file) as second:
            second.write_text("second, and longer")
            first.write_text("first again")
        assert file.read_text() == "second, and longer"
    assert file.read_text() == "first again"
    assert os.listdir(tmp_path) == ["submission.csv"]


def test_another_process_does_not_remove_what_is_being_written(tmp_path: Path) -> None:
    """Each process removes what killed ones left; the temporary file of a running one is locked."""
    program = (
        "import sys; from pathlib import Path; from product_vqa.atomic_io import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as temporary: temporary.write_text('theirs')\n"
    )
    with atomic_write(tmp_path / "a") as temporary:
        temporary.write_text("ours")
        assert subprocess.run([sys.executable, "-c", program, tmp_path / "b"], timeout=60).returncode == 0
    assert {name: (tmp_path / name).read_text() for name in os.listdir(tmp_path)} == {"a": "ours", "b": "theirs"}


def test_a_temporary_file_that_another_process_removes_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed = []
    lock = fcntl.flock

    def lock_too_late(descriptor: int, operation: int) -> None:
        if not removed:
            removed.extend(os.listdir(tmp_path))
            (tmp_path / removed[0]).unlink()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", lock_too_late)
    with atomic_write(tmp_path / "a") as temporary:
        temporary.write_text("x")
    assert len(removed) == 1 and {name: (tmp_path / name).read_text() for name in os.listdir(tmp_path)} == {"a": "x"}


def test_a_link_with_the_name_of_a_temporary_file_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can know the random part of the name; if they do, nothing is written."""
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".a.0123abcd.product-vqa").symlink_to(tmp_path / "mine")
    monkeypatch.setattr(secrets, "token_hex", lambda num_bytes: "0123abcd")
    with pytest.raises(FileExistsError), atomic_write(tmp_path / "a") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "mine").read_text() == "mine" and not (tmp_path / "a").exists()


def test_a_link_that_somebody_put_there_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    for name in ("calibration.json", ".calibration.json.part"):
        (tmp_path / name).symlink_to(tmp_path / "mine")
    with atomic_write(tmp_path / "calibration.json") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "calibration.json").read_text() == "new" and not (tmp_path / "calibration.json").is_symlink()


def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with atomic_write(tmp_path / "atomic") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


HOLD = (
    "import os, sys, time; from pathlib import Path; from product_vqa.atomic_io import one_writer\n"
    "with one_writer(Path(sys.argv[1]), argument='output'):\n"
    "    if os.fork():\n"  # a worker process, which outlives the kill for a moment
    "        print('held', flush=True)\n"
    "    time.sleep(5)\n"
)


def test_one_process_writes_at_a_time_and_a_kill_frees_the_lock_at_once(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "out"], stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    with (
        pytest.raises(InputError, match=rf"^`output` {tmp_path}/out: another process is writing it; wait until"),
        one_writer(tmp_path / "out", argument="output"),
    ):
        pass
    holder.kill()
    holder.wait(timeout=30)
    with one_writer(tmp_path / "out", argument="output"):
        pass
    assert not os.listdir(tmp_path)


def test_a_name_that_is_too_long_for_a_lock_file_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"cannot be locked \(File name too long\); choose another name$"),
        one_writer(tmp_path / ("x" * 250), argument="output"),
    ):
        pass
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_a_lock_file_that_is_something_else_is_one_line(tmp_path: Path, kind: str) -> None:
    lock_file = tmp_path / ".out.lock"
    if kind == "link":
        (tmp_path / "mine").write_text("mine")
        lock_file.symlink_to(tmp_path / "mine")
    else:
        lock_file.mkdir()
    with (
        pytest.raises(InputError, match=rf"^`output` {tmp_path}/out: {lock_file} cannot be locked .*; remove it"),
        one_writer(tmp_path / "out", argument="output"),
    ):
        pass
    assert os.path.lexists(lock_file)
    assert kind != "link" or (tmp_path / "mine").read_text() == "mine"


def without_locks(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Refuse locks as some network file systems do."""

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    without_locks(monkeypatch, number)
    with one_writer(tmp_path / "out", argument="output"):
        assert os.listdir(tmp_path) == [".out.lock"]
        with one_writer(tmp_path / "out", argument="output"):  # as in another process, which ends first
            pass
        with atomic_write(tmp_path / "out") as temporary:
            temporary.write_text("x")
    warning = f"{tmp_path}/out: its file system has no locks: do not write it from two processes at once."
    assert caplog.record_tuples == [("product_vqa.atomic_io", logging.WARNING, warning)] * 2
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.filterwarnings("ignore:flock not supported")
def test_a_file_system_without_flock_is_locked_by_the_existence_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_locks(monkeypatch, errno.ENOSYS)
    with (
        one_writer(tmp_path / "out", argument="output"),
        pytest.raises(InputError, match=rf"^`output` {tmp_path}/out: another process is writing it; wait until"),
        one_writer(tmp_path / "out", argument="output"),
    ):
        pass
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (errno.EIO, r"{lock_file}: Input/output error; check the disk and its free space, and rerun the same command"),
        (errno.EINVAL, r"`output` {file}: {lock_file} cannot be locked \(Invalid argument\); remove it"),
    ],
)
def test_a_lock_that_fails_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, line: str
) -> None:
    without_locks(monkeypatch, number)
    expected = line.format(file=tmp_path / "out", lock_file=tmp_path / ".out.lock")
    with pytest.raises(InputError, match=f"^{expected}$"), one_writer(tmp_path / "out", argument="output"):
        pass


def test_a_folder_is_restored_after_a_kill_between_the_two_renames(tmp_path: Path) -> None:
    folder_with(tmp_path / ".dataset.old", "earlier")
    restore_folder(tmp_path / "dataset")
    assert (tmp_path / "dataset" / "data").read_text() == "earlier"
    folder_with(tmp_path / ".dataset.old", "much earlier")  # killed while it was being removed
    restore_folder(tmp_path / "dataset")
    assert (tmp_path / "dataset" / "data").read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]
