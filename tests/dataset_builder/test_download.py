import csv
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dataset_builder.filling import fill
from dataset_builder.image_store import ImageStore
from dataset_builder.options import FetchOptions
from product_vqa.command import InputError
from tests.dataset_builder.conftest import (
    TRAIN_COLUMNS,
    PictureServer,
    cut,
    first_then,
    jpeg,
    run_command,
    run_here,
    send,
    slowly,
    write_csv,
)

OPTIONS = FetchOptions(connections=4, allow_private_hosts=True)


def test_every_link_is_fetched_once_and_every_failure_has_its_reason(server: PictureServer, tmp_path: Path):
    server.answers |= {
        "/good.jpg": jpeg(1),
        "/twin.jpg": jpeg(1),
        "/shaky.jpg": first_then(lambda handler: send(handler, b"busy", status=500), jpeg(2)),
        "/page.jpg": b"<html>Robot check</html>",
        "/short.jpg": jpeg(3)[:-200],
        "/cut.jpg": first_then(cut, jpeg(4)),
    }
    names = ["good", "twin", "gone", "shaky", "page", "short", "cut"]
    links = [f"{server.url}/{name}.jpg" for name in names]
    store = ImageStore(tmp_path / "store")

    assert fill(store, links, OPTIONS) == {"http_404": 1, "not_a_picture": 1, "image_unreadable": 1}
    assert store.read(links[0]) == store.read(links[1]) == jpeg(1)
    assert store.read(links[3]) == jpeg(2)
    assert store.read(links[6]) == jpeg(4)
    digests = {hashlib.sha256(jpeg(seed)).hexdigest() for seed in (1, 2, 4)}
    assert {file.name for file in (tmp_path / "store" / "files").glob("*/*")} == digests
    with (tmp_path / "store" / "failed.csv").open(newline="") as stream:
        failed = {row["image_link"]: row["reason"] for row in csv.DictReader(stream)}
    assert set(failed) == {links[2], links[4], links[5]}
    assert failed[links[5]].startswith("image_unreadable: OSError: image file is truncated")

    requests = server.requests.copy()
    assert requests == {f"/{name}.jpg": 2 if name in ("shaky", "cut") else 1 for name in names}
    fill(store, links, OPTIONS)
    assert server.requests == requests  # neither the stored nor the failed


def test_what_failed_is_tried_again_when_asked(server: PictureServer, tmp_path: Path):
    links = [f"{server.url}/{name}.jpg" for name in "ab"]
    server.answers["/a.jpg"] = jpeg(1)
    store = ImageStore(tmp_path)
    before = store.fingerprint()
    fill(store, links, OPTIONS)
    server.answers["/b.jpg"] = jpeg(2)
    first = store.fingerprint()
    again = FetchOptions(connections=4, allow_private_hosts=True, retry_failed=True)
    assert not fill(store, links, again)
    assert server.requests == {"/a.jpg": 1, "/b.jpg": 2}
    assert len({before, first, store.fingerprint()}) == 3
    assert (tmp_path / "failed.csv").read_text().splitlines() == ["image_link,reason"]


def test_a_picture_whose_file_is_gone_or_cut_is_fetched_again(server: PictureServer, tmp_path: Path):
    links = [f"{server.url}/{name}.jpg" for name in "ab"]
    server.answers |= {"/a.jpg": jpeg(1), "/b.jpg": jpeg(2)}
    store = ImageStore(tmp_path)
    fill(store, links, OPTIONS)
    gone, cut_short = (tmp_path.joinpath("files", name[:2], name) for name in map(sha256, (jpeg(1), jpeg(2))))
    gone.unlink()
    cut_short.write_bytes(b"")
    assert store.failures(links) == dict.fromkeys(links, "not_fetched")
    assert not fill(store, links, OPTIONS)
    assert [store.read(link) for link in links] == [jpeg(1), jpeg(2)]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_two_processes_do_not_fill_one_store(tmp_path: Path):
    first, second = ImageStore(tmp_path), ImageStore(tmp_path)
    with first.filling(), pytest.raises(InputError, match="another process is filling it"):
        fill(second, ["http://127.0.0.1/a.jpg"], OPTIONS)


def test_a_broken_state_is_explained(tmp_path: Path):
    (tmp_path / "state.sqlite").write_bytes(b"not a database, but long enough to be taken for one" * 9)
    with pytest.raises(InputError, match=r"state\.sqlite cannot be used"):
        ImageStore(tmp_path)


def test_a_killed_download_goes_on_where_it_was(server: PictureServer, tmp_path: Path):
    names = [f"/{number}.jpg" for number in range(60)]
    server.answers |= {name: slowly(jpeg(number), pause_s=0.05) for number, name in enumerate(names)}
    rows = [[server.url + name, 1, "width", "1 inch"] for name in names]
    train_csv = write_csv(tmp_path / "train.csv", TRAIN_COLUMNS, rows)
    store = tmp_path / "store"
    arguments = ["--train_csv", train_csv, "--image_store", store, "--connections", 4, "--allow_private_hosts"]
    command = [sys.executable, "-m", "dataset_builder.download", *map(str, arguments)]

    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 30
    while server.requests.total() < 20 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    links = [row[0] for row in rows]
    missing = set(ImageStore(store).failures(links))
    assert 10 <= 60 - len(missing) < 60
    assert len(list(store.glob("files/*/*.part"))) + len(list(store.glob("files/*/*"))) >= 60 - len(missing)
    requests = server.requests.copy()

    done = run_command("download", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "60 of 60 links have a picture" in done.stderr
    fetched_twice = {name for name in names if server.requests[name] > requests[name] > 0}
    assert {server.url + name for name in fetched_twice} <= missing
    assert sum(server.requests.values()) == requests.total() + len(missing)
    assert not list(store.glob("files/*/*.part"))


def test_a_download_that_gets_nothing_fails(server: PictureServer, tmp_path: Path, monkeypatch):
    train_csv = write_csv(tmp_path / "train.csv", TRAIN_COLUMNS, [[f"{server.url}/a.jpg", 1, "width", "1 inch"]])
    with pytest.raises(InputError, match="none of the 1 links gave a picture"):
        run_here(monkeypatch, "download", "--train_csv", train_csv, "--image_store", tmp_path / "store")
    assert "private_address" in (tmp_path / "store" / "failed.csv").read_text()
