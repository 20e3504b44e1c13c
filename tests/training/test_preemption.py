"""A run that is stopped or killed and rerun ends in the same adapter as an undisturbed one, to the bit."""

import contextlib
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

from product_vqa.errors import InputError
from product_vqa.modeling.generation import generate_answers
from tests.commands import CPU, CPU_2, call
from tests.training.runs import STEPS, command, load_adapter, read_log, read_losses, run_to_the_end, start, wait_for
from training import preemption, sft
from training.checkpoints import find_damage

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(tiny_base: Path, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as monkeypatch:
        call(sft.main, monkeypatch, *command(tiny_base, tiny_dataset, folder)[3:])
    return folder


def check_equal(folder: Path, undisturbed: Path, *, close: bool = False) -> None:
    """To the bit, or close after steps on two processes."""
    expected, found = load_adapter(undisturbed), load_adapter(folder)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].equal(tensor) or (close and (found[name] - tensor).abs().max() < 2e-3), name
    # Each step's loss too: the log of a resumed run begins with that of its checkpoint.
    ours, theirs = read_losses(folder), read_losses(undisturbed)
    assert [step for step, _ in ours] == [step for step, _ in theirs]
    assert [loss for _, loss in ours] == pytest.approx([loss for _, loss in theirs], abs=1e-2 if close else 0)


def test_after_a_sigterm_it_saves_and_resumes_from_that_very_step(
    undisturbed: Path, tiny_base: Path, tiny_dataset: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sigterm: None,
) -> None:  # fmt: skip
    arguments = command(tiny_base, tiny_dataset, tmp_path)
    process = start(arguments)
    wait_for(process, "step 4/14")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    stopped = max(int(folder.name.rpartition("-")[2]) for folder in tmp_path.glob("checkpoint-*"))
    assert 4 <= stopped < STEPS
    assert f"stopped and saved at step {stopped}; rerun the same command to resume" in output
    assert not (tmp_path / "adapter_model.safetensors").exists()
    call(sft.main, monkeypatch, *arguments[3:])
    assert f"resuming at step {stopped}/14" in capsys.readouterr().out
    check_equal(tmp_path, undisturbed)


def launched(arguments: list[str], *, processes: int) -> list[str]:
    """The same under `accelerate launch`, with the same samples per step on this number of processes."""
    config = CPU if processes == 1 else CPU_2
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    return [*launcher, *arguments[1:], "--per_device_train_batch_size", str(4 // processes)]


def training_processes(output_dir: Path) -> list[psutil.Process]:
    """Every process, launchers included, with this folder in its command line."""
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
    """Send SIGTERM once the process printed `moment`, or after that many seconds; returns its exit code and output.

    At the end none of its processes is left.
    """
    process = start(arguments)
    try:
        if isinstance(moment, str):
            wait_for(process, moment)
        else:
            time.sleep(moment)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)  # until the training ends too: it holds the pipe
        wait_until_gone(output_dir)
    finally:
        for left in training_processes(output_dir):
            left.kill()
    return process.returncode, output


@pytest.mark.faults
def test_a_sigterm_to_the_launcher_leaves_a_checkpoint_and_no_orphan(
    undisturbed: Path, tiny_base: Path, tiny_dataset: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, sigterm: None,
) -> None:  # fmt: skip
    arguments = command(tiny_base, tiny_dataset, tmp_path)
    code, output = terminate_at("step 4/14", launched(arguments, processes=1), tmp_path)
    assert code == -signal.SIGTERM  # the launcher itself, at once; 143 in a shell
    assert "rerun the same command to resume" in output
    call(sft.main, monkeypatch, *arguments[3:])
    check_equal(tmp_path, undisturbed)


@pytest.mark.faults
def test_two_processes_save_together_after_a_sigterm_to_one_of_them(
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
    stopped = int(re.search(r"stopped and saved at step (\d+)", output)[1])
    assert 4 <= stopped < 200
    saved = tmp_path / f"checkpoint-{stopped}"
    assert find_damage(saved) is None
    assert {"rng_state_0.pth", "rng_state_1.pth"} < {file.name for file in saved.iterdir()}


# When the SIGTERM arrives: seconds after the start, or after what was printed last.
MOMENTS = [0.05, 0.5, 2.0, 4.0, "memory, about", "step 1/14", "step 3/14", "step 6/14", "step 13/14", "step 14/14"]


@pytest.mark.faults
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_sigterm_to_the_launcher_at_any_moment(
    undisturbed: Path, tiny_base: Path, tiny_dataset: Path, tmp_path: Path, moment: str | float,
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
    assert "rerun the same command to resume" in output


@pytest.mark.faults
def test_a_sigterm_during_loading_ends_it_at_once(tiny_base: Path, tiny_dataset: Path, tmp_path: Path) -> None:
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
        pytest.param("steps", 6, 2, id="during the run", marks=pytest.mark.faults),
        pytest.param("steps", 4, 2, id="at its last step", marks=pytest.mark.faults),
        pytest.param("epoch", 6, 1, id="at an epoch's end", marks=pytest.mark.faults),
    ],
)
def test_after_a_sigterm_in_an_evaluation_it_saves_and_evaluates_when_it_is_resumed(
    tiny_run: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sigterm: None, steps: int,
    evaluation: int, strategy: str,
) -> None:  # fmt: skip
    """Four batches are answered at steps 2, 4, 6; the lowest loss on them selects the checkpoint."""
    arguments = [
        *tiny_run, "--lora_r", 4, "--logging_steps", 1, "--max_eval_samples", 4, "--max_card_samples", 0,
        "--per_device_eval_batch_size", 1, "--load_best_model_at_end", "true", "--metric_for_best_model", "loss",
        "--greater_is_better", "false", "--eval_strategy", strategy, "--save_strategy", strategy, "--eval_steps", 2,
        "--save_steps", 2, "--save_total_limit", 5, "--max_steps", steps, "--max_train_samples", 4,
    ]  # fmt: skip
    expected, output_dir = tmp_path / "expected", tmp_path / "run"
    call(sft.main, monkeypatch, *arguments, "--output_dir", expected)
    answered = []

    def generate(*args: Any, **kwargs: Any) -> Any:
        answered.append(1)
        if len(answered) == 4 * (evaluation - 1) + 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return generate_answers(*args, **kwargs)

    monkeypatch.setattr("training.evaluation.generate_answers", generate)
    assert call(sft.main, monkeypatch, *arguments, "--output_dir", output_dir) == 143
    assert len(answered) == 4 * (evaluation - 1) + 2, "it continued to answer"
    assert find_damage(output_dir / f"checkpoint-{2 * evaluation}") is None
    assert not (output_dir / "adapter_model.safetensors").exists()
    assert call(sft.main, monkeypatch, *arguments, "--output_dir", output_dir) == 0
    check_equal(output_dir, expected)
    logs = [[(row["step"], row["eval_loss"]) for row in read_log(folder) if row["eval_loss"]] for folder in
            (output_dir, expected)]  # fmt: skip
    assert logs[0] == logs[1] and len(logs[1]) == steps / 2


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
        monkeypatch.setattr(preemption, "WAIT_FOR_OTHER_RUN_S", 1)
        arguments = command(tiny_base, tiny_dataset, tmp_path)[3:]
        with pytest.raises(InputError, match=r"--output_dir .* is in use by another run \(process 4711\)"):
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


@pytest.mark.faults
def test_killed_and_rerun_it_ends_in_the_same_adapter(
    undisturbed: Path, tiny_base: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    arguments = command(tiny_base, tiny_dataset, tmp_path)
    kill_once(arguments, at_step=7, after_s=0.05)
    assert not (tmp_path / "adapter_model.safetensors").exists()
    assert "resuming at step 6/14" in run_to_the_end(arguments)
    check_equal(tmp_path, undisturbed)


@pytest.mark.faults
@pytest.mark.parametrize("kill", range(20))
def test_twenty_kills_at_random_moments_change_nothing(
    undisturbed: Path, tiny_base: Path, tiny_dataset: Path, tmp_path: Path, kill: int
) -> None:
    rng = random.Random(kill)
    arguments = command(tiny_base, tiny_dataset, tmp_path)
    # Every third kill comes while a checkpoint is written.
    step = 3 * rng.randrange(1, 4) if kill % 3 == 0 else rng.randrange(1, STEPS)
    kill_once(arguments, at_step=step, after_s=rng.uniform(0, 0.15))
    run_to_the_end(arguments)
    check_equal(tmp_path, undisturbed)
