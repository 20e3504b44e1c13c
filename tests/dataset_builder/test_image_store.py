import gc
import hashlib
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dataset_builder import build
from dataset_builder.downloader import download
from dataset_builder.image_preparation import prepare_image
from dataset_builder.image_store import LOCK_FILE, ImageStore, Status, UrlState, count_reasons
from dataset_builder.options import FetchOptions
from dataset_builder.stored_image import StoredImage
from product_vqa.errors import InputError
from tests.commands import call, in_namespace
from tests.dataset_builder.files import jpeg, write_train_csv
from tests.dataset_builder.image_server import ImageServer

BUILD_AND_LOAD = """
import sys
from dataset_builder import ProductVqa
from dataset_builder.build import main
from product_vqa.cli import with_flags
from product_vqa.errors import InputError
store, train_csv, lacking_csv, folder = sys.argv[1:]
def build(train_csv, *options):
    sys.argv = ["build", "--train_csv", train_csv, "--image_store", store, "--validation_size", "0", *options]
    try:
        main()
    except InputError as error:
        print(with_flags(str(error)))
build(train_csv, "--output_dir", f"{folder}/out")
builder = ProductVqa(train_csv=train_csv, image_store=store, validation_size=0, cache_dir=f"{folder}/cache")
builder.download_and_prepare()
print(builder.as_dataset()["train"].num_rows, "rows loaded")
build(lacking_csv, "--output_dir", f"{folder}/lacking")
build(lacking_csv, "--output_dir", f"{folder}/lacking", "--download", "false")
"""


OPTIONS = FetchOptions(connections=4, allow_private_hosts=True)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_an_image_is_not_missing_because_too_many_files_are_open(server: ImageServer, tmp_path: Path) -> None:
    server.answers["/a.jpg"] = jpeg(1)
    url = f"{server.url}/a.jpg"
    download(ImageStore(tmp_path), [url], OPTIONS)
    store = ImageStore(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            store.find([url])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert store.find([url])[1] == {}


def test_an_image_whose_file_is_gone_or_cut_is_fetched_again(server: ImageServer, tmp_path: Path) -> None:
    urls = [f"{server.url}/{name}.jpg" for name in "ab"]
    server.answers |= {"/a.jpg": jpeg(1), "/b.jpg": jpeg(2)}
    store = ImageStore(tmp_path)
    download(store, urls, OPTIONS)
    gone, cut_short = (tmp_path.joinpath("files", name[:2], name) for name in map(sha256, (jpeg(1), jpeg(2))))
    gone.unlink()
    cut_short.write_bytes(b"")
    assert store.failures(urls) == dict.fromkeys(urls, "not_fetched")
    assert not download(store, urls, OPTIONS)
    assert [store.read(url) for url in urls] == [jpeg(1), jpeg(2)]


def garble(file: Path) -> None:
    file.write_bytes(bytes(byte ^ 1 for byte in file.read_bytes()))


def swap_two_bytes(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[100:102] = content[101:99:-1]
    file.write_bytes(content)


def zero(file: Path) -> None:
    """As some file systems leave a file after a power cut."""
    file.write_bytes(bytes(file.stat().st_size))


def link(file: Path) -> None:
    elsewhere = file.with_name("elsewhere")
    file.rename(elsewhere)
    file.symlink_to(elsewhere)


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def device(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


@pytest.mark.parametrize("is_online", [True, False])
@pytest.mark.parametrize("damage", [garble, swap_two_bytes, zero, link, pipe, device], ids=lambda one: one.__name__)
def test_what_is_not_the_stored_image_is_downloaded_again_and_never_published(
    server: ImageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None],
    is_online: bool,
) -> None:  # fmt: skip
    server.answers |= {f"/{name}.jpg": jpeg(number) for number, name in enumerate("ab")}
    urls = [f"{server.url}/{name}.jpg" for name in "ab"]
    download(ImageStore(tmp_path / "store"), urls, OPTIONS)
    (damaged,) = tmp_path.glob(f"store/files/*/{sha256(jpeg(0))}")
    damage(damaged)
    arguments: list[str | Path] = [
        "--train_csv", write_train_csv(tmp_path / "train.csv", urls), "--image_store", tmp_path / "store",
        "--validation_size", "0", "--allow_private_hosts", "--output_dir", tmp_path / "out",
    ]  # fmt: skip
    call(build.main, monkeypatch, *arguments, "--download", str(is_online).lower())
    (file,) = tmp_path.glob("out/data/*.parquet")
    published = [image["bytes"] for image in pq.read_table(file)["image"].to_pylist()]
    assert published == ([jpeg(0), jpeg(1)] if is_online else [jpeg(1)])
    assert ("not_fetched" in (tmp_path / "out" / "left_out.csv").read_text()) is not is_online
    assert [hashlib.sha256(image).hexdigest() for image in published] == pq.read_table(
        tmp_path / "out" / "rows" / "train.parquet"
    )["sha256"].to_pylist()
    assert ImageStore(tmp_path / "store").failures(urls) == ({} if is_online else {urls[0]: "not_fetched"})


IMPOSSIBLE: list[tuple[str, object]] = [
    ("sha256", "../../../../../../../../etc/passwd"),
    ("sha256", "/etc/passwd"),
    ("sha256", "A" * 64),
    ("sha256", "0" * 64 + "\n"),
    ("sha256", b"0" * 64),
    ("sha256", None),
    ("sha256", 7),
    ("num_bytes", -1),
    ("num_bytes", 0),
    ("num_bytes", 33 * 1024**2),
    ("num_bytes", "many"),
    ("num_bytes", 100.5),
    ("width", 0),
    ("width", 1 << 40),
    ("height", "tall"),
    ("height", None),
    ("phash", None),
    ("phash", "black"),
    ("status", "STORED"),
    ("status", "failed"),
    ("status", b"stored"),
    ("reason", "but there is one"),
    ("http_status", "ok"),
    ("tries", -1),
    ("tries", "often"),
    ("seconds", "long"),
    ("finished_at", b"now"),
]


@pytest.mark.parametrize(("column", "value"), IMPOSSIBLE, ids=str)
def test_a_row_with_an_impossible_value_counts_as_not_fetched(tmp_path: Path, column: str, value: object) -> None:
    store = stored_once(tmp_path)
    assert store.find(["a"])[1] == {}
    store._state.execute(f"UPDATE links SET {column} = ?", (value,))
    assert store.find(["a"]) == ({}, {"a": "not_fetched"})
    assert store.pending(["a"], retry=lambda state: False) == ["a"]
    assert store.sizes().keys() <= {"a"} and store.mean_bytes()[1] >= 0
    assert isinstance(store.fingerprint(["a"]), str)
    store.write_failures()
    store.record(UrlState("a", Status.REFUSED, "http_404"))  # downloaded again
    assert store.failures(["a"]) == {"a": "http_404"}


@pytest.mark.parametrize("path", ["../private.jpg", "FOLDER/private.jpg"])
def test_a_path_in_place_of_a_hash_is_not_read_even_if_the_size_is_right(
    server: ImageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    server.answers |= {f"/{number}.jpg": jpeg(number) for number in range(2)}
    urls = [f"{server.url}/{number}.jpg" for number in range(2)]
    store = ImageStore(tmp_path / "store")
    download(store, urls, OPTIONS)
    (tmp_path / "private.jpg").write_bytes(jpeg(2))
    store._state.execute(
        "UPDATE links SET sha256 = ?, num_bytes = ? WHERE link = ?",
        (path.replace("FOLDER", str(tmp_path)), len(jpeg(2)), urls[0]),
    )
    call(
        build.main, monkeypatch, "--train_csv", write_train_csv(tmp_path / "train.csv", urls), "--download", "false",
        "--image_store", store.folder, "--validation_size", "0", "--output_dir", tmp_path / "out",
    )  # fmt: skip
    (file,) = tmp_path.glob("out/data/*.parquet")
    assert [image["bytes"] for image in pq.read_table(file)["image"].to_pylist()] == [jpeg(1)]


@pytest.mark.parametrize(
    "reason", ["# heading", "a|b", "<b>", "", "Http_404", "http_404: \n# heading", "x: " + "y" * 2000, b"http_404"]
)
def test_a_reason_that_no_download_records_counts_as_not_fetched(tmp_path: Path, reason: object) -> None:
    store = ImageStore(tmp_path)
    store.record(UrlState("a", Status.REFUSED, "http_404: detail"))
    assert store.failures(["a"]) == {"a": "http_404: detail"}
    store._state.execute("UPDATE links SET reason = ?", (reason,))
    assert store.failures(["a"]) == {"a": "not_fetched"}


def test_a_reason_is_recorded_on_one_line(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    store.record(UrlState("a", Status.REFUSED, "bad_answer: \x1b[2J\nof a server " + "x" * 5000))
    reason = store.failures(["a"])["a"]
    assert reason.startswith("bad_answer:  [2J of a server xxx") and len(reason) == 1000


def test_a_file_with_the_right_hash_that_holds_something_else_counts_as_not_fetched(tmp_path: Path) -> None:
    store = stored_once(tmp_path)
    content = b"root:x:0:0:" * 10
    file = tmp_path / "files" / sha256(content)[:2] / sha256(content)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    store._state.execute("UPDATE links SET sha256 = ?, num_bytes = ?", (sha256(content), len(content)))
    assert store.find(["a"]) == ({}, {"a": "not_fetched"})


@pytest.mark.parametrize("pause_s", [0, 0.2])
def test_a_file_that_changes_after_its_hash_was_checked_is_not_read(tmp_path: Path, pause_s: float) -> None:
    """Whether its hash is known (of a file that is older than a tick of the clock) or not yet."""
    store, data = ImageStore(tmp_path), jpeg(1)
    image = prepare_image(data, image_size=448)
    store.save(image)
    store.record(UrlState("a", Status.STORED, "", 200, 1, 0.1, "", len(data), 48, 32, image.sha256, image.phash))
    time.sleep(pause_s)
    found = store.find(["a"])[0]["a"]
    assert store.read_image(found) == data
    (file,) = tmp_path.glob("files/*/*")
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    file.write_bytes(data[:-1] + b"?")
    os.utime(file, ns=times)
    with pytest.raises(InputError, match="has changed while the command ran"):
        store.read_image(found)
    assert store.failures(["a"]) == {"a": "not_fetched"}


def test_links_in_a_store_lead_nowhere(tmp_path: Path) -> None:
    """A downloading process truncates, removes and writes files of the store only."""
    mine = {name: tmp_path / "mine" / name for name in ("lock", "failed.csv", "download.part")}
    (tmp_path / "mine").mkdir()
    for file in mine.values():
        file.write_text("mine")
    store = ImageStore(tmp_path / "store")
    (store.folder / "files").mkdir()
    (store.folder / "files" / "ab").symlink_to(tmp_path / "mine")
    (store.folder / "failed.csv").symlink_to(mine["failed.csv"])
    with store.locked():
        store.write_failures()
    (store.folder / LOCK_FILE).symlink_to(mine["lock"])
    with pytest.raises(InputError, match=r"\.lock cannot be locked"), store.locked():
        pass
    assert all(file.read_text() == "mine" for file in mine.values())


def test_the_list_of_failures_runs_no_formula(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    store.record(UrlState("=1+1", Status.REFUSED, "http_404"))
    store.write_failures()
    assert (tmp_path / "failed.csv").read_text().splitlines()[1].startswith("'=1+1,http_404,")


def test_a_build_depends_on_the_images_of_its_own_urls_only(tmp_path: Path) -> None:
    store = stored_once(tmp_path)
    before = store.fingerprint(["a", "b"])
    store.record(UrlState("unrelated", Status.REFUSED, "http_404"))
    assert store.fingerprint(["b", "a"]) == before
    store.record(UrlState("b", Status.REFUSED, "http_404"))
    assert store.fingerprint(["a", "b"]) != before


def stored_once(folder: Path) -> ImageStore:
    """A store with one image, of the URL `a`."""
    store, image = ImageStore(folder), prepare_image(jpeg(1), image_size=448)
    store.save(image)
    stored = (len(image.data), image.width, image.height, image.sha256, image.phash)
    store.record(UrlState("a", Status.STORED, "", 200, 1, 0.1, "now", *stored))
    return store


@pytest.mark.slow
@pytest.mark.parametrize("state", ["closed", "killed"])
def test_a_complete_store_on_a_read_only_disk_is_built_from(server: ImageServer, tmp_path: Path, state: str) -> None:
    server.answers = {f"/{number}.jpg": jpeg(number) for number in range(5)}
    urls = [f"{server.url}/{number}.jpg" for number in range(6)]  # the last one is a 404, which is known
    store = ImageStore(tmp_path / "store")
    assert download(store, urls, OPTIONS) == {"http_404": 1}
    if state == "killed":  # all of it is in a log that was not yet taken into the table
        killed = ImageStore(tmp_path / "killed")
        for url in urls:
            killed.record(store.state(url))
        shutil.copytree(tmp_path / "killed", tmp_path / "store", dirs_exist_ok=True)
        assert (tmp_path / "store" / "state.sqlite-wal").stat().st_size
    else:
        del store
        gc.collect()  # closes the database
        assert not list((tmp_path / "store").glob("*-wal"))
    lacking = [*urls, f"{server.url}/lacking.jpg"]
    files = [write_train_csv(tmp_path / f"{name}.csv", rows) for name, rows in (("train", urls), ("lacking", lacking))]
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
        f"--image_store {tmp_path}/store: is not writable and lacks 1 of 7 images, for example {lacking[-1]}; "
        "copy it to a writable folder, or set --download false to build from the images that it has",
        "train: 5 rows",
        f"written: {tmp_path}/lacking",
    ]
    assert sorted(tmp_path.joinpath("store").rglob("*")) == before


def test_a_store_is_complete_for_whoever_copies_its_files_and_its_table(server: ImageServer, tmp_path: Path) -> None:
    server.answers = {f"/{number}.jpg": jpeg(number) for number in range(5)}
    urls = [f"{server.url}/{number}.jpg" for number in range(5)]
    store = ImageStore(tmp_path / "store")
    download(store, urls, OPTIONS)
    shutil.copytree(store.folder, tmp_path / "copied", ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    assert not ImageStore(tmp_path / "copied").failures(urls)


def test_a_store_of_somebody_else_is_read_without_writing_to_it(
    server: ImageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["/0.jpg"] = jpeg(0)
    url = f"{server.url}/0.jpg"
    download(ImageStore(tmp_path), [url], OPTIONS)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)  # root may write anywhere
    store = ImageStore(tmp_path)
    assert store.read(url) == jpeg(0)
    assert not download(store, [url], OPTIONS)
    with pytest.raises(InputError, match="is not writable and lacks 1 of 2 images"):
        download(store, [url, f"{server.url}/1.jpg"], OPTIONS)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before
    (tmp_path / "state.sqlite").unlink()
    with pytest.raises(InputError, match="not writable"):
        ImageStore(tmp_path)


def test_two_processes_do_not_download_into_one_store(tmp_path: Path) -> None:
    first, second = ImageStore(tmp_path), ImageStore(tmp_path)
    with first.locked(), pytest.raises(InputError, match="another process is downloading into it"):
        download(second, ["http://127.0.0.1/a.jpg"], OPTIONS)


def test_a_broken_state_is_explained(tmp_path: Path) -> None:
    (tmp_path / "state.sqlite").write_bytes(b"not a database, but long enough to be taken for one" * 9)
    with pytest.raises(InputError, match=r"state\.sqlite cannot be used"):
        ImageStore(tmp_path)


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_was_not_written_to_its_end_never_has_its_name(tmp_path: Path) -> None:
    store, image = ImageStore(tmp_path), prepare_image(jpeg(1, size=(300, 300)), image_size=448)
    assert len(image.data) > 20_000
    with files_of_at_most(20_000), pytest.raises(OSError, match="File too large"):
        store.save(image)
    assert {file.suffix for file in tmp_path.glob("files/*/*")} <= {".part"}
    store.save(image)
    assert next(tmp_path.glob(f"files/*/{image.sha256}")).read_bytes() == image.data


def test_images_are_found_and_the_reasons_for_those_that_are_missing(tmp_path: Path) -> None:
    store, image = ImageStore(tmp_path), prepare_image(jpeg(1), image_size=448)
    store.save(image)
    stored = StoredImage(len(image.data), image.width, image.height, image.sha256, image.phash)
    store.record(UrlState("a", Status.STORED, "", 200, 1, 0.1, "now", **stored.as_dict()))
    store.record(UrlState("b", Status.REFUSED, "http_404", 404, 1))
    assert store.find(["a", "b", "c"]) == ({"a": stored}, {"b": "http_404", "c": "not_fetched"})


@pytest.mark.parametrize("retry", [True, False])
def test_pending_are_urls_without_an_outcome_and_failed_ones_that_are_to_be_retried(
    tmp_path: Path, retry: bool
) -> None:
    store = ImageStore(tmp_path)
    store.record(UrlState("refused", Status.REFUSED, "http_404"))
    store.record(UrlState("failed", Status.FAILED, "http_503"))
    pending = store.pending(["refused", "failed", "new"], retry=lambda state: retry)
    assert pending == (["failed", "new"] if retry else ["new"])


def test_a_temporary_store_is_removed_with_its_object(tmp_path: Path) -> None:
    store = ImageStore.temporary(tmp_path / "cache", image_size=64)
    assert store.image_size == 64 and store.folder.parent == tmp_path / "cache" and store.folder.is_dir()
    folder = store.folder
    del store
    gc.collect()
    assert not folder.exists()


def test_reasons_are_counted_without_their_details() -> None:
    reasons = ["image_unreadable: OSError: a", "image_unreadable: b", "http_404"]
    assert count_reasons(reasons) == {"image_unreadable": 2, "http_404": 1}
