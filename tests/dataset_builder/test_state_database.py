"""A store's table that is damaged, or that a stranger wrote, is one line with a remedy that works."""

import os
import random
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dataset_builder import build
from dataset_builder.image_preparation import prepare_image
from dataset_builder.image_store import ImageStore, Status, UrlState
from product_vqa.errors import InputError
from tests.commands import call
from tests.dataset_builder.files import jpeg, write_train_csv

NUM_URLS = 60


def url(number: int) -> str:
    return f"https://shop.example/{'long-' * 10}{number:03}.jpg"


def fill(folder: Path, *, num_urls: int = NUM_URLS) -> ImageStore:
    store, image = ImageStore(folder), prepare_image(jpeg(1), image_size=448)
    store.save(image)
    for number in range(num_urls):
        size = (len(image.data), image.width, image.height, image.sha256, image.phash)
        store.record(UrlState(url(number), Status.STORED, "", 200, 1, 0.1, "now", *size))
    return store


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled") / "store"
    with fill(folder).locked():
        pass  # the table is one file then
    return folder


@pytest.fixture
def store(filled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(filled, tmp_path / "store", ignore=shutil.ignore_patterns("*-wal", "*-shm")))


def behind_the_first_page(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[4096:] = random.Random(0).randbytes(len(content) - 4096)
    file.write_bytes(content)


def cut_after_a_page(file: Path) -> None:
    os.truncate(file, 4096)


def cut_within_a_page(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1000)


def in_its_schema(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content.replace(b"CREATE TABLE links", b"CREATE TABLE \xff\xfenks"))


def no_database(file: Path) -> None:
    file.write_bytes(b"<html>404</html>" * 1000)


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def a_link(file: Path) -> None:
    shutil.copy(file, file.parent.parent / "elsewhere.sqlite")
    file.unlink()
    file.symlink_to(file.parent.parent / "elsewhere.sqlite")


def a_pipe_as_log(file: Path) -> None:
    os.mkfifo(f"{file}-wal")


def a_link_as_journal(file: Path) -> None:
    Path(f"{file}-journal").symlink_to(file.parent.parent / "elsewhere")


def changed_by(*statements: str) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        with sqlite3.connect(file) as state:
            for statement in statements:
                state.execute(statement)
        state.close()

    return change


def a_page_with_two_parents(file: Path) -> None:
    """In a forged file, the same page below every entry would make a query endless."""
    content = bytearray(file.read_bytes())
    for start in range(4096, len(content), 4096):
        if content[start] in (2, 5):  # an inner page: of its cells, the first four bytes name the page below
            positions = range(start + 12, start + 12 + 2 * content[start + 4], 2)
            cells = [int.from_bytes(content[at : at + 2], "big") for at in positions]
            child = content[start + cells[0] : start + cells[0] + 4]
            for cell in cells:
                content[start + cell : start + cell + 4] = child
            content[start + 8 : start + 12] = child
            file.write_bytes(content)
            return
    raise AssertionError("no inner page")


DAMAGES: dict[str, Callable[[Path], None]] = {
    damage.__name__: damage
    for damage in (
        behind_the_first_page, cut_after_a_page, cut_within_a_page, in_its_schema, no_database, a_folder, a_pipe,
        a_link, a_pipe_as_log, a_link_as_journal, a_page_with_two_parents,
    )
} | {
    "a view": changed_by("ALTER TABLE links RENAME TO l", "CREATE VIEW links AS SELECT * FROM l"),
    "a trigger": changed_by("CREATE TRIGGER t AFTER INSERT ON links BEGIN DELETE FROM links; END"),
    "an index": changed_by("CREATE INDEX i ON links (lower(reason))"),
    "another table": changed_by("CREATE TABLE more (a)"),
    "a table less": changed_by("DROP TABLE settings"),
    "another column": changed_by("ALTER TABLE links ADD COLUMN more TEXT"),
    "a generated column": changed_by("ALTER TABLE links ADD COLUMN more TEXT AS (upper(link))"),
    "another version": changed_by("PRAGMA user_version = 3"),
    "no image size": changed_by("DELETE FROM settings"),
    "two image sizes": changed_by("INSERT INTO settings VALUES (224)"),
    "an image size that is text": changed_by("UPDATE settings SET image_size = 'large'"),
    "an image size below 0": changed_by("UPDATE settings SET image_size = -1"),
    "an image size of a terabyte": changed_by("UPDATE settings SET image_size = 1 << 40"),
}  # fmt: skip


@pytest.mark.parametrize("is_read_only", [False, True])
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_or_strange_table_is_one_line_and_its_remedy_works(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_read_only: bool
) -> None:
    DAMAGES[name](store / "state.sqlite")
    train_csv = write_train_csv(tmp_path / "train.csv", [url(number) for number in range(NUM_URLS)])
    options: list[str | Path] = ["--train_csv", train_csv, "--image_store", store, "--download", "false"]
    with monkeypatch.context() as patch:
        if is_read_only:
            patch.setattr(os, "access", lambda path, mode: not (mode & os.W_OK and Path(path).is_relative_to(store)))
        if name == "no image size" and not is_read_only:  # it gets the default again, with which it was made
            assert ImageStore(store).image_size == 448
            return
        with pytest.raises(InputError) as refusal:
            call(build.main, patch, *options, "--output_dir", tmp_path / "out")
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).startswith(f"--image_store {store}: ")
    assert not (tmp_path / "out").exists()
    if not str(refusal.value).endswith("not writable; choose another folder or change its permissions"):
        assert "remove state.sqlite* there to download everything again" in str(refusal.value)
    for file in store.glob("state.sqlite*"):
        file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink()
    again = fill(store, num_urls=2)
    assert again.read(url(1)) == jpeg(1)
    assert set(again.failures([url(2)]).values()) == {"not_fetched"}


def test_an_empty_table_is_a_new_store(store: Path) -> None:
    (store / "state.sqlite").write_bytes(b"")
    assert ImageStore(store).failures([url(0)]) == {url(0): "not_fetched"}


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_truncated_or_garbled_log_costs_its_last_rows_only(tmp_path: Path, share: float) -> None:
    killed = fill(tmp_path / "killed")  # still open: all rows are in the log
    for name, is_garbled in (("cut", False), ("garbled", True)):
        folder = Path(shutil.copytree(killed.folder, tmp_path / name, ignore=shutil.ignore_patterns("*-shm")))
        log = folder / "state.sqlite-wal"
        size = log.stat().st_size
        if is_garbled:
            with log.open("r+b") as stream:
                stream.seek(max(32, int(share * size)))
                stream.write(random.Random(0).randbytes(50))
        else:
            os.truncate(log, int(share * size))
        found, failures = ImageStore(folder).find([url(number) for number in range(NUM_URLS)])
        assert len(found) + len(failures) == NUM_URLS
        assert set(failures.values()) == {"not_fetched"}
        assert len(found) >= (share - 0.3) * NUM_URLS


def test_a_journal_that_names_another_file_is_refused_and_that_file_stays(store: Path, tmp_path: Path) -> None:
    """SQLite deletes the file that a journal of several databases names, once it has rolled it back."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine\0")
    name = os.fsencode(victim)
    page = (store / "state.sqlite").read_bytes()[:4096]
    header = bytes.fromhex("d9d505f920a163d7") + (1).to_bytes(4, "big") + bytes(4)
    header += (2).to_bytes(4, "big") + (512).to_bytes(4, "big") + (4096).to_bytes(4, "big")
    checksum = sum(page[at] for at in range(4096 - 200, 0, -200)) & 0xFFFFFFFF
    record = (1).to_bytes(4, "big") + page + checksum.to_bytes(4, "big")
    end = (2**30 // 4096 + 1).to_bytes(4, "big") + name + len(name).to_bytes(4, "big")
    end += (sum(name) & 0xFFFFFFFF).to_bytes(4, "big") + bytes.fromhex("d9d505f920a163d7")
    (store / "state.sqlite-journal").write_bytes(header.ljust(512, b"\0") + record + end)
    with pytest.raises(InputError, match=r"state\.sqlite cannot be used \(state\.sqlite-journal is not of this"):
        ImageStore(store)
    assert victim.read_bytes() == b"mine\0"


def test_damage_that_shows_only_later_is_one_line_too(store: Path) -> None:
    opened = ImageStore(store)
    behind_the_first_page(store / "state.sqlite")
    opened._state._connection.execute("PRAGMA shrink_memory")
    for use in (
        lambda: opened.find([url(number) for number in range(NUM_URLS)]),
        lambda: opened.failed(),
        lambda: opened.sizes(),
        lambda: opened.mean_bytes(),
        lambda: opened.fingerprint([url(0)]),
        lambda: opened.write_failures(),
        lambda: opened.record(UrlState("a", Status.REFUSED, "http_404")),
    ):
        with pytest.raises(InputError, match=r"state\.sqlite cannot be used \(.*\); choose another folder, or remove"):
            use()


@pytest.mark.parametrize("size", [0, 3000])
def test_a_log_that_is_cut_while_the_table_is_open_is_damage_and_no_lack_of_space(tmp_path: Path, size: int) -> None:
    """What SQLite calls a disk I/O error: the index of the log, in memory, has more than the log."""
    opened = fill(tmp_path / "store")
    os.truncate(opened.folder / "state.sqlite-wal", size)
    with pytest.raises(
        InputError, match=r"state\.sqlite cannot be used \(it or its log is truncated\); .*, or remove"
    ):
        ImageStore(opened.folder)


def test_a_table_that_another_process_holds_is_one_line(store: Path) -> None:
    opened = ImageStore(store)
    opened._state._connection.execute("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(store / "state.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(InputError, match="is in use by another process; wait until it ends"):
        opened.record(UrlState("a", Status.REFUSED, "http_404"))
    other.close()


def test_two_threads_may_create_a_store_at_once(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def create() -> None:
        try:
            ImageStore(tmp_path / "store", image_size=64)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("in use by another process" in str(error) for error in errors)
    assert ImageStore(tmp_path / "store").image_size == 64
