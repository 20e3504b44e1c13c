"""The trainer's callbacks: console output, elapsed time, SIGTERM, early stopping, resuming, pushing checkpoints."""

import logging
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from product_vqa.errors import InputError
from training.evaluation import format_scores
from training.options import samples_per_step
from training.preemption import exit_on_sigterm

logger = logging.getLogger(__name__)


class ConsoleLines(TrainerCallback):
    """Prints a line every `logging_steps` and one per evaluation, instead of a progress bar and dictionaries.

    step 120/450  loss 0.412  lr 4.1e-03  71.3 samples/s  waited for data 2%  1:15 left
    step 120/450  F1 0.8310 (number and unit), 0.8200 (exact string)
    """

    def __init__(self) -> None:
        self._waited_s = 0.0
        self._step_ended: float | None = None
        self._began = self._logged = time.perf_counter()
        self._first_step = self._logged_step = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._began, self._first_step = time.perf_counter(), state.global_step
        self._start_interval(state)
        if state.is_world_process_zero and state.global_step:
            what = "finished" if state.global_step >= state.max_steps else "resuming"
            print(f"{what} at step {state.global_step}/{state.max_steps}", flush=True)

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
        if not (state.is_world_process_zero and logs):
            return
        if "eval_f1" in logs:
            text = format_scores(logs)
        elif "loss" in logs:
            text = self._format_progress(args, state, logs)
        else:
            return
        print(f"step {state.global_step}/{state.max_steps}  {text}", flush=True)
        self._start_interval(state)

    def _format_progress(self, args: TrainingArguments, state: TrainerState, logs: dict[str, float]) -> str:
        now = time.perf_counter()
        seconds = now - self._logged
        samples = (state.global_step - self._logged_step) * samples_per_step(args)
        seconds_per_step = (now - self._began) / max(1, state.global_step - self._first_step)
        left_s = seconds_per_step * (state.max_steps - state.global_step)
        parts = [
            f"loss {logs['loss']:.3f}",
            f"lr {logs.get('learning_rate', 0):.1e}",
            f"{samples / seconds:.1f} samples/s",
            f"waited for data {self._waited_s / seconds:.0%}",
        ]
        if torch.cuda.is_available():
            parts.append(f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB")
        return "  ".join([*parts, f"{left_s // 60:.0f}:{left_s % 60:02.0f} left"])

    def _start_interval(self, state: TrainerState) -> None:
        """Evaluating and saving do not count as time of the next line's steps."""
        self._waited_s, self._step_ended = 0.0, None
        self._logged, self._logged_step = time.perf_counter(), state.global_step


class Clock(TrainerCallback):
    """Measures the training time, including that of the runs before it that this one resumes."""

    def __init__(self) -> None:
        self._minutes_before, self._began = 0.0, time.perf_counter()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._began = time.perf_counter()
        logged = [entry["minutes"] for entry in state.log_history if "minutes" in entry]
        self._minutes_before = logged[-1] if logged else 0.0

    def minutes(self) -> float:
        return self._minutes_before + (time.perf_counter() - self._began) / 60


class PreemptedError(Exception):
    """SIGTERM arrived during an evaluation, which is abandoned."""


class SaveOnSigterm(TrainerCallback):
    """After a SIGTERM to any process, all of them finish the step, save a checkpoint and end the training."""

    def __init__(self) -> None:
        self.is_stopped = False
        self._is_signalled = False
        self._reduced: tuple[torch.Tensor, torch.cuda.Event] | None = None  # on its way from the GPU

    def on_train_begin(self, *_: Any, **kwargs: Any) -> None:
        signal.signal(signal.SIGTERM, self._handle)

    def _handle(self, *_: Any) -> None:
        self.request()

    def request(self) -> None:
        """Stop as after a SIGTERM. Any thread may call this."""
        self._is_signalled = True

    def stop(self, control: TrainerControl) -> None:
        self.is_stopped = control.should_save = control.should_training_stop = True

    def stop_evaluation(self, device: torch.device) -> None:
        """Raises PreemptedError if any process got a SIGTERM. All processes call it, between two batches."""
        if self._is_any_signalled(device):
            raise PreemptedError

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._was_any_signalled(args.device):
            self.stop(control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not self.is_stopped and self._is_any_signalled(args.device):  # while saving: make no further step
            self.is_stopped = control.should_training_stop = True

    def on_train_end(self, *_: Any, **kwargs: Any) -> None:
        exit_on_sigterm()
        self.is_stopped |= self._is_signalled  # since the last check

    def _is_any_signalled(self, device: torch.device) -> bool:
        """Whether any process got a SIGTERM. With several processes, each waits here for the others."""
        if not torch.distributed.is_initialized():
            return self._is_signalled
        signalled = torch.tensor(float(self._is_signalled), device=device)
        torch.distributed.all_reduce(signalled, op=torch.distributed.ReduceOp.MAX)
        return bool(signalled.item())

    def _was_any_signalled(self, device: torch.device) -> bool:
        """Like `_is_any_signalled`, but on GPUs as of the step before, so that no GPU has to empty its queue."""
        if device.type != "cuda" or not torch.distributed.is_initialized():
            return self._is_any_signalled(device)
        before = self._reduced
        signalled = torch.full((), float(self._is_signalled), device=device)
        torch.distributed.all_reduce(signalled, op=torch.distributed.ReduceOp.MAX)
        on_host = torch.empty((), pin_memory=True).copy_(signalled, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        self._reduced = on_host, copied
        if before is None:
            return False
        on_host_before, copied_before = before
        copied_before.synchronize()
        return bool(on_host_before)


class StopEarly(TrainerCallback):
    """Stops after `patience` evaluations without a better one.

    It counts the evaluations before a restart too; transformers' EarlyStoppingCallback would start from zero.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if is_out_of_patience(self._patience, args, state):
            control.should_training_stop = True


def is_out_of_patience(patience: int, args: TrainingArguments, state: TrainerState) -> bool:
    """Whether `patience` evaluations have passed since the best one."""
    assert args.metric_for_best_model is not None
    name = "eval_" + args.metric_for_best_model.removeprefix("eval_")
    values = [entry[name] for entry in state.log_history if name in entry]
    if not values:
        return False
    best = max(values) if args.greater_is_better else min(values)
    return len(values) - 1 - values.index(best) >= patience


class ResumeRun(TrainerCallback):
    """Restores what a checkpoint does not hold: where the best checkpoint is now, and an evaluation that was stopped.

    Add it last: when it evaluates, the other callbacks must already know at which step the run resumes.
    """

    def __init__(self, finish_evaluation: Callable[[], None], *, folders: list[Path]) -> None:
        """`folders` may hold the checkpoints of the run; `finish_evaluation` is the trainer's."""
        self._finish_evaluation = finish_evaluation
        self._folders = folders

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._find_best_checkpoint(state)
        self._finish_evaluation()
        self._find_best_checkpoint(state)

    def _find_best_checkpoint(self, state: TrainerState) -> None:
        """The best checkpoint is next to the others, wherever their folder was when its path was recorded."""
        if not state.best_global_step:
            return
        candidates = [folder / f"checkpoint-{state.best_global_step}" for folder in self._folders]
        found = [str(candidate) for candidate in candidates if candidate.is_dir()]
        state.best_model_checkpoint = found[0] if found else None


class PushCheckpoints(TrainerCallback):
    """Pushes the adapter, in the background, whenever a checkpoint is saved.

    It never pushes the checkpoint itself, which holds optimizer state and pickles. An adapter that could not be
    pushed, or was saved while another push was in progress, is superseded by the next one.
    """

    def __init__(self, save: Callable[[Path], list[str]], *, push: Callable[..., Any]) -> None:
        """`save` writes the current adapter to a folder and returns its files' names; every process calls it.

        `push` is `training.push.push_adapter` for a repo.
        """
        self._save = save
        self._push_folder = push
        self._executor = ThreadPoolExecutor(max_workers=1)
        self._push: Future[None] | None = None

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:
            return  # the finished adapter is pushed next
        if control.should_training_stop and self._push is not None:
            wait([self._push])  # the run is stopping: there will be no later push
        if self._is_busy(args):
            return
        folder = self._folder(args)
        try:
            files = self._save(folder)
        # A full disk; the Hub, of which the card of a streamed run needs rows.
        except (OSError, SafetensorError, InputError) as error:
            logger.warning("step %s is not pushed: %s", state.global_step, error)
            return
        if state.is_world_process_zero:
            self._push = self._executor.submit(
                self._push_and_remove, folder, files, revision=args.hub_revision, step=state.global_step
            )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Wait for the push in progress, and remove what a killed one left."""
        self._executor.shutdown(wait=True)
        if state.is_world_process_zero:
            shutil.rmtree(self._folder(args), ignore_errors=True)

    def _folder(self, args: TrainingArguments) -> Path:
        return Path(str(args.output_dir)) / ".on_the_way"

    def _is_busy(self, args: TrainingArguments) -> bool:
        """Whether the last push is still in progress. All processes get the same answer: they save together."""
        busy = [self._push is not None and not self._push.done()]
        if args.world_size > 1:
            broadcast_object_list(busy)
        return busy[0]

    def _push_and_remove(self, folder: Path, files: list[str], *, revision: str | None, step: int) -> None:
        try:
            self._push_folder(folder, files=files, revision=revision, message=f"Adapter after step {step}")
        except Exception as error:  # whatever it is, it must not end the run
            logger.warning("the push of step %s failed (%s); the next checkpoint will be pushed instead", step, error)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
