"""`dataset_builder.ocr --image_store`, with the real engine, and in a process that is killed."""

import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dataset_builder import ocr
from dataset_builder.image_preparation import prepare_image
from dataset_builder.image_store import ImageStore, Status, UrlState
from dataset_builder.image_texts import TEXTS_FILE, ImageTexts
from product_vqa.errors import InputError
from product_vqa.ocr import engine
from tests.commands import call, run_here
from tests.dataset_builder import ocr_engines
from tests.dataset_builder.files import jpeg
from tests.product_vqa.ocr.printed import needs_engine, printed

URLS = [f"http://x/{number}" for number in range(4)]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with the images of three URLs; the fourth had none."""
    store = ImageStore(tmp_path / "store", image_size=448)
    for number, url in enumerate(URLS[:3]):
        image = prepare_image(jpeg(number), image_size=448)
        add(store, url, image)
    store.record(UrlState(URLS[3], Status.REFUSED, "http_404"))
    return store.folder


def add(store: ImageStore, url: str, image) -> None:  # type: ignore[no-untyped-def]
    store.save(image)
    store.record(
        UrlState(url, Status.STORED, num_bytes=len(image.data), width=image.width, height=image.height,
                 sha256=image.sha256, phash=image.phash)
    )  # fmt: skip


def test_images_of_a_store_are_read_once(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = ocr_engines.use(monkeypatch, "500 g")
    call(ocr.main, monkeypatch, "--image_store", store)
    output = capsys.readouterr().out
    assert f"{store}: 3 images have their texts, 3 of them since now" in output
    assert "read at 48 px (median of the longer sides): small print is lost" in output
    assert "0.843 at full size, 0.805 at 1,024 px and 0.738 at 448 px" in output
    call(ocr.main, monkeypatch, "--image_store", store)
    assert "3 images have their texts, 0 of them since now" in capsys.readouterr().out and len(fake.sizes) == 3


def test_images_on_which_the_engine_fails_are_counted_and_not_read_again(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = ocr_engines.use(monkeypatch, "500 g")
    add(ImageStore(store), URLS[3], prepare_image(jpeg(3, size=(60, 40)), image_size=448))
    fake.fails_on = (60, 40)
    for since in (3, 0):
        call(ocr.main, monkeypatch, "--image_store", store)
        output = capsys.readouterr().out
        assert f"{store}: 3 images have their texts, {since} of them since now" in output
        assert "1 other images could not be read: the engine failed. Remove texts.sqlite* there" in output
    assert len(fake.sizes) == 4
    (store / TEXTS_FILE).unlink()
    fake.fails_on = None
    call(ocr.main, monkeypatch, "--image_store", store)
    output = capsys.readouterr().out
    assert "4 images have their texts, 4 of them" in output and "could not be read" not in output


def test_a_folder_without_a_store_is_refused_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"--image_store .*none: is not a folder that download or build made"):
        call(ocr.main, monkeypatch, "--image_store", tmp_path / "none")
    assert not (tmp_path / "none").exists()


@needs_engine
@pytest.mark.slow
def test_the_real_engine_reads_what_is_printed(store: Path, tmp_path: Path) -> None:
    file = tmp_path / "printed.png"
    printed("Net wt. 500 g").save(file)
    images = ImageStore(store)
    image = prepare_image(file.read_bytes(), image_size=448)
    add(images, URLS[3], image)
    done = run_here("dataset_builder.ocr", "--image_store", store)
    assert done.returncode == 0 and "4 images have their texts" in done.stdout
    text = ImageTexts(store, engine.load_engine()).find(URLS[3], image.sha256)
    assert [box.text.replace(" ", "").casefold() for box in text.boxes] == ["netwt.500g"]


@needs_engine
@pytest.mark.faults
def test_a_process_that_is_killed_has_kept_what_it_read(store: Path) -> None:
    images = ImageStore(store)
    for number in range(4, 24):
        add(images, f"http://x/{number}", prepare_image(jpeg(number, size=(400, 300)), image_size=448))
    command = [sys.executable, "-m", "dataset_builder.ocr", "--image_store", str(store)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and count(store) < 3:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = count(store)
    assert 3 <= kept < 23
    done = run_here("dataset_builder.ocr", "--image_store", store)
    assert f"23 images have their texts, {23 - kept} of them since now" in done.stdout


def count(store: Path) -> int:
    try:
        with sqlite3.connect(store / TEXTS_FILE) as database:
            return int(database.execute("SELECT count(*) FROM texts").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
