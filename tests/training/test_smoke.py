"""--smoke: a short run that says whether the long one would work, and leaves nothing behind."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file
from transformers import TrainerControl, TrainerState

from local_hub import LocalHub
from tests.commands import call
from training import sft
from training.options import TrainingOptions
from training.smoke import StepRecorder, describe, find_problem, format_duration

SCORES = {"eval_loss": 1.0, "eval_not_finite": 0, "eval_samples": 8, "eval_f1": 0.1, "eval_f1_quantity": 0.2}


def recorded(norms: list[float]) -> StepRecorder:
    recorder = StepRecorder()
    recorder.losses = [5.0 - 0.1 * step for step in range(len(norms))]
    recorder.gradient_norms, recorder.seconds = norms, [2.0 * step for step in range(len(norms))]
    return recorder


@pytest.mark.slow
def test_a_run_that_works_passes_and_nothing_is_written_or_pushed(
    hub: LocalHub, tiny_run: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    options = [
        "--output_dir", tmp_path / "run", "--push_to_hub", "--hub_model_id", "local/smoke", "--hub_strategy",
        "checkpoint", "--resume_from_hub", "true", "--hub_take_over", "true",
    ]  # fmt: skip
    assert call(sft.main, monkeypatch, "--smoke", *tiny_run, *options, "--num_train_epochs", "3") == 0
    printed = capsys.readouterr().out.splitlines()
    lines = [line for line in printed if line.startswith("smoke run: ")]
    assert len([line for line in printed if line.startswith("step ") and "loss" in line]) == 20
    assert lines[0].startswith("smoke run: 20 steps of 2 samples: loss ")
    assert len(lines[1].split()) == 2 + 2 + 20
    assert lines[2].startswith("smoke run: 8 rows answered: F1 ")
    assert "the 48 steps of the run would take about" in lines[3]
    assert lines[-1] == "smoke run: passed"
    assert not list(tmp_path.iterdir())
    assert not HfApi().repo_exists("local/smoke")


@pytest.mark.slow
def test_what_overflows_fails_with_exit_code_1(
    tiny_base: Path, tiny_run: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    base = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    weights = load_file(base / "model.safetensors")
    name = "language_model.model.norm.weight"
    save_file(weights | {name: torch.full_like(weights[name], 1e38)}, base / "model.safetensors", {"format": "pt"})
    options = ["--smoke", *tiny_run, "--model_name_or_path", base, "--output_dir", tmp_path / "run"]
    assert call(sft.main, monkeypatch, *options) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(
        "smoke run: FAILED: the loss is nan per token at step 1, in the batch of the rows with index"
    )


def test_float16_may_skip_the_first_steps_only() -> None:
    adapting = recorded([math.inf, math.nan, 2.0, *[1.0] * 17])
    assert find_problem(adapting, SCORES) is None
    lines = describe(adapting, SCORES, TrainingOptions(output_dir="x", max_steps=100), num_rows=10)
    assert lines[2] == "steps 1, 2 were skipped while float16's loss scale adapted: normal"
    assert "gradient norms inf nan 2 1 1" in lines[1]
    late = find_problem(recorded([1.0] * 17 + [math.nan, 1.0, 1.0]), SCORES)
    assert late is not None and late.startswith("the gradient is not finite at step 18")


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"eval_loss": math.nan}, "the loss of the evaluation is nan"),
        ({"eval_not_finite": 3}, "the logits of 3 of 8 answers are not finite"),
    ],
)
def test_an_evaluation_that_overflows_is_a_problem(changed: dict[str, float], problem: str) -> None:
    assert find_problem(recorded([1.0] * 20), SCORES | changed) == problem
    assert find_problem(recorded([1.0] * 20), None) is None


def test_the_duration_of_the_run_is_that_of_the_later_steps() -> None:
    options = TrainingOptions(output_dir="x", max_steps=7200, per_device_train_batch_size=4)
    (speed,) = (line for line in describe(recorded([1.0] * 20), None, options, num_rows=10) if "samples/s" in line)
    assert speed == "2 samples/s: the 7200 steps of the run would take about 4.0 hours, without its evaluations"
    assert (format_duration(90), format_duration(7.2)) == ("1.5 minutes", "7 seconds")


def test_a_run_without_gradient_norms_passes() -> None:
    """With max_grad_norm 0, the trainer logs none."""
    recorder, options = StepRecorder(), TrainingOptions(output_dir="x", max_steps=2)
    state = TrainerState(log_history=[{"minutes": 0.1}])
    for loss in (5.0, 4.0):
        recorder.on_log(options, state, TrainerControl(), {"loss": loss})
    assert find_problem(recorder, SCORES) is None
    assert "gradient norms not computed" in describe(recorder, SCORES, options, num_rows=10)
