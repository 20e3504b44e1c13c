import hashlib
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from dataset_builder import download
from dataset_builder.image_store import ImageStore
from product_vqa.errors import InputError
from tests.commands import call, run_module
from tests.dataset_builder.files import jpeg, write_train_csv
from tests.dataset_builder.image_server import ImageServer, drip_headers, send, slowly, status

FAULTS = pytest.mark.faults


def test_images_are_resized_when_they_are_stored_and_a_store_has_one_size(
    server: ImageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["/a.jpg"] = jpeg(1, size=(900, 600))
    train_csv = write_train_csv(tmp_path / "train.csv", [f"{server.url}/a.jpg"])
    arguments: list[str | Path] = ["--train_csv", train_csv, "--allow_private_hosts"]
    sizes = {}
    options_by_name: dict[str, list[str]] = {"448": [], "100": ["--image_size", "100"], "0": ["--image_size", "0"]}
    for name, options in options_by_name.items():
        call(download.main, monkeypatch, *arguments, "--image_store", tmp_path / name, *options)
        store = ImageStore(tmp_path / name)
        data = store.read(f"{server.url}/a.jpg")
        sizes[name] = Image.open(io.BytesIO(data)).size
        state = store.state(f"{server.url}/a.jpg")
        assert (state.width, state.height, state.num_bytes) == (*sizes[name], len(data))
    assert sizes == {"448": (448, 299), "100": (100, 67), "0": (900, 600)}
    assert data == jpeg(1, size=(900, 600))
    with pytest.raises(InputError, match="stored with --image_size 100, not 448"):
        call(download.main, monkeypatch, *arguments, "--image_store", tmp_path / "100")


@pytest.mark.slow
def test_a_killed_download_resumes(server: ImageServer, tmp_path: Path) -> None:
    names = [f"/{number}.jpg" for number in range(60)]
    server.answers |= {name: slowly(jpeg(number), pause_s=0.05) for number, name in enumerate(names)}
    urls = [server.url + name for name in names]
    train_csv = write_train_csv(tmp_path / "train.csv", urls)
    store = tmp_path / "store"
    arguments: list[str | Path] = [
        "--train_csv",
        train_csv,
        "--image_store",
        store,
        "--connections",
        "4",
        "--allow_private_hosts",
    ]
    command = [sys.executable, "-m", "dataset_builder.download", *map(str, arguments)]

    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 30
    while server.requests.total() < 20 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    missing = set(ImageStore(store).failures(urls))
    assert 10 <= 60 - len(missing) < 60
    complete = [file for file in store.glob("files/*/*") if file.suffix != ".part"]
    assert len(complete) >= 60 - len(missing)
    assert [hashlib.sha256(file.read_bytes()).hexdigest() for file in complete] == [file.name for file in complete]
    complete[0].with_name(f"{'a' * 64}.1234.part").write_bytes(b"half of it")  # as a kill during a write leaves it
    requests = server.requests.copy()

    done = run_module("dataset_builder.download", *arguments)
    assert "60 of 60 URLs have an image" in done.stderr
    fetched_twice = {name for name in names if server.requests[name] > requests[name] > 0}
    assert {server.url + name for name in fetched_twice} <= missing
    assert sum(server.requests.values()) == requests.total() + len(missing)
    assert not list(store.glob("files/*/*.part"))


def test_a_download_that_gets_nothing_fails(
    server: ImageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_csv = write_train_csv(tmp_path / "train.csv", [f"{server.url}/a.jpg"])
    with pytest.raises(InputError, match="none of the 1 URLs gave an image"):
        call(download.main, monkeypatch, "--train_csv", train_csv, "--image_store", tmp_path / "store")
    assert "private_address" in (tmp_path / "store" / "failed.csv").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "trouble", ["slow headers", *(pytest.param(name, marks=FAULTS) for name in ("pause", "silence", "large images"))]
)
def test_a_stopped_download_ends_at_once_whatever_its_threads_wait_for(
    server: ImageServer, tmp_path: Path, trouble: str
) -> None:
    large = jpeg(1, size=(4000, 4000)) if trouble == "large images" else b""
    server.answers = {
        f"/{number}.jpg": {
            "pause": status(429, Retry_After="200"),
            "slow headers": drip_headers,
            "silence": slowly(b"", pause_s=60),
            "large images": lambda handler: send(handler, large),
        }[trouble]
        for number in range(100)
    }
    train_csv = write_train_csv(tmp_path / "train.csv", [server.url + name for name in server.answers])
    arguments = ["--train_csv", train_csv, "--image_store", tmp_path / "store", "--allow_private_hosts"]
    process = subprocess.Popen(
        [sys.executable, "-m", "dataset_builder.download", *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    deadline = time.monotonic() + 60
    while server.requests.total() < (1 if trouble == "pause" else 20) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.requests
    time.sleep(0.5)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    assert time.monotonic() - start < 5  # half a second on a machine that does nothing else
    assert process.returncode == 130
    assert error.splitlines()[-1] == "Interrupted. Rerun the same command to resume."
    assert "Traceback" not in error
