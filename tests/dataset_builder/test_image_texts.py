"""What `build --ocr` keeps of the images of a store, and what it reads again."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from dataset_builder import build
from dataset_builder.image_texts import TEXTS_FILE, ImageTexts
from product_vqa.errors import InputError
from tests.commands import call
from tests.dataset_builder import ocr_engines
from tests.dataset_builder.files import jpeg, write_train_csv
from tests.dataset_builder.image_server import ImageServer
from tests.dataset_builder.ocr_engines import FakeEngine

SIZE = (120, 80)


@pytest.fixture
def arguments(server: ImageServer, tmp_path: Path) -> list[Any]:
    """Five labelled rows with an image each, larger than they are stored; one of them is gone."""
    server.answers |= {f"/{number}.jpg": jpeg(number, size=SIZE) for number in range(5)}
    write_train_csv(tmp_path / "train.csv", [f"{server.url}/{number}.jpg" for number in range(6)])
    return ["--train_csv", tmp_path / "train.csv", "--allow_private_hosts", "--image_store", tmp_path / "store",
            "--image_size", "64", "--output_dir", tmp_path / "out"]  # fmt: skip


def test_each_image_is_read_once_at_full_size_while_it_is_downloaded(
    arguments: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = ocr_engines.use(monkeypatch, "500 g")
    call(build.main, monkeypatch, *arguments, "--ocr")
    assert fake.sizes == [SIZE] * 5
    assert "texts: read at 120 px (median of the longer sides)" in capsys.readouterr().out
    call(build.main, monkeypatch, *arguments, "--ocr")
    assert f"unchanged: {arguments[-1]}" in capsys.readouterr().out and len(fake.sizes) == 5
    call(build.main, monkeypatch, *arguments, "--ocr", "--seed", "1")
    assert len(fake.sizes) == 5


def test_images_that_were_stored_without_text_are_read_at_the_stored_size(
    arguments: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = ocr_engines.use(monkeypatch, "500 g")
    call(build.main, monkeypatch, *arguments)
    assert fake.sizes == [] and not (arguments[4] / TEXTS_FILE).exists()
    call(build.main, monkeypatch, *arguments, "--ocr", "--download", "false")
    assert fake.sizes == [(64, 43)] * 5


def test_a_build_that_was_interrupted_reads_only_the_other_images(
    arguments: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = ocr_engines.use(monkeypatch, "500 g")
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    call(build.main, monkeypatch, *arguments)
    fake.fail_at = 3
    with pytest.raises(KeyboardInterrupt):
        call(build.main, monkeypatch, *arguments, "--ocr")
    fake.fail_at = None
    done = len(fake.sizes)
    kept = sqlite3.connect(arguments[4] / TEXTS_FILE).execute("SELECT count(*) FROM texts").fetchone()[0]
    assert done == 3 and 1 <= kept <= 3
    call(build.main, monkeypatch, *arguments, "--ocr")
    assert len(fake.sizes) == 3 + 5 - kept


def test_texts_of_another_engine_or_of_an_image_that_has_changed_are_not_used(tmp_path: Path) -> None:
    one, another = FakeEngine("one"), FakeEngine("two", description="another engine")
    texts = ImageTexts(tmp_path, one)
    texts.read("http://x/1", jpeg(), "a" * 64)
    texts.record("http://x/1")
    again = ImageTexts(tmp_path, one)
    assert len(again) == 1 and again.has("http://x/1", "a" * 64) and not again.has("http://x/1", "b" * 64)
    assert again.find("http://x/1", "a" * 64).boxes[0].text == "one"
    assert again.longer_sides() == [48]
    others = ImageTexts(tmp_path, another)
    assert len(others) == 0
    others.read("http://x/1", jpeg(), "a" * 64)
    others.record("http://x/1")
    assert again.find("http://x/1", "a" * 64).boxes[0].text == "one"
    assert others.find("http://x/1", "a" * 64).boxes[0].text == "two"
    with pytest.raises(InputError, match=r"texts\.sqlite has changed while the command ran"):
        again.find("http://x/1", "b" * 64)
    fingerprints = [texts.fingerprint(["http://x/1"]) for texts in (again, others, ImageTexts(tmp_path, one))]
    assert fingerprints[0] == fingerprints[2] != fingerprints[1]
    assert again.fingerprint(["http://x/2"]) != fingerprints[0]


@pytest.mark.parametrize(
    "cell",
    ["", "[]", "{", "[" * 10**5, '{"width": 1, "height": 1, "texts": 3}', '{"width": 0, "height": 1}', b"\xff", 5],
)
def test_a_row_that_this_command_does_not_write_does_not_count(tmp_path: Path, cell: object) -> None:
    ImageTexts(tmp_path, FakeEngine())
    row = ("http://x/1", FakeEngine().description, "a" * 64, cell)
    with sqlite3.connect(tmp_path / TEXTS_FILE) as database:
        database.execute("INSERT INTO texts VALUES (?, ?, ?, ?)", row)
    database.close()
    texts = ImageTexts(tmp_path, FakeEngine("one"))
    assert len(texts) == 0
    texts.read("http://x/1", jpeg(), "a" * 64)
    texts.record("http://x/1")
    assert len(ImageTexts(tmp_path, FakeEngine())) == 1


def test_another_file_of_that_name_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / TEXTS_FILE) as database:
        database.execute("CREATE TABLE texts (link TEXT)")
    database.close()
    with pytest.raises(InputError, match=r"texts\.sqlite cannot be used .*remove texts\.sqlite\* there to read all"):
        ImageTexts(tmp_path, FakeEngine())


@pytest.mark.parametrize("argument", ["image_store", "output_dir"])
def test_texts_that_cannot_be_written_are_explained_with_their_option(tmp_path: Path, argument: str) -> None:
    texts = ImageTexts(tmp_path, FakeEngine("one"), argument=argument)
    assert texts._database is not None
    texts._database.execute("PRAGMA query_only = ON")  # as on a disk that has become read-only
    texts.read("http://x/1", jpeg(), "a" * 64)
    with pytest.raises(InputError, match=rf"`{argument}` .*: cannot be written .*: texts that were read are kept"):
        texts.record("http://x/1")


def test_an_image_that_cannot_be_decoded_has_no_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = ImageTexts(tmp_path, FakeEngine("one"))
    texts.read("http://x/1", b"not an image", "a" * 64)
    texts.record("http://x/1")
    assert len(texts) == 0 and "http://x/1: no text is read (" in caplog.text


def test_a_store_that_cannot_be_written_is_refused_only_if_texts_are_missing(
    arguments: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = ocr_engines.use(monkeypatch, "500 g")
    call(build.main, monkeypatch, *arguments)
    store = arguments[4]
    monkeypatch.setattr("os.access", lambda path, mode: str(store) not in str(path))
    with pytest.raises(InputError, match="is not writable and lacks the texts of 5 of 5 images"):
        call(build.main, monkeypatch, *arguments, "--ocr")
    monkeypatch.undo()
    fake = ocr_engines.use(monkeypatch, "500 g")
    call(build.main, monkeypatch, *arguments, "--ocr")
    monkeypatch.setattr("os.access", lambda path, mode: str(store) not in str(path))
    call(build.main, monkeypatch, *arguments, "--ocr", "--seed", "1")
    assert len(fake.sizes) == 5


def test_images_on_which_the_engine_failed_are_not_missing(
    arguments: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that cannot be written was refused for good because of one of them."""
    fake = ocr_engines.use(monkeypatch, "500 g")
    fake.fails_on = (64, 43)
    call(build.main, monkeypatch, *arguments)
    call(build.main, monkeypatch, *arguments, "--ocr")
    assert len(fake.sizes) == 5 and not (arguments[-1] / "ocr").exists()
    texts = ImageTexts(arguments[4], fake)
    assert (len(texts), texts.num_failed) == (0, 5)
    monkeypatch.setattr("os.access", lambda path, mode: str(arguments[4]) not in str(path))
    call(build.main, monkeypatch, *arguments, "--ocr", "--seed", "1")
    assert len(fake.sizes) == 5


@pytest.mark.parametrize("more", [("--shard", "1/2"), ("--merge", "2"), ("--engine", "ray")])
def test_a_build_on_several_machines_reads_no_texts(
    arguments: list[Any], monkeypatch: pytest.MonkeyPatch, more: tuple[str, str]
) -> None:
    if more[0] == "--engine":
        del arguments[3:5]
    with pytest.raises(InputError, match="--ocr reads the images of a build on one machine: drop --shard"):
        call(build.main, monkeypatch, *arguments, "--ocr", *more)
