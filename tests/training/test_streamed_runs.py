"""Training on rows that are read from the Hub meanwhile: the same training as on a copy of them on disk."""

import itertools
import re
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import constants

from product_vqa.errors import InputError
from tests.commands import CPU_2, call, launch
from tests.faulty_hub import FaultyHub, answer, reset, skip_waits
from tests.training.runs import (
    check_equal_adapters,
    interrupt_at,
    pushed_to,
    read_log,
    read_losses,
    run_to_the_end,
    start,
    wait_for,
)
from tests.training.streams import hub_with_faults, push, save_streamed
from training import sft


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_streamed(tmp_path_factory.mktemp("datasets") / "streamed")


@pytest.fixture(scope="module")
def repo(hub: object, folder: Path) -> str:
    return push(folder)


@pytest.fixture
def bad_hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyHub]:
    with hub_with_faults(folder, tmp_path, monkeypatch) as hub:
        yield hub


@pytest.fixture(scope="module")
def arguments(tiny_run: list[str | Path], repo: str) -> list[str | Path]:
    """Two epochs of 16 steps of four samples."""
    return [
        *tiny_run, "--dataset_name", repo, "--num_train_epochs", "2", "--max_steps", "-1", "--save_steps", "8",
        "--save_total_limit", "9", "--logging_steps", "1", "--eval_steps", "16", "--lora_r", "4", "--dtype", "float32",
        "--bf16", "false", "--seed", "3", "--shuffle_buffer_size", "20", "--max_eval_samples", "9",
        "--per_device_train_batch_size", "4",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def from_disk(arguments: list[str | Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run([*arguments, "--output_dir", tmp_path_factory.mktemp("runs") / "from_disk"])


@pytest.fixture(scope="module")
def streamed(arguments: list[str | Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run([*arguments, "--streaming", "true", "--output_dir", tmp_path_factory.mktemp("runs") / "streamed"])


def run(arguments: Sequence[str | int | Path]) -> Path:
    """Run it, with a cache of its own; returns its output folder."""
    output_dir = Path(arguments[-1])
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(output_dir.parent / "cache"))
        call(sft.main, monkeypatch, *arguments)
    return output_dir


def scores(output_dir: Path) -> list[dict[str, str]]:
    """The scores of the steps and the evaluations, which do not depend on the time."""
    names = ("step", "loss", "grad_norm", "learning_rate", "eval_loss", "eval_f1", "eval_f1_quantity", "eval_samples")
    return [{name: row[name] for name in names} for row in read_log(output_dir)]


def check_same(output_dir: Path, from_disk: Path) -> None:
    """To the bit."""
    assert len(read_losses(output_dir)) == 32
    assert scores(output_dir) == scores(from_disk)
    check_equal_adapters(output_dir, from_disk)


@pytest.mark.slow
def test_a_run_trains_and_scores_as_one_from_disk_does_without_a_copy(from_disk: Path, streamed: Path) -> None:
    check_same(streamed, from_disk)
    assert [*(from_disk.parent / "cache").rglob("*.parquet")]
    assert not [*(streamed.parent / "cache").rglob("*.parquet")]
    config = yaml.safe_load((streamed / "sft_config.yaml").read_text())
    assert (config["streaming"], config["shuffle_buffer_size"]) == (True, 20)
    cards = [(output_dir / "README.md").read_text() for output_dir in (streamed, from_disk)]
    facts = [
        [line for line in card.splitlines() if line.startswith("| ") and "| time |" not in line] for card in cards
    ]
    assert facts[0] == facts[1] and len(facts[0]) > 10


def kill_after(step: int, finished: Path, output_dir: Path) -> Path:
    """A copy of a finished run, as if it had been killed before its next checkpoint."""
    shutil.copytree(finished, output_dir)
    for folder in output_dir.glob("checkpoint-*"):
        if int(folder.name.rpartition("-")[2]) > step:
            shutil.rmtree(folder)
    (output_dir / "adapter_model.safetensors").unlink()
    return output_dir


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        pytest.param(["--streaming", "true", "--dataloader_num_workers", "2"], id="workers"),
        pytest.param([], id="disk", marks=pytest.mark.faults),
    ],
)
def test_it_resumes_within_an_epoch_with_workers_or_from_a_copy_on_disk(
    arguments: list[str | Path], from_disk: Path, streamed: Path, tmp_path: Path, how: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    output_dir = kill_after(24, streamed, tmp_path / "run")
    run([*arguments, *how, "--output_dir", output_dir])
    assert "resuming at step 24/32" in capsys.readouterr().out
    check_same(output_dir, from_disk)


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        pytest.param(["--streaming", "true"], id="streamed"),
        pytest.param(["--streaming", "true", "--dataloader_num_workers", "2"], id="workers", marks=pytest.mark.faults),
        pytest.param([], id="disk", marks=pytest.mark.faults),
    ],
)
def test_it_resumes_within_an_epoch_on_an_empty_disk(
    arguments: list[str | Path], from_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: list[str],
    capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    pushed = pushed_to(f"local/streamed-{request.node.callspec.id}")[:-2]  # which names the base model
    interrupt_at(monkeypatch, 26)
    with pytest.raises(KeyboardInterrupt):
        run([*arguments, *pushed, "--streaming", "true", "--output_dir", tmp_path / "first" / "run"])
    interrupt_at(monkeypatch, None)
    run([*arguments, *pushed, *how, "--output_dir", tmp_path / "second" / "run"])
    assert "resuming at step 24/32" in capsys.readouterr().out
    check_same(tmp_path / "second" / "run", from_disk)
    is_streamed = not [*(tmp_path / "second" / "cache").rglob("*.parquet")]
    assert is_streamed == bool(how)


@pytest.mark.slow
def test_another_buffer_or_none_is_another_run(
    arguments: list[str | Path], streamed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output_dir = kill_after(24, streamed, tmp_path / "run")
    size = arguments.index("--shuffle_buffer_size")
    for others, found in ((["--shuffle_buffer_size", "21", "--streaming", "true"], "21"), ([], r"\(default\)")):
        changed = [*arguments[:size], *arguments[size + 2 :], *others, "--output_dir", output_dir]
        with pytest.raises(InputError, match=rf"another configuration \(shuffle_buffer_size: 20 -> {found}\)"):
            call(sft.main, monkeypatch, *changed)


def command(arguments: list[str | Path], *more: str | Path) -> list[str]:
    return [sys.executable, "-m", "training.sft", *map(str, [*arguments, "--streaming", "true", *more])]


@pytest.mark.faults
@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_signal_in_the_middle_of_an_epoch_loses_nothing(
    arguments: list[str | Path], from_disk: Path, tmp_path: Path, signal_: signal.Signals, workers: int
) -> None:
    words = command(arguments, "--dataloader_num_workers", str(workers), "--output_dir", tmp_path / "run")
    process = start(words)
    wait_for(process, "step 21/32")
    process.send_signal(signal_)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == (143 if signal_ == signal.SIGTERM else -signal_), output
    output = run_to_the_end(words)
    assert "resuming at step " in output
    assert re.search(r"Disk space: about .* needed: \d+ checkpoints", output)  # no dataset
    check_same(tmp_path / "run", from_disk)


@pytest.mark.faults
@pytest.mark.parametrize("workers", [0, 2])
def test_two_processes_train_what_one_does_and_read_each_row_group_once(
    arguments: list[str | Path], from_disk: Path, tmp_path: Path, workers: int
) -> None:
    launch(
        "training.sft", *arguments, "--per_device_train_batch_size", "2", "--streaming", "true",
        "--dataloader_num_workers", str(workers), "--output_dir", tmp_path / "run", config_file=CPU_2,
    )  # fmt: skip
    found, expected = (read_losses(output_dir) for output_dir in (tmp_path / "run", from_disk))
    assert [step for step, _ in found] == [step for step, _ in expected]
    assert [loss for _, loss in found[:4]] == pytest.approx([loss for _, loss in expected[:4]], abs=1e-5)


@pytest.mark.faults
def test_a_hub_that_fails_every_third_time_changes_nothing_in_a_run(
    arguments: list[str | Path], from_disk: Path, bad_hub: FaultyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = skip_waits(monkeypatch)
    faults = itertools.cycle([answer(429, retry_after="5"), answer(500), reset])
    numbers = itertools.count()
    app = bad_hub._app

    async def fail_often(scope: Any, receive: Any, send: Any) -> None:
        is_bad = "/resolve/" in scope["path"] and next(numbers) % 3 == 1
        await (next(faults)(bad_hub, scope, receive, send) if is_bad else app(scope, receive, send))

    monkeypatch.setattr(bad_hub, "_app", fail_often)
    call(sft.main, monkeypatch, *arguments, "--streaming", "true", "--output_dir", tmp_path / "run")
    assert len(slept) > 10
    check_same(tmp_path / "run", from_disk)


@pytest.mark.faults
def test_a_smoke_run_streams_and_warns_of_row_groups_that_are_too_large(
    arguments: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    options = ["--streaming", "true", "--shuffle_buffer_size", "19", "--output_dir", tmp_path / "run"]
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert call(sft.main, monkeypatch, "--smoke", *arguments, *options) == 0
    assert "smoke run: passed" in capsys.readouterr().out
    assert "The row groups have up to 5 rows, which is too much for `shuffle_buffer_size` 19" in caplog.text
    assert not [*tmp_path.rglob("*.parquet")] and not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.faults)])
def test_a_row_group_that_is_damaged_ends_the_run_in_one_line_where_it_is_reached(
    arguments: list[str | Path], folder: Path, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    file = damaged / "data" / "train-00001-of-00002.parquet"
    data = bytearray(file.read_bytes())
    data[4:1000] = bytes(996)
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"train-00001-of-00002\.parquet: row group 0, column") as error:
        call(
            sft.main, monkeypatch, *arguments, "--dataset_name", damaged, "--streaming", "true",
            "--dataloader_num_workers", str(workers), "--output_dir", tmp_path / "run",
        )  # fmt: skip
    assert "\n" not in str(error.value)
