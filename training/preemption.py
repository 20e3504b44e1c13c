"""Told to stop, a run saves first: SIGTERM is what a cluster sends before it takes a machine away."""

import signal
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

EXIT_CODE = 128 + signal.SIGTERM  # 143, as if the signal had ended the process


class SaveOnSigterm(TrainerCallback):
    """After SIGTERM to any process: finish the step, save a checkpoint, end the training. All processes together."""

    def __init__(self) -> None:
        self.is_stopped = False
        self._is_told = False

    def on_train_begin(self, *_: Any, **kwargs: Any) -> None:
        signal.signal(signal.SIGTERM, self._remember)

    def _remember(self, *_: Any) -> None:
        self._is_told = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if _any_process(self._is_told, device=args.device) and state.global_step < state.max_steps:
            self.is_stopped = control.should_save = control.should_training_stop = True

    def on_train_end(self, *_: Any, **kwargs: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _any_process(is_told: bool, *, device: torch.device) -> bool:
    """One says it, all know it: they must save at the same step."""
    if not torch.distributed.is_initialized():
        return is_told
    told = torch.tensor(float(is_told), device=device)
    torch.distributed.all_reduce(told, op=torch.distributed.ReduceOp.MAX)
    return bool(told.item())
