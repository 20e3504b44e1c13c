"""Each hostile CSV is read, or refused in one line that names it, in bounded time and memory."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dataset_builder import build, download, inspect
from dataset_builder.downloader import download as download_images
from dataset_builder.image_store import ImageStore
from product_vqa.errors import InputError
from product_vqa.http.fetching import FetchLimits
from tests.commands import ROOT, call
from tests.dataset_builder.files import jpeg, write_train_csv
from tests.dataset_builder.image_server import ImageServer
from tests.hostile.csvs import HostileCsv, hostile_csvs

MAX_MB = 1000
MAX_SECONDS = 20


def refusal(main: Callable[[], int | None], monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> str | None:
    try:
        call(main, monkeypatch, *arguments)
    except InputError as error:
        return str(error)
    return None


def check_csv(hostile: HostileCsv, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    monkeypatch.chdir(folder)
    file = hostile.write(folder)
    where = (hostile.kind, hostile.name)
    start = time.monotonic()
    message = refusal(inspect.main, monkeypatch, "--train_csv", file)
    assert hostile.is_taken in (None, message is None), (where, message)
    if message is not None:
        assert message.startswith("--train_csv ") and len(message) < 1000, (where, message)
        if hostile.kind != "file name":
            assert str(file) in message and message.isprintable(), (where, message)
        for main, arguments in ((build.main, ["--output_dir", folder / "out"]), (download.main, [])):
            assert refusal(main, monkeypatch, "--train_csv", file, "--image_store", folder / "store", *arguments), (
                where
            )
        assert not (folder / "out").exists() and not (folder / "store").exists(), where
    else:
        (folder / "images").mkdir()
        (folder / "images" / "a.jpg").write_bytes(jpeg())
        message = refusal(
            build.main, monkeypatch,
            "--train_csv", file, "--image_dir", folder / "images", "--output_dir", folder / "out",
        ) or ""  # fmt: skip
        assert message.isprintable() and len(message) < 1000, (where, message)
    assert time.monotonic() - start < MAX_SECONDS, where


@pytest.mark.slow
def test_hostile_csvs_are_read_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = [hostile for hostile in hostile_csvs() if hostile.kind != "bomb"][::50]
    for number, hostile in enumerate(chosen):
        check_csv(hostile, tmp_path / str(number), monkeypatch)


@pytest.mark.faults
def test_each_hostile_csv_is_read_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    csvs = hostile_csvs()
    assert len({(hostile.kind, hostile.name) for hostile in csvs}) == len(csvs) >= 200
    for number, hostile in enumerate(csvs):
        if hostile.kind != "bomb":  # those take a while, and have a process of their own below
            check_csv(hostile, tmp_path / str(number), monkeypatch)


def run_inspect(file: Path) -> tuple[int, str, float]:
    """The exit code, stderr and peak memory of `inspect`, in a process of its own."""
    program = (
        "import atexit, runpy\n"
        "from benchmarks.memory import peak_bytes\n"
        "atexit.register(lambda: print(peak_bytes()))\n"
        "runpy.run_module('dataset_builder.inspect', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--train_csv", str(file)], cwd=ROOT, capture_output=True, text=True
    )
    return done.returncode, done.stderr, int(done.stdout.split()[-1]) / 1024**2


BOMBS = [hostile for hostile in hostile_csvs() if hostile.kind == "bomb"]


@pytest.mark.faults
@pytest.mark.parametrize("hostile", BOMBS, ids=[hostile.name for hostile in BOMBS])
def test_a_bomb_takes_bounded_memory(tmp_path: Path, hostile: HostileCsv) -> None:
    file = hostile.write(tmp_path)
    code, error, megabytes = run_inspect(file)
    assert code == 2 and error.startswith(f"error: --train_csv {file}") and error.count("\n") == 1
    assert megabytes < MAX_MB


@pytest.mark.faults
def test_a_line_of_a_gigabyte_takes_little_memory(tmp_path: Path) -> None:
    file = tmp_path / "train.csv"
    with file.open("wb") as stream:
        for _ in range(1024):
            stream.write(b"x" * 1024**2)
    small = tmp_path / "small.csv"
    small.write_text("image_link\n")
    *_, without_it = run_inspect(small)
    code, error, megabytes = run_inspect(file)
    assert (code, error) == (2, f"error: --train_csv {file}, line 1: has more than 1048576 bytes; is it a CSV?\n")
    assert megabytes < without_it + 50


HOSTILE_URLS = [
    "", " ", "a", "://", "http://", "http:///", "http://[", "http://[::1", "http://h:99999/", "http://h:-1/",
    "http://h:x/",
    "ftp://h/a", "file:///etc/passwd", "javascript:alert(1)", "data:,x", "http://u:p@h/a.jpg", "http://h/a\nb.jpg",
    "http://h/\r\nHost: x", "http://h/\0.jpg".replace("\0", "%00\x01"), "http://h/\x1b[2J", "http://\u202e/",
    "http://.../",
    "http://a" + "b" * 64 + "/", "http://" + "a." * 2000, "http://h/" + "a" * 8000, "HTTP://\x7f/", "http://%00/",
    "\ufeffhttp://h/a.jpg", "http://\u2028/", "http://h/\u2029", "//h/a.jpg", "../../etc/passwd", "http://1.2.3.4.5/",
]  # fmt: skip


def test_a_hostile_url_costs_its_own_row_only(
    server: ImageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(download_images.__kwdefaults__, "limits", FetchLimits(num_attempts=1))  # type: ignore[arg-type]
    server.answers = {f"/{number}.jpg": jpeg(number) for number in range(3)}
    good = [server.url + path for path in server.answers]
    train_csv = write_train_csv(tmp_path / "train.csv", [*HOSTILE_URLS, *good])
    arguments: list[str | Path] = ["--train_csv", train_csv, "--image_store", tmp_path / "store"]
    call(download.main, monkeypatch, *arguments, "--allow_private_hosts")
    failures = ImageStore(tmp_path / "store").failures([*(url.strip() for url in HOSTILE_URLS), *good])
    assert set(failures) == {url.strip() for url in HOSTILE_URLS}
    assert all(reason.isprintable() and len(reason) <= 300 for reason in failures.values())
