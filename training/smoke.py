"""`training.sft --smoke`: twenty steps and one evaluation, to learn whether a run works before it takes hours."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.evaluation import format_scores
from training.options import DatasetOptions, TrainingOptions, samples_per_step, steps_per_epoch, with_changes

NUM_STEPS = 20
NUM_ROWS = 64  # of the evaluation
NUM_SETTLED = 5  # last steps, in which float16's loss scale must not cause an overflow any more


@dataclass
class SmokeOptions:
    """Whether to try the run first."""

    smoke: bool = field(
        default=False,
        metadata={
            "help": f"Try the run: {NUM_STEPS} steps and an evaluation of {NUM_ROWS} rows, in a temporary folder. "
            "Prints gradient norms, memory and speed; pushes nothing. Exit code 1 if a loss, a gradient or an answer "
            "is not finite."
        },
    )


def shorten(
    dataset_options: DatasetOptions, options: TrainingOptions, *, output_dir: Path
) -> tuple[DatasetOptions, TrainingOptions]:
    """Return the options of the smoke run: those of the run, but shorter, and without saving or pushing."""
    dataset_options = replace(
        dataset_options, max_eval_samples=min(NUM_ROWS, dataset_options.max_eval_samples), max_card_samples=0
    )
    return dataset_options, with_changes(
        options,
        output_dir=str(output_dir),
        max_steps=NUM_STEPS,
        logging_steps=1,
        logging_strategy="steps",
        save_strategy="no",
        eval_strategy="no",
        load_best_model_at_end=False,
        early_stopping_patience=None,
        push_to_hub=False,
        resume_from_hub=None,
        hub_take_over=False,
        report_to=[],
    )


class StepRecorder(TrainerCallback):
    """Records what every step logs, and when it ended."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.gradient_norms: list[float] = []
        self.seconds: list[float] = []

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))
            if "grad_norm" in logs:  # not with max_grad_norm 0
                self.gradient_norms.append(float(logs["grad_norm"]))
            self.seconds.append(60 * state.log_history[-1].get("minutes", 0.0))

    @property
    def skipped(self) -> list[int]:
        """The steps, counted from 1, whose gradient was not finite: float16's loss scale skips them."""
        return [step for step, norm in enumerate(self.gradient_norms, start=1) if not math.isfinite(norm)]


def find_problem(recorder: StepRecorder, scores: dict[str, float] | None) -> str | None:
    """Describe what is wrong with a smoke run; None if nothing is."""
    if late := [step for step in recorder.skipped if step > len(recorder.losses) - NUM_SETTLED]:
        return (
            f"the gradient is not finite at step {late[0]}, although float16's loss scale has had time to adapt: "
            "float16 overflows with this base model. Use `dtype` float32, or a GPU with bfloat16"
        )
    if scores is None:
        return None
    if not math.isfinite(scores["eval_loss"]):
        return f"the loss of the evaluation is {scores['eval_loss']}"
    if scores["eval_not_finite"]:
        return f"the logits of {scores['eval_not_finite']:.0f} of {scores['eval_samples']:.0f} answers are not finite"
    return None


def describe(
    recorder: StepRecorder, scores: dict[str, float] | None, options: TrainingOptions, *, num_rows: int
) -> list[str]:
    """Describe a smoke run, and what it says about the run with these `options` on `num_rows` rows."""
    lines = [
        f"{len(recorder.losses)} steps of {samples_per_step(options)} samples: loss {recorder.losses[0]:.3f} -> "
        f"{recorder.losses[-1]:.3f}",
        f"gradient norms {' '.join(f'{norm:.3g}' for norm in recorder.gradient_norms) or 'not computed'}",
    ]
    if recorder.skipped:
        lines.append(
            f"steps {', '.join(map(str, recorder.skipped))} were skipped while float16's loss scale adapted: normal"
        )
    if scores is not None:
        lines.append(f"{scores['eval_samples']:.0f} rows answered: {format_scores(scores)}")
    half = len(recorder.seconds) // 2
    seconds_per_step = (recorder.seconds[-1] - recorder.seconds[half]) / max(1, len(recorder.seconds) - 1 - half)
    num_steps = options.max_steps
    if num_steps <= 0:
        num_steps = math.ceil(options.num_train_epochs * steps_per_epoch(options, num_rows))
    lines.append(
        f"{samples_per_step(options) / max(seconds_per_step, 1e-9):.3g} samples/s: the {num_steps} steps of the run "
        f"would take about {format_duration(num_steps * seconds_per_step)}, without its evaluations"
    )
    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        lines.append(f"peak memory {torch.cuda.max_memory_reserved() / 1e9:.1f} of {total / 1e9:.1f} GB")
    else:
        lines.append(f"memory of the process {psutil.Process().memory_info().rss / 1e9:.1f} GB")
    return lines


def format_duration(seconds: float) -> str:
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
