"""What a run says while it trains: one line every `logging_steps`, one for each evaluation."""

import time
from collections.abc import Mapping
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


def format_scores(scores: Mapping[str, float]) -> str:
    """`F1 0.8310 (number and unit), 0.8200 (exact string)`"""
    return f"F1 {scores['eval_f1_quantity']:.4f} (number and unit), {scores['eval_f1']:.4f} (exact string)"


class ConsoleLines(TrainerCallback):
    """In place of the trainer's progress bar and its dictionaries.

    step 120/450  loss 0.412  lr 4.1e-03  71 rows/s  waited for data 2 %  left 1:15
    step 120/450  F1 0.8310 (number and unit), 0.8200 (exact string)
    """

    def __init__(self) -> None:
        self._waited_s = 0.0
        self._step_ended: float | None = None
        self._logged = time.perf_counter()
        self._logged_step = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._began, self._first_step = time.perf_counter(), state.global_step
        self._restart(state)
        if state.is_world_process_zero and state.global_step:
            already = "finished" if state.global_step >= state.max_steps else "going on"
            print(f"{already} at step {state.global_step}/{state.max_steps}", flush=True)

    def on_step_begin(self, *_: Any, **kwargs: Any) -> None:
        if self._step_ended is not None:
            self._waited_s += time.perf_counter() - self._step_ended

    def on_step_end(self, *_: Any, **kwargs: Any) -> None:
        self._step_ended = time.perf_counter()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        assert logs is not None
        if not state.is_world_process_zero:
            return
        step = f"step {state.global_step}/{state.max_steps}"
        if "eval_f1" in logs:
            print(f"{step}  {format_scores(logs)}", flush=True)
            self._restart(state)
        elif "loss" in logs:
            print(f"{step}  {self._progress(args, state, logs)}", flush=True)
            self._restart(state)

    def _progress(self, args: TrainingArguments, state: TrainerState, logs: dict[str, float]) -> str:
        now = time.perf_counter()
        steps, seconds = state.global_step - self._logged_step, now - self._logged
        rows = steps * args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        steps_done = max(1, state.global_step - self._first_step)
        left_s = (now - self._began) / steps_done * (state.max_steps - state.global_step)
        parts = [
            f"loss {logs['loss']:.3f}",
            f"lr {logs.get('learning_rate', 0):.1e}",
            f"{rows / seconds:.0f} rows/s",
            f"waited for data {self._waited_s / seconds:.0%}",
            f"left {left_s // 60:.0f}:{left_s % 60:02.0f}",
        ]
        if torch.cuda.is_available():
            parts.insert(-1, f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GB")
        return "  ".join(parts)

    def _restart(self, state: TrainerState) -> None:
        """Evaluation and saving are no part of the next line's speed."""
        self._waited_s, self._step_ended = 0.0, None
        self._logged, self._logged_step = time.perf_counter(), state.global_step
