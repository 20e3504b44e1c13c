"""A run that is told to stop, or killed, and started again ends where an undisturbed one ends, to the bit."""

import contextlib
import csv
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

from product_vqa.errors import InputError
from product_vqa.modeling.generation import generate_answers
from tests.commands import CPU, CPU_2, ROOT, call
from training import preemption, sft
from training.checkpoints import find_damage

STEPS = 14


def command(base: Path | str, dataset: Path | str, output_dir: Path, *more: Any) -> list[str]:
    arguments: list[Any] = [
        "--config", ROOT / "training" / "configs" / "quickstart.yaml", "--dataset_name", dataset,
        "--model_name_or_path", base, "--output_dir", output_dir, "--max_steps", STEPS, "--save_steps", 3,
        "--logging_steps", 1, "--lora_r", 4, "--eval_strategy", "no", "--max_eval_samples", 0,
        "--per_device_train_batch_size", 4, "--seed", 3, *more,
    ]  # fmt: skip
    return [sys.executable, "-m", "training.sft", *map(str, arguments)]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        arguments, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for(process: subprocess.Popen[str], text: str) -> list[str]:
    """Lines of its output until one holds `text`."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError("".join(lines))


def run_to_the_end(arguments: list[str]) -> str:
    process = start(arguments)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def undisturbed(tiny_base: Path, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, run_to_the_end(command(tiny_base, tiny_dataset, folder))


def check_equal(folder: Path, undisturbed: tuple[Path, str], *, close: bool = False) -> None:
    """To the bit, or close after steps on two processes."""
    expected = load_file(undisturbed[0] / "adapter_model.safetensors")
    found = load_file(folder / "adapter_model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].equal(tensor) or (close and (found[name] - tensor).abs().max() < 2e-3), name
    # Each step's loss too; the log of a restarted run begins with what the checkpoint knew.
    ours, theirs = losses(folder), losses(undisturbed[0])
    assert [step for step, _ in ours] == [step for step, _ in theirs]
    found_losses, expected_losses = ([float(loss) for _, loss in one] for one in (ours, theirs))
    assert found_losses == pytest.approx(expected_losses, abs=1e-2 if close else 0)


def losses(folder: Path) -> list[tuple[str, str]]:
    header, *lines = (folder / "log.csv").read_text().splitlines()
    step, loss = (header.split(",").index(name) for name in ("step", "loss"))
    return [(line.split(",")[step], line.split(",")[loss]) for line in lines if line.split(",")[loss]]


def test_told_to_stop_it_saves_and_goes_on_from_that_very_step(
    undisturbed: tuple[Path, str], tiny_base: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    arguments = command(tiny_base, tiny_dataset, tmp_path)
    process = start(arguments)
    wait_for(process, "step 4/14")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    stopped = max(int(folder.name.rpartition("-")[2]) for folder in tmp_path.glob("checkpoint-*"))
    assert 4 <= stopped < STEPS
    assert f"stopped at step {stopped}, which is saved: start it again, and it goes on" in output
    assert not (tmp_path / "adapter_model.safetensors").exists()
    assert f"going on at step {stopped}/14" in run_to_the_end(arguments)
    check_equal(tmp_path, undisturbed)


def launched(arguments: list[str], *, processes: int) -> list[str]:
    """The same under `accelerate launch`, as many samples per step on so many processes."""
    config = CPU if processes == 1 else CPU_2
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    return [*launcher, *arguments[1:], "--per_device_train_batch_size", str(4 // processes)]


def training_processes(output_dir: Path) -> list[psutil.Process]:
    """Every process, launchers too, that was given this folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(output_dir) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def wait_until_gone(output_dir: Path, *, within_s: float = 60) -> None:
    until = time.monotonic() + within_s
    while alive := training_processes(output_dir):
        assert time.monotonic() < until, f"still running: {[process.cmdline() for process in alive]}"
        time.sleep(0.1)


def terminate_at(moment: str | float, arguments: list[str], output_dir: Path) -> tuple[int, str]:
    """SIGTERM to the process once it printed `moment`, or after so many seconds; its exit code and its output.

    At the end none of its processes is left.
    """
    process = start(arguments)
    try:
        if isinstance(moment, str):
            wait_for(process, moment)
        else:
            time.sleep(moment)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)  # the training's end too: it holds the pipe
        wait_until_gone(output_dir)
    finally:
        for left in training_processes(output_dir):
            left.kill()
    return process.returncode, output


def test_the_launcher_told_to_stop_leaves_a_checkpoint_and_no_orphan(
    undisturbed: tuple[Path, str], tiny_base: Path, tiny_dataset: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, sigterm: None,
) -> None:  # fmt: skip
    arguments = command(tiny_base, tiny_dataset, tmp_path)
    code, output = terminate_at("step 4/14", launched(arguments, processes=1), tmp_path)
    assert code == -signal.SIGTERM  # the launcher itself, at once; 143 in a shell
    assert "which is saved: start it again, and it goes on" in output
    call(sft.main, monkeypatch, *arguments[3:])
    check_equal(tmp_path, undisturbed)


def test_two_processes_one_of_which_is_told_to_stop_save_together(
    tiny_base: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    process = start(launched(command(tiny_base, tiny_dataset, tmp_path, "--max_steps", 200), processes=2))
    try:
        wait_for(process, "step 4/200")
        second = next(
            one for one in training_processes(tmp_path) if one.environ().get("RANK") == "1"
        )  # not the one that prints
        second.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    finally:
        for left in training_processes(tmp_path):
            left.kill()
    assert process.returncode == 1, output
    stopped = int(re.search(r"stopped at step (\d+), which is saved", output)[1])
    assert 4 <= stopped < 200
    saved = tmp_path / f"checkpoint-{stopped}"
    assert find_damage(saved) is None
    assert {"rng_state_0.pth", "rng_state_1.pth"} < {file.name for file in saved.iterdir()}


# Where a run may be when it is told: seconds after its start, or what it printed last.
MOMENTS = [0.05, 0.5, 2.0, 4.0, "memory, about", "step 1/14", "step 3/14", "step 6/14", "step 13/14", "step 14/14"]


@pytest.mark.faults
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("moment", MOMENTS)
def test_the_launcher_told_to_stop_at_any_moment(
    undisturbed: tuple[Path, str], tiny_base: Path, tiny_dataset: Path, tmp_path: Path, moment: str | float,
    processes: int,
) -> None:  # fmt: skip
    arguments = command(tiny_base, tiny_dataset, tmp_path)
    code, output = terminate_at(moment, launched(arguments, processes=processes), tmp_path)
    allowed = {-signal.SIGTERM} | ({1} if processes == 2 else set()) | ({0} if moment == "step 14/14" else set())
    assert code in allowed, output
    if isinstance(moment, str) and moment.startswith("step") and not (tmp_path / "adapter_model.safetensors").exists():
        assert [folder for folder in tmp_path.glob("checkpoint-*") if find_damage(folder) is None], output
    run_to_the_end(arguments)
    check_equal(tmp_path, undisturbed, close=processes == 2)


@pytest.mark.faults
def test_a_launcher_that_is_killed_takes_its_training_along(
    tiny_base: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    process = start(launched(command(tiny_base, tiny_dataset, tmp_path, "--max_steps", 200), processes=1))
    wait_for(process, "step 2/200")
    process.kill()
    output, _ = process.communicate(timeout=60)
    wait_until_gone(tmp_path)
    assert "which is saved: start it again, and it goes on" in output


@pytest.mark.faults
def test_told_to_stop_while_it_loads_it_ends_at_once(tiny_base: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    process = start(command(tiny_base, tiny_dataset, tmp_path))
    wait_for(process, "memory, about")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143
    assert not list(tmp_path.glob("checkpoint-*"))


@pytest.fixture
def sigterm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("strategy", "steps", "evaluation"),
    [
        pytest.param("steps", 6, 2, id="amid the run"),
        pytest.param("steps", 4, 2, id="at its last step", marks=pytest.mark.faults),
        pytest.param("epoch", 6, 1, id="at an epoch's end", marks=pytest.mark.faults),
    ],
)
def test_told_to_stop_amid_an_evaluation_it_saves_and_evaluates_when_it_is_resumed(
    tiny_run: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sigterm: None, steps: int,
    evaluation: int, strategy: str,
) -> None:  # fmt: skip
    """Four batches are answered at steps 2, 4, 6; the lowest loss on them chooses the checkpoint."""
    arguments = [
        *tiny_run, "--lora_r", 4, "--logging_steps", 1, "--max_eval_samples", 4, "--max_card_samples", 0,
        "--per_device_eval_batch_size", 1, "--load_best_model_at_end", "true", "--metric_for_best_model", "loss",
        "--greater_is_better", "false", "--eval_strategy", strategy, "--save_strategy", strategy, "--eval_steps", 2,
        "--save_steps", 2, "--save_total_limit", 5, "--max_steps", steps, "--max_train_samples", 4,
    ]  # fmt: skip
    whole, output_dir = tmp_path / "whole", tmp_path / "run"
    call(sft.main, monkeypatch, *arguments, "--output_dir", whole)
    answered = []

    def generate(*args: Any, **kwargs: Any) -> Any:
        answered.append(1)
        if len(answered) == 4 * (evaluation - 1) + 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return generate_answers(*args, **kwargs)

    monkeypatch.setattr("training.evaluation.generate_answers", generate)
    assert call(sft.main, monkeypatch, *arguments, "--output_dir", output_dir) == 143
    assert len(answered) == 4 * (evaluation - 1) + 2, "it went on answering"
    assert find_damage(output_dir / f"checkpoint-{2 * evaluation}") is None
    assert not (output_dir / "adapter_model.safetensors").exists()
    assert call(sft.main, monkeypatch, *arguments, "--output_dir", output_dir) == 0
    check_equal(output_dir, (whole, ""))
    logs = [[(row["step"], row["eval_loss"]) for row in read_log(folder) if row["eval_loss"]] for folder in
            (output_dir, whole)]  # fmt: skip
    assert logs[0] == logs[1] and len(logs[1]) == steps / 2


def read_log(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "log.csv").open()))


def test_a_second_run_on_one_folder_is_refused(
    tiny_base: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", "import fcntl, sys, time; file = open(sys.argv[1], 'a+'); fcntl.lockf(file, 2); "
         "file.write('4711'); print(flush=True); time.sleep(60)", str(tmp_path / ".lock")],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        (tmp_path / ".lock").write_text("4711")
        monkeypatch.setattr(preemption, "_WAIT_FOR_OTHER_RUN_S", 1)
        arguments = command(tiny_base, tiny_dataset, tmp_path)[3:]
        with pytest.raises(InputError, match=r"--output_dir .*: another run \(process 4711\) is training into it"):
            call(sft.main, monkeypatch, *arguments)
        assert [file.name for file in tmp_path.iterdir()] == [".lock"]
    finally:
        holder.kill()
        holder.wait()
    call(sft.main, monkeypatch, *arguments, "--max_steps", 1)  # however its holder ended, it is free


def kill_once(arguments: list[str], *, at_step: int, after_s: float) -> None:
    process = start(arguments)
    wait_for(process, f"step {at_step}/{STEPS}")
    time.sleep(after_s)
    process.kill()
    process.wait()


def test_killed_and_started_again_it_ends_in_the_same_adapter(
    undisturbed: tuple[Path, str], tiny_base: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    arguments = command(tiny_base, tiny_dataset, tmp_path)
    kill_once(arguments, at_step=7, after_s=0.05)
    assert not (tmp_path / "adapter_model.safetensors").exists()
    assert "going on at step 6/14" in run_to_the_end(arguments)
    check_equal(tmp_path, undisturbed)


@pytest.mark.faults
@pytest.mark.parametrize("kill", range(20))
def test_twenty_kills_at_random_moments_change_nothing(
    undisturbed: tuple[Path, str], tiny_base: Path, tiny_dataset: Path, tmp_path: Path, kill: int
) -> None:
    rng = random.Random(kill)
    arguments = command(tiny_base, tiny_dataset, tmp_path)
    # Every third moment lies within the writing of a checkpoint.
    step = 3 * rng.randrange(1, 4) if kill % 3 == 0 else rng.randrange(1, STEPS)
    kill_once(arguments, at_step=step, after_s=rng.uniform(0, 0.15))
    run_to_the_end(arguments)
    check_equal(tmp_path, undisturbed)
