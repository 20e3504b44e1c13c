"""`predict --reader ocr`: labels that are rendered, read by the real engine and answered by rules."""

import csv
import shutil
import threading
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dataset_builder import build
from inference import predict, text_source
from inference.submission import read_run
from product_vqa.errors import InputError
from product_vqa.ocr import engine
from product_vqa.ocr.image_text import ImageText, make_box
from product_vqa.ocr.text_files import TextRow, write_texts
from product_vqa.task.schema import CHALLENGE
from quickstart.rendering.levels import PLAIN
from quickstart.rendering.writer import write_labels
from tests.commands import call
from tests.dataset_builder.ocr_engines import CORNERS, FakeEngine

needs_engine = pytest.mark.skipif(engine.rapidocr is None, reason="the extra `ocr` is not installed")
NUM_ROWS = 10


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered labels as a dataset, `dataset`, with an image that is missing; `test_answers.csv` has the answers."""
    folder = tmp_path_factory.mktemp("labels")
    write_labels(folder, train_rows=40, test_rows=NUM_ROWS, seed=3, level=PLAIN, base_url="http://x/i")
    rows = list(csv.DictReader((folder / "test.csv").open()))
    missing = rows[-1]["image_link"].rsplit("/", 1)[1]
    (folder / "images" / missing).unlink()
    tables = ("--train_csv", folder / "train.csv", "--test_csv", folder / "test.csv")
    with pytest.MonkeyPatch.context() as patch:
        call(build.main, patch, *tables, "--image_dir", folder / "images", "--output_dir", folder / "dataset")
    return folder


def run_predict(labels: Path, output: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> list[dict[str, Any]]:
    call(predict.main, monkeypatch, "--reader", "ocr", "--dataset", labels / "dataset", "--output", output, *more)
    rows: list[dict[str, Any]] = pq.read_table(output.with_suffix(".parquet")).to_pylist()
    return rows


@needs_engine
@pytest.mark.slow
def test_rules_answer_rendered_labels_with_the_box_of_the_text(
    labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = run_predict(labels, tmp_path / "s.csv", monkeypatch)
    answers = {row["index"]: row["entity_value"] for row in csv.DictReader((labels / "test_answers.csv").open())}
    readable = [row for row in rows if row["reason"] is None]
    assert 0 < len(rows) - len(readable) <= 3 and {row["reason"] for row in rows} == {None, "no_image"}
    assert [row["index"] for row in rows] == [int(index) for index in answers]
    right = [row for row in readable if row["prediction"] == answers[str(row["index"])]]
    assert len(right) >= 0.7 * len(readable)
    for row in readable:
        assert (row["confidence"] is None) == (row["prediction"] == "")
        if row["prediction"]:
            assert 0 <= row["confidence"] <= 1
            assert CHALLENGE[row["entity_name"]].is_valid(row["prediction"])
            left, top, to_right, bottom = row["box"]
            assert 0 <= left < to_right <= 1 and 0 <= top < bottom <= 1
    assert f"{len(rows)} rows, " in capsys.readouterr().out
    run = read_run(tmp_path / "s.parquet")
    assert run["reader"] == "ocr" and run["ocr_engine"].startswith("rapidocr ")


@needs_engine
@pytest.mark.faults
def test_a_run_that_was_interrupted_reads_only_the_other_batches(
    labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run_predict(labels, tmp_path / "whole.csv", monkeypatch, "--max_rows", "8", "--batch_size", "2")

    class InterruptedTestError(Exception):
        pass

    read = engine.RapidOcr.read
    count = 0

    def interrupt(self: engine.RapidOcr, image: Any) -> Any:
        nonlocal count
        count += 1
        if count == 4:
            raise InterruptedTestError
        return read(self, image)

    monkeypatch.setattr(engine.RapidOcr, "read", interrupt)
    with pytest.raises(InterruptedTestError):
        run_predict(labels, tmp_path / "s.csv", monkeypatch, "--max_rows", "8", "--batch_size", "2")
    assert not (tmp_path / "s.csv").exists() and len(list((tmp_path / "s.parts").glob("*.parquet"))) >= 1
    num_done, count = len(list((tmp_path / "s.parts").glob("*.parquet"))), 10
    assert run_predict(labels, tmp_path / "s.csv", monkeypatch, "--max_rows", "8") == expected
    assert count - 10 <= 8 - 2 * num_done
    assert not (tmp_path / "s.parts").exists()


@needs_engine
@pytest.mark.parametrize(("num_workers", "num_threads"), [("0", 1), ("1", 1), ("3", 3)])
def test_the_workers_are_threads_that_read_images(
    labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_workers: str, num_threads: int
) -> None:
    all_read = threading.Barrier(num_threads)
    threads: list[int] = []

    def read(self: engine.RapidOcr, image: Any) -> ImageText:
        threads.append(threading.get_ident())
        if threads.count(threading.get_ident()) == 1:
            all_read.wait(timeout=60)  # until each of them reads an image
        return ImageText(1, 1)

    monkeypatch.setattr(engine.RapidOcr, "read", read)
    run_predict(labels, tmp_path / "s.csv", monkeypatch, "--dataloader_num_workers", num_workers)
    assert len(threads) > num_threads == len(set(threads))


def test_texts_of_the_dataset_are_used_and_only_other_images_are_read(
    labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(labels, tmp_path / "labels"))
    fake = FakeEngine("999 gram")
    monkeypatch.setattr(text_source, "load_engine", lambda: fake)
    monkeypatch.setattr(text_source, "is_installed", lambda: True)
    images = {
        row["image_link"]
        for row in pq.read_table(folder / "dataset" / "rows" / "test.parquet").to_pylist()
        if row["sha256"] is not None
    }
    _, *others = sorted(images)
    text = ImageText(400, 300, (make_box("Net wt. 123 g, 45 cm, 6 V, 7 W, 8 ml", 0.9, CORNERS),))
    (folder / "dataset" / "ocr").mkdir()
    file = folder / "dataset" / "ocr" / "test-00000-of-00001.parquet"
    write_texts(file, [TextRow(link, None, text) for link in others], engine="an engine 2.0")
    rows = run_predict(folder, tmp_path / "a.csv", monkeypatch)
    assert fake.sizes and len(fake.sizes) <= 2  # once in each batch
    numbers = {row["prediction"].split(".")[0] for row in rows if row["prediction"] and row["image_link"] in others}
    assert numbers and numbers <= {"123", "45", "6", "7", "8"}
    run = read_run(tmp_path / "a.parquet")
    assert (run["ocr_engine"], run["ocr_texts"]) == (fake.description, "an engine 2.0") and run["ocr_texts_sha256"]

    # With all texts, no engine is needed.
    monkeypatch.setattr(text_source, "load_engine", lambda: pytest.fail("an engine is loaded"))
    write_texts(file, [TextRow(link, None, text) for link in images], engine="an engine 2.0")
    for more in ((), ("--max_rows", "4")):
        rows = run_predict(folder, tmp_path / f"b{len(more)}.csv", monkeypatch, *more)
        assert len(rows) == (4 if more else NUM_ROWS)
    run = read_run(tmp_path / "b0.parquet")
    assert "ocr_engine" not in run and run["ocr_texts"] == "an engine 2.0"

    # Texts of the images that were at these URLs before are not theirs.
    write_texts(file, [TextRow(link, "0" * 64, text) for link in images], engine="an engine 2.0")
    with pytest.raises(InputError, match=r"--dataset: the texts of \S+ were read in another image .*dataset_builder"):
        run_predict(folder, tmp_path / "c.csv", monkeypatch)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--adapter", "a/b"), "--reader ocr answers without a model: drop --adapter"),
        (("--num_beams", "4"), "drop --num_beams"),
        (("--shard", "1/2", "--batch_size", "4"), "drop --shard"),
        (("--merge", "2"), "drop --shard, --merge"),
        (("--engine", "ray", "--batch_size", "4"), "--engine ray"),
    ],
)
def test_options_of_a_model_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        call(predict.main, monkeypatch, "--reader", "ocr", "--dataset", "x/y", "--output", tmp_path / "s.csv", *more)
