import csv
import hashlib
import io
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dataset_builder import downloader
from dataset_builder.downloader import fill
from dataset_builder.fetching import Fetcher, FetchLimits
from dataset_builder.image_preparation import prepare_picture
from dataset_builder.image_store import ImageStore
from dataset_builder.options import FetchOptions
from product_vqa.errors import InputError
from tests.commands import in_namespace
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
from tests.dataset_builder.test_fetching import drip, endless, packed, status
from tests.dataset_builder.test_image_preparation import huge_png

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
    states = [store.state(link) for link in links]
    assert [state.status for state in states] == [
        "stored", "stored", "refused", "stored", "refused", "refused", "stored",
    ]  # fmt: skip
    assert [state.http_status for state in states] == [200, 200, 404, 200, 200, 200, 200]
    assert [state.tries for state in states] == [1, 1, 1, 2, 1, 1, 2]
    assert (states[0].num_bytes, states[0].width, states[0].height) == (len(jpeg(1)), 48, 32)
    assert states[0].phash == states[1].phash != states[3].phash
    assert states[3].seconds >= 0.25  # it waited
    assert all(state.finished_at.startswith("20") for state in states)

    requests = server.requests.copy()
    assert requests == {f"/{name}.jpg": 2 if name in ("shaky", "cut") else 1 for name in names}
    fill(store, links, OPTIONS)
    assert server.requests == requests  # neither the stored nor the failed


def test_what_failed_is_tried_again_when_asked(server: PictureServer, tmp_path: Path):
    links = [f"{server.url}/{name}.jpg" for name in "ab"]
    server.answers["/a.jpg"] = jpeg(1)
    store = ImageStore(tmp_path)
    before = store.fingerprint()
    server.answers["/b.jpg"] = lambda handler: send(handler, b"go away", status=403)
    fill(store, links, OPTIONS)
    server.answers["/b.jpg"] = jpeg(2)
    first = store.fingerprint()
    assert fill(store, links, OPTIONS) == {"http_403": 1}
    assert server.requests == {"/a.jpg": 1, "/b.jpg": 1}
    again = FetchOptions(connections=4, allow_private_hosts=True, retry_failed=True)
    assert not fill(store, links, again)
    assert server.requests == {"/a.jpg": 1, "/b.jpg": 2}
    assert len({before, first, store.fingerprint()}) == 3
    assert (tmp_path / "failed.csv").read_text().splitlines() == [
        "image_link,reason,status,http_status,tries,seconds,finished_at"
    ]


def test_what_cannot_succeed_is_not_tried_again(server: PictureServer, tmp_path: Path):
    server.answers |= {"/page.jpg": b"<html>", "/gone.jpg": lambda handler: send(handler, b"", status=410)}
    links = [f"{server.url}/page.jpg", f"{server.url}/gone.jpg", "ftp://shop.example/a.jpg"]
    store = ImageStore(tmp_path)
    again = FetchOptions(connections=4, allow_private_hosts=True, retry_failed=True)
    for options in (OPTIONS, again, again):
        assert fill(store, links, options) == {"not_a_picture": 1, "http_410": 1, "bad_link": 1}
    assert server.requests == {"/page.jpg": 1, "/gone.jpg": 1}


def test_pictures_are_fitted_when_they_enter_a_store_and_a_store_keeps_to_one_size(
    server: PictureServer, tmp_path: Path, monkeypatch
):
    server.answers["/a.jpg"] = jpeg(1, size=(900, 600))
    train_csv = write_csv(tmp_path / "train.csv", TRAIN_COLUMNS, [[f"{server.url}/a.jpg", 1, "width", "1 inch"]])
    arguments = ["--train_csv", train_csv, "--allow_private_hosts"]
    sizes = {}
    for name, options in {"448": [], "100": ["--image_size", 100], "0": ["--image_size", 0]}.items():
        run_here(monkeypatch, "download", *arguments, "--image_store", tmp_path / name, *options)
        store = ImageStore(tmp_path / name)
        data = store.read(f"{server.url}/a.jpg")
        sizes[name] = Image.open(io.BytesIO(data)).size
        state = store.state(f"{server.url}/a.jpg")
        assert (state.width, state.height, state.num_bytes) == (*sizes[name], len(data))
    assert sizes == {"448": (448, 299), "100": (100, 67), "0": (900, 600)}
    assert data == jpeg(1, size=(900, 600))
    with pytest.raises(InputError, match="stored with --image_size 100, not 448"):
        run_here(monkeypatch, "download", *arguments, "--image_store", tmp_path / "100")


# A URL as somebody typed or exported it (URL is the server's), and the path that the server is asked for.
SPELT = [
    ("URL/a.jpg ", "/a.jpg"),
    ("  URL/a.jpg", "/a.jpg"),
    ("URL/a.jpg\r", "/a.jpg"),
    ("\tURL/a.jpg\n", "/a.jpg"),
    ("\u00a0URL/a.jpg\u3000", "/a.jpg"),
    ("HTTP://HOST/a.jpg", "/a.jpg"),
    ("URL/größe.jpg", "/gr%C3%B6%C3%9Fe.jpg"),
    ("URL/two words.jpg", "/two%20words.jpg"),
    ("URL/two%20words.jpg", "/two%20words.jpg"),
    ("URL/a.jpg?size=large&x=ü#top", "/a.jpg?size=large&x=%C3%BC"),
    ("URL/日本.jpg", "/%E6%97%A5%E6%9C%AC.jpg"),
]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_spaces_and_line_ends_around_a_url_are_no_part_of_it(
    server: PictureServer, tmp_path: Path, monkeypatch, line_end: str
):
    urls = [url.replace("URL", server.url).replace("HOST", server.url.partition("//")[2]) for url, _ in SPELT]
    server.answers |= {path: jpeg(number) for number, (_, path) in enumerate(SPELT)}
    frame = pd.DataFrame({"image_link": urls, "group_id": 1, "entity_name": "width", "entity_value": "1 inch"})
    frame.to_csv(
        tmp_path / "train.csv", index=False, lineterminator=line_end, encoding="utf-8-sig", quoting=csv.QUOTE_ALL
    )
    arguments = ["--train_csv", tmp_path / "train.csv", "--image_store", tmp_path / "store", "--allow_private_hosts"]
    run_here(monkeypatch, "build", *arguments, "--validation_size", 0, "--output_dir", tmp_path / "out")
    assert set(server.requests) == {path for _, path in SPELT}
    assert not (tmp_path / "store" / "failed.csv").read_text().splitlines()[1:]
    published = pq.read_table(tmp_path / "out" / "rows" / "train.parquet")["image_link"].to_pylist()
    assert published == [url.strip() for url in urls]


def test_a_server_of_every_trouble_leaves_every_link_with_its_reason(server: PictureServer, tmp_path: Path):
    """One run over all of it, with short patience; what is whole arrives whole."""
    good = {f"/good{number}.jpg": jpeg(number, size=(500, 300)) for number in range(20)}
    bomb = packed(bytes(64 * 1024**2))
    whole = jpeg(50)
    answers = {
        "/404.jpg": (status(404), "refused", "http_404", 404, 1),
        "/410.jpg": (status(410), "refused", "http_410", 410, 1),
        "/403.jpg": (status(403), "failed", "http_403", 403, 1),
        "/429.jpg": (first_then(status(429, Retry_After="1"), whole), "stored", "", 200, 2),
        "/500.jpg": (first_then(status(500), whole), "stored", "", 200, 2),
        "/always500.jpg": (status(500), "failed", "http_500", 500, 2),
        "/silence.jpg": (slowly(whole, pause_s=3), "failed", "timeout: ReadTimeoutError", None, 2),
        "/cut.jpg": (cut, "failed", "connection: ProtocolError", None, 2),
        "/truncated.jpg": (whole[:-300], "refused", "image_unreadable: OSError", 200, 1),
        "/html.jpg": (b"<!DOCTYPE html><title>Robot check</title>", "refused", "not_a_picture", 200, 1),
        "/shorter.jpg": (length(whole, 300), "refused", "image_unreadable", 200, 1),
        "/longer.jpg": (length(whole, len(whole) + 9), "failed", "connection: ProtocolError", None, 2),
        "/loop.jpg": (status(302, Location="/loop.jpg"), "refused", "bad_answer: more than 5", None, 1),
        "/metadata.jpg": (
            status(302, Location="http://169.254.169.254/latest/meta-data"),
            "failed", "private_address: 169.254.169.254", None, 1,
        ),
        "/huge.png": (huge_png(50_000, 50_000), "refused", "too_many_pixels", 200, 1),
        "/bomb.jpg": (bomb, "refused", "too_many_bytes", 200, 1),
        "/endless.jpg": (endless, "refused", "too_many_bytes", 200, 1),
        "/drip.jpg": (drip, "failed", "timeout: not complete", 200, 2),
    }  # fmt: skip
    server.answers |= good | {path: answer for path, (answer, *_) in answers.items()}
    links = [server.url + path for path in [*good, *answers]]
    random.Random(0).shuffle(links)
    # The server itself is at a private address, which the command's flag would allow, and every other with it.
    program = (
        "import sys\n"
        "from dataset_builder import fetching\n"
        "is_public = fetching._is_public\n"
        "fetching._is_public = lambda address: address == '127.0.0.1' or is_public(address)\n"
        "fetching.Fetcher.__init__.__kwdefaults__['limits'] = fetching.FetchLimits("
        "read_timeout_s=1.5, whole_timeout_s=2, num_attempts=2, backoff_s=0.05, max_bytes=4 * 1024**2)\n"
        "from dataset_builder.download import main\n"
        "from product_vqa.cli import run\n"
        "run(main)\n"
    )
    train_csv = write_csv(tmp_path / "train.csv", TRAIN_COLUMNS, [[link, 1, "width", "1 inch"] for link in links])
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program, "--train_csv", train_csv, "--image_store", tmp_path / "store"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 30
    assert "22 of 38 links have a picture" in done.stderr
    store = ImageStore(tmp_path / "store")
    checked = 0
    for path, (_, *expected) in answers.items():
        state = store.state(server.url + path)
        reason = state.reason[: len(expected[1])]
        assert [state.status, reason, state.http_status, state.tries] == expected, (path, state)
        assert server.requests[path] == (6 if path == "/loop.jpg" else state.tries), path
        checked += 1
    assert checked == 18
    for path, picture in good.items():
        expected = prepare_picture(picture, image_size=448)
        assert store.read(server.url + path) == expected.data
        assert server.requests[path] == 1


def length(body: bytes, promised: int):
    """Promises another number of bytes than it sends, and hangs up."""

    def answer(handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(promised))
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True

    return answer


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


def closed_port() -> str:
    """A URL of this machine where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


def write_urls(file: Path, urls: list[str]) -> Path:
    return write_csv(file, TRAIN_COLUMNS, [[url, 1, "width", f"{n + 1} inch"] for n, url in enumerate(urls)])


def store_arguments(folder: Path) -> list[object]:
    return ["--train_csv", folder / "train.csv", "--image_store", folder / "store", "--allow_private_hosts"]


def test_without_a_network_a_build_stops_within_seconds_and_the_next_one_fetches_everything(
    server: PictureServer, tmp_path: Path
):
    """5,000 URLs to a closed port, then the same command while a server listens there."""
    port = int(server.url.rpartition(":")[2])
    server.close()
    urls = [f"{server.url}/{number}.jpg" for number in range(5000)]
    write_urls(tmp_path / "train.csv", urls)
    arguments = [*store_arguments(tmp_path), "--output_dir", tmp_path / "out"]
    start = time.monotonic()
    done = run_command("build", *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert time.monotonic() - start < 20
    assert "error: no network: none of 1 hosts can be reached" in done.stderr and "Traceback" not in done.stderr
    assert set(ImageStore(tmp_path / "store").failures(urls[::100]).values()) == {"not_fetched"}
    assert not (tmp_path / "out").exists()

    listening = PictureServer(port=port)
    listening.answers = dict.fromkeys((f"/{number}.jpg" for number in range(5000)), jpeg(1))
    try:
        store = ImageStore(tmp_path / "store")
        assert not fill(store, urls[:200], OPTIONS)  # those of the first run, without retry_failed
        assert listening.requests.total() == 200
    finally:
        listening.close()


NO_NETWORK = {
    "refused": lambda: f"{closed_port()}/{{}}.jpg",
    "no_such_host": lambda: "http://no-such-host.invalid/{}.jpg",
    "many_hosts": lambda: "http://host{}.invalid/a.jpg",
    "no_route": lambda: "http://[100::1]/{}.jpg",
    "https": lambda: closed_port().replace("http:", "https:") + "/{}.jpg",
}


@pytest.mark.parametrize("trouble", NO_NETWORK)
def test_nothing_is_recorded_against_urls_that_no_network_led_to(tmp_path: Path, monkeypatch, trouble: str):
    monkeypatch.setattr(downloader, "MAX_CHECK_S", 0)
    pattern = NO_NETWORK[trouble]()
    urls = [pattern.format(number) for number in range(20)] + ["", "ftp://shop.example/a.jpg"]
    store = ImageStore(tmp_path)
    start = time.monotonic()
    with pytest.raises(InputError, match=r"no network: none of \d+ hosts can be reached"):
        fill(store, urls, OPTIONS)
    assert time.monotonic() - start < 15
    assert set(store.failures(urls).values()) == {"not_fetched"}


def test_a_network_that_breaks_off_stops_the_run_and_records_nothing_against_what_was_not_reached(
    server: PictureServer, tmp_path: Path, monkeypatch
):
    monkeypatch.setitem(Fetcher.__init__.__kwdefaults__, "limits", FetchLimits(backoff_s=0.2))
    urls = [f"{server.url}/{number}.jpg" for number in range(300)]
    server.answers = dict.fromkeys((f"/{number}.jpg" for number in range(300)), jpeg(1))
    server.answers["/3.jpg"] = status(404)

    def hang_up(handler) -> None:
        """The last answer: no connection is taken from here on, and those that are open end."""
        server.answers = dict.fromkeys(server.answers, lambda handler: setattr(handler, "close_connection", True))
        server.close()
        send(handler, jpeg(2))

    server.answers["/60.jpg"] = hang_up
    store = ImageStore(tmp_path)
    with pytest.raises(InputError, match="no network: none of 1 hosts can be reached"):
        fill(store, urls, FetchOptions(connections=32, allow_private_hosts=True))
    failures = store.failures(urls)
    assert failures.pop(urls[3]) == "http_404"
    assert set(failures.values()) == {"not_fetched"}
    assert 150 < len(failures) < 260


def test_a_host_that_is_down_costs_its_own_urls_only_until_it_is_up_again(
    server: PictureServer, tmp_path: Path, monkeypatch
):
    monkeypatch.setitem(Fetcher.__init__.__kwdefaults__, "limits", FetchLimits(backoff_s=0.2))
    down = PictureServer()
    port = int(down.url.rpartition(":")[2])
    down.close()
    # Sorted by host, the one that is down first: the other one is still asked, and says that there is a network.
    urls = [f"{down.url}/{number}.jpg" for number in range(400)]
    urls += [f"{server.url}/{number}.jpg" for number in range(9)]
    server.answers = dict.fromkeys((f"/{number}.jpg" for number in range(9)), jpeg(1))
    store = ImageStore(tmp_path)
    start = time.monotonic()
    assert fill(store, urls, FetchOptions(connections=16, allow_private_hosts=True)) == {"connection": 400}
    assert time.monotonic() - start < 15  # four attempts for each would take 35 s
    assert fill(store, urls, OPTIONS) == {"connection": 400}
    requests = server.requests.copy()

    back = PictureServer(port=port)
    back.answers = dict.fromkeys((f"/{number}.jpg" for number in range(400)), jpeg(2))
    assert not fill(store, urls, OPTIONS)
    back.close()
    assert server.requests == requests


def test_private_addresses_are_fetched_once_they_are_allowed(server: PictureServer, tmp_path: Path):
    server.answers["/a.jpg"] = jpeg(1)
    store = ImageStore(tmp_path)
    assert fill(store, [f"{server.url}/a.jpg"], FetchOptions()) == {"private_address": 1}
    assert not fill(store, [f"{server.url}/a.jpg"], OPTIONS)


def test_a_login_page_in_place_of_every_image_stops_the_run(server: PictureServer, tmp_path: Path):
    page = b"<!DOCTYPE html><title>Welcome to the hotel</title>"
    server.answers = {f"/{number}.jpg": page for number in range(100)}
    urls = [f"{server.url}/{number}.jpg" for number in range(100)]
    store = ImageStore(tmp_path)
    with pytest.raises(InputError, match=r"none of the first 32 links gave a picture, .* the network wants a login"):
        fill(store, urls, OPTIONS)
    assert set(store.failures(urls).values()) == {"not_fetched"}
    server.answers = {f"/{number}.jpg": page if number % 10 else jpeg(number) for number in range(100)}
    assert fill(store, urls, OPTIONS) == {"not_a_picture": 90}


def test_a_build_without_downloading_takes_what_the_store_holds(server: PictureServer, tmp_path: Path, monkeypatch):
    server.answers["/0.jpg"] = jpeg(0)
    urls = [f"{server.url}/0.jpg", f"{closed_port()}/1.jpg"]
    write_urls(tmp_path / "train.csv", urls)
    fill(ImageStore(tmp_path / "store"), urls[:1], OPTIONS)
    options = ["--download", "false", "--validation_size", 0, "--output_dir", tmp_path / "out"]
    run_here(monkeypatch, "build", *store_arguments(tmp_path), *options)
    assert pq.read_table(tmp_path / "out" / "rows" / "train.parquet")["image_link"].to_pylist() == urls[:1]
    assert ",not_fetched," in (tmp_path / "out" / "left_out.csv").read_text().replace(
        "row,not_fetched", ",not_fetched"
    )


BUILD_AND_LOAD = """
import sys
from dataset_builder import ProductVqa
from dataset_builder.build import main
from product_vqa.cli import InputError
store, train_csv, lacking_csv, folder = sys.argv[1:]
def build(train_csv, *options):
    sys.argv = ["build", "--train_csv", train_csv, "--image_store", store, "--validation_size", "0", *options]
    try:
        main()
    except InputError as error:
        print(error)
build(train_csv, "--output_dir", f"{folder}/out")
builder = ProductVqa(train_csv=train_csv, image_store=store, validation_size=0, cache_dir=f"{folder}/cache")
builder.download_and_prepare()
print(builder.as_dataset()["train"].num_rows, "rows loaded")
build(lacking_csv, "--output_dir", f"{folder}/lacking")
build(lacking_csv, "--output_dir", f"{folder}/lacking", "--download", "false")
"""


@pytest.mark.parametrize("state", ["closed", "killed"])
def test_a_complete_store_on_a_read_only_disk_is_built_from(server: PictureServer, tmp_path: Path, state: str):
    server.answers = {f"/{number}.jpg": jpeg(number) for number in range(5)}
    urls = [f"{server.url}/{number}.jpg" for number in range(6)]  # the last one is a 404, which is known
    store = ImageStore(tmp_path / "store")
    assert fill(store, urls, OPTIONS) == {"http_404": 1}
    if state == "killed":  # all of it is in a log that was not yet taken into the table
        killed = ImageStore(tmp_path / "killed")
        for url in urls:
            killed.record(store.state(url))
        shutil.copytree(tmp_path / "killed", tmp_path / "store", dirs_exist_ok=True)
        assert (tmp_path / "store" / "state.sqlite-wal").stat().st_size
    else:
        store._state.close()
        assert not list((tmp_path / "store").glob("*-wal"))
    lacking = [*urls, f"{server.url}/lacking.jpg"]
    files = [write_urls(tmp_path / f"{name}.csv", rows) for name, rows in (("train", urls), ("lacking", lacking))]
    before = sorted(tmp_path.joinpath("store").rglob("*"))
    done = in_namespace(
        f"mount --bind {tmp_path}/store {tmp_path}/store; mount -o remount,ro,bind {tmp_path}/store",
        [sys.executable, "-c", BUILD_AND_LOAD, tmp_path / "store", *files, tmp_path],
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "train: 5 rows",
        f"written: {tmp_path}/out",
        "5 rows loaded",
        f"--image_store {tmp_path}/store: cannot be written, and lacks 1 of 7 pictures, like that of {lacking[-1]}; "
        "copy it to a folder that can be written, or build with --download false from what it holds",
        "train: 5 rows",
        f"written: {tmp_path}/lacking",
    ]
    assert sorted(tmp_path.joinpath("store").rglob("*")) == before


def test_a_store_is_complete_for_whoever_copies_its_files_and_its_table(server: PictureServer, tmp_path: Path):
    server.answers = {f"/{number}.jpg": jpeg(number) for number in range(5)}
    urls = [f"{server.url}/{number}.jpg" for number in range(5)]
    store = ImageStore(tmp_path / "store")
    fill(store, urls, OPTIONS)
    shutil.copytree(store.folder, tmp_path / "copied", ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    assert not ImageStore(tmp_path / "copied").failures(urls)


def test_a_store_of_somebody_else_is_read_without_writing_to_it(server: PictureServer, tmp_path: Path, monkeypatch):
    server.answers["/0.jpg"] = jpeg(0)
    url = f"{server.url}/0.jpg"
    fill(ImageStore(tmp_path), [url], OPTIONS)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)  # root may write anywhere
    store = ImageStore(tmp_path)
    assert store.read(url) == jpeg(0)
    assert not fill(store, [url], OPTIONS)
    with pytest.raises(InputError, match="cannot be written, and lacks 1 of 2 pictures"):
        fill(store, [url, f"{server.url}/1.jpg"], OPTIONS)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before
    (tmp_path / "state.sqlite").unlink()
    with pytest.raises(InputError, match="not writable"):
        ImageStore(tmp_path)


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
    process.wait(timeout=30)
    links = [row[0] for row in rows]
    missing = set(ImageStore(store).failures(links))
    assert 10 <= 60 - len(missing) < 60
    whole = [file for file in store.glob("files/*/*") if file.suffix != ".part"]
    assert len(whole) >= 60 - len(missing)
    assert [sha256(file.read_bytes()) for file in whole] == [file.name for file in whole]
    whole[0].with_name("half.1234.part").write_bytes(b"half of it")  # as a kill in the midst of writing leaves it
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


def test_a_stopped_download_ends_at_once_though_a_host_asked_for_a_pause(server: PictureServer, tmp_path: Path):
    server.answers["/a.jpg"] = status(429, Retry_After="200")
    train_csv = write_csv(tmp_path / "train.csv", TRAIN_COLUMNS, [[f"{server.url}/a.jpg", 1, "width", "1 inch"]])
    arguments = ["--train_csv", train_csv, "--image_store", tmp_path / "store", "--allow_private_hosts"]
    command = [sys.executable, "-m", "dataset_builder.download", *map(str, arguments)]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    deadline = time.monotonic() + 60
    while not server.requests and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.requests
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Interrupted. Rerun the same command to resume." in error
