"""Batches of worker processes: through pipes, so many at most, and errors of one line."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from inference import dataloader, predict
from inference.dataloader import RowBatches
from product_vqa import workers
from product_vqa.errors import InputError
from product_vqa.workers import QUEUE_BYTES, limit_queue, worker_errors
from quickstart.pretraining.small_paligemma import make_processor, save_base
from tests.commands import ROOT, call
from tests.product_vqa.modeling.challenge import TrainingCollator
from tests.tiny import make_rows, save_dataset

MB = 2**20
IS_ROOT_ON_LINUX = sys.platform == "linux" and os.geteuid() == 0


@pytest.mark.parametrize(
    ("num_workers", "batch_bytes", "expected"),
    [
        (0, 10**12, (0, None)),
        (8, MB, (8, 2)),
        (8, 64 * MB, (8, 2)),
        (8, 100 * MB, (8, 1)),
        (8, 294 * MB, (3, 1)),  # 512 rows at 448 px
        (8, 10**12, (1, 1)),
        (4, 0, (4, 2)),
    ],
)
def test_so_many_batches_wait_that_they_fit(
    num_workers: int, batch_bytes: int, expected: tuple[int, int | None]
) -> None:
    assert limit_queue(num_workers, batch_bytes=batch_bytes) == expected
    if expected[1] is not None and batch_bytes < QUEUE_BYTES:
        assert expected[0] * expected[1] * batch_bytes <= QUEUE_BYTES


def test_a_worker_hands_over_the_images_as_an_array_which_needs_no_shared_memory() -> None:
    collator = TrainingCollator(make_processor(image_size=28, patch_size=14))
    rows = make_rows(4)
    (alone,) = DataLoader(rows, batch_size=4, collate_fn=collator)
    (handed,) = DataLoader(rows, batch_size=4, collate_fn=collator, num_workers=1)
    assert isinstance(handed["pixel_values"], np.ndarray) and handed["pixel_values"].dtype == np.uint8
    assert handed.keys() == alone.keys()
    assert all(torch.equal(torch.as_tensor(handed[name]), alone[name]) for name in alone)


def predict_with_workers(tiny_base: Path, dataset: Path, output: Path, patch: pytest.MonkeyPatch) -> None:
    call(predict.main, patch, "--base_model", tiny_base, "--dataset", dataset, "--output", output,
         "--dataloader_num_workers", 2, "--batch_size", 4)  # fmt: skip


@pytest.mark.slow
def test_a_worker_that_is_killed_is_an_error_of_one_line_and_the_rest_is_resumed(
    tiny_base: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = RowBatches.__getitem__

    def killed(self: RowBatches, number: int) -> Any:
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return make(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(RowBatches, "__getitem__", killed)
        # Who notices first, the main process's signal handler or its wait for the queue, words it.
        how = "(is killed by signal: Killed|exited unexpectedly)"
        with pytest.raises(InputError, match=rf"a worker process .* {how}. If it was.*rerun") as e:
            predict_with_workers(tiny_base, tiny_dataset, tmp_path / "s.csv", patch)
    assert "\n" not in str(e.value)
    predict_with_workers(tiny_base, tiny_dataset, tmp_path / "s.csv", monkeypatch)
    assert len(pd.read_csv(tmp_path / "s.csv")) == 11


@pytest.mark.slow
def test_workers_that_hang_are_an_error(
    tiny_base: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataloader, "TIMEOUT_S", 1)
    monkeypatch.setattr(RowBatches, "__getitem__", lambda self, number: time.sleep(3))
    with pytest.raises(InputError, match=r"made no batch in .*--dataloader_num_workers 0"):
        predict_with_workers(tiny_base, tiny_dataset, tmp_path / "s.csv", monkeypatch)


def test_what_a_worker_says_of_a_row_arrives_on_one_line(
    tiny_base: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: RowBatches, number: int) -> Any:
        raise InputError(f"row {number}: no image")

    monkeypatch.setattr(RowBatches, "__getitem__", refuse)
    with pytest.raises(InputError, match=r"^row 0: no image$"):
        predict_with_workers(tiny_base, tiny_dataset, tmp_path / "s.csv", monkeypatch)

    def collate(rows: Any) -> Any:  # as the training's loader calls it
        raise InputError(f"row {rows[0]}: no image")

    with pytest.raises(InputError, match=r"^row 7: no image$"), worker_errors():
        list(DataLoader([7], collate_fn=collate, num_workers=1))


@pytest.mark.slow
def test_other_errors_stay_what_they_are() -> None:
    for error in (RuntimeError("shapes"), OSError(28, "No space left on device"), InputError("--adapter: no such")):
        with pytest.raises(type(error)) as raised, worker_errors():
            raise error
        assert raised.value is error


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # torch's loader is half made
def test_semaphores_that_find_no_room_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    from multiprocessing import synchronize

    class Full:
        def __init__(self, *args: Any) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(synchronize._multiprocessing, "SemLock", Full)
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)  # it waits for what never started
    message = r"could not be started .No space left.*--shm-size 1g.*`dataloader_num_workers` 0"
    with pytest.raises(InputError, match=message), worker_errors():
        list(DataLoader([1, 2], num_workers=1))


def in_a_small_dev_shm(command: list[str], *, size: str = "64m") -> subprocess.CompletedProcess[str]:
    """The command where /dev/shm is as large as Docker makes it. It ends in two minutes, or is killed."""
    mount = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec timeout -s KILL 120 "$@"'
    return subprocess.run(
        ["unshare", "-m", "bash", "-c", mount, "bash", *command],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=180,
    )  # fmt: skip


@pytest.fixture(scope="module")
def large_images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base of 448 px, and a dataset of which eight batches fit into no container's /dev/shm."""
    folder = tmp_path_factory.mktemp("large")
    save_base(folder / "base", image_size=448, patch_size=112, hidden_size=64, layers=1)
    return folder / "base", save_dataset(folder / "data", train=128, validation=0, test=120)


needs_a_namespace = pytest.mark.skipif(
    not IS_ROOT_ON_LINUX or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0,
    reason="no mount namespaces here",
)


@pytest.mark.faults
@needs_a_namespace
def test_predict_ends_with_the_same_answers_in_64_mb_of_shared_memory(
    large_images: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four workers, 24 MB a batch: as float32 tensors not even one would have fitted."""
    base, dataset = large_images
    options = ["--base_model", str(base), "--dataset", str(dataset), "--batch_size", "40", "--output"]
    done = in_a_small_dev_shm(
        [
            sys.executable,
            "-m",
            "inference.predict",
            *options,
            str(tmp_path / "small.csv"),
            "--dataloader_num_workers",
            "4",
        ]
    )
    assert done.returncode == 0, done.stderr[-3000:]
    call(predict.main, monkeypatch, *options, tmp_path / "none.csv", "--dataloader_num_workers", 0)
    assert (tmp_path / "small.csv").read_bytes() == (tmp_path / "none.csv").read_bytes()
    tables = [pd.read_parquet(tmp_path / name) for name in ("small.parquet", "none.parquet")]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


@needs_a_namespace
@pytest.mark.faults
def test_training_ends_in_64_mb_of_shared_memory(large_images: tuple[Path, Path], tmp_path: Path) -> None:
    base, dataset = large_images
    done = in_a_small_dev_shm(
        [sys.executable, "-m", "training.sft", "--model_name_or_path", str(base), "--dataset_name", str(dataset),
         "--output_dir", str(tmp_path / "run"), "--per_device_train_batch_size", "64", "--max_steps", "4",
         "--dataloader_num_workers", "4", "--max_eval_samples", "0", "--use_cpu", "true", "--save_strategy", "no",
         "--base_model_id", "user/base", "--report_to", "none"]
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run" / "adapter_model.safetensors").is_file()


def test_the_timeout_is_longer_than_a_slow_batch() -> None:
    assert workers.TIMEOUT_S >= 600  # 512 images at one a second
