"""A run that is told to stop, or killed, and started again ends where an undisturbed one ends, to the bit."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.commands import ROOT

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


def check_equal(folder: Path, undisturbed: tuple[Path, str]) -> None:
    expected = load_file(undisturbed[0] / "adapter_model.safetensors")
    found = load_file(folder / "adapter_model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].equal(tensor), name
    # Each step's loss too; the log of a restarted run begins with what the checkpoint knew.
    assert losses(folder) == losses(undisturbed[0])


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
