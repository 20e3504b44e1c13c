"""Push the complete state of a run with each checkpoint, in the background (`hub_strategy` checkpoint)."""

import contextlib
import logging
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from product_vqa.distributed import init_distributed
from product_vqa.errors import first_line
from training.hub_state import STATE_FOLDER, StateRepo
from training.portable_checkpoint import export_checkpoint, link_checkpoint
from training.push import CHECKPOINT_WAITS_S, WAITS_S
from training.trainer import PaliGemmaTrainer

logger = logging.getLogger(__name__)

STAGING_FOLDER = ".on_the_way"
# After a save, the training waits so long for the upload. Without this, a kill would repeat the steps that were made
# during the upload, in addition to those since the save.
GRACE_S = 5.0


@dataclass(frozen=True)
class _Staged:
    """The files of one step, which are kept until they are pushed or superseded."""

    step: int
    folder: Path
    files: list[str]  # of the adapter
    at: float = field(default_factory=time.monotonic)


def push_states(
    trainer: PaliGemmaTrainer, repo: StateRepo, save: Callable[[Path], list[str]], *, run: dict[str, Any]
) -> "PushStates":
    """Let a trainer push its state with each checkpoint, and stop where another session takes the repo over."""
    repo.lease.call_on_loss(trainer.request_stop)
    is_first = trainer.is_world_process_zero()
    keeps_best = bool(trainer.args.load_best_model_at_end)
    states = PushStates(save, repo=repo if is_first else None, run=run, keeps_best=keeps_best)
    trainer.add_callback(states)
    return states


class PushStates(TrainerCallback):
    """Pushes the adapter and the complete state of the run whenever a checkpoint is saved.

    One push at a time. A state that is saved during a push waits for its turn, and is superseded by the next one. A
    push that fails is a warning; the next state is pushed instead. Only the first process does anything.

    Of two threads, the training stages states, and the one of `StateRepo.pushes` pushes them. The lock is for what
    both change.
    """

    def __init__(
        self, save: Callable[[Path], list[str]], *, repo: StateRepo | None, run: dict[str, Any], keeps_best: bool
    ) -> None:
        """`save` writes the current adapter to a folder and returns its files' names. `run` describes the run."""
        self._save = save
        self._repo = repo
        self._run = run
        self._keeps_best = keeps_best
        self._push: Future[None] | None = None
        self._is_ending = False
        self._lock = threading.Lock()
        self._waiting: _Staged | None = None
        self._failed: _Staged | None = None  # the last one, unless a newer one is being pushed
        self._has_failed = False  # the last push
        self._pushed: _Staged | None = None

    def on_train_begin(self, args: TrainingArguments, *_: Any, **kwargs: Any) -> None:
        if self._repo is not None:  # what a killed run left
            shutil.rmtree(Path(str(args.output_dir), STAGING_FOLDER), ignore_errors=True)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._repo is None or self._repo.lease.taken_by is not None:
            return
        self._is_ending = control.should_training_stop
        folder = Path(str(args.output_dir), STAGING_FOLDER, f"step-{state.global_step}")
        try:
            staged = self._stage(args, state, folder)
        except Exception as error:  # whatever it is, it must not end the run: the disk may be full
            _remove(folder)
            reason = first_line(error)
            logger.warning("the state of step %s is not pushed: %s; %s", state.global_step, reason, self._newest())
            return
        with self._lock:
            superseded, self._waiting = self._waiting, staged
        if superseded is not None:
            _remove(superseded.folder)
            logger.warning(
                "the state of step %s is superseded before it was pushed; %s", superseded.step, self._newest()
            )
        has_failed = self._has_failed
        self._push = self._repo.pushes.submit(self._push_waiting)
        if self._is_ending:
            logger.info("pushing the state of step %s before the run ends", state.global_step)
        elif not has_failed:  # else the Hub is probably down
            wait([self._push], timeout=GRACE_S)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Wait for the pushes. Every process waits: one that ends makes torchrun end the others."""
        if self._push is not None:
            wait([self._push])
        init_distributed().wait_for_everyone()

    def retry(self) -> None:
        """Push the last state again, for some minutes, if that failed; only after the training."""
        if self._failed is not None:
            self._push_staged(self._failed, waits_s=WAITS_S)
        if self._failed is not None:  # a rerun does not need it: the checkpoint is in the output folder
            _remove(self._failed.folder)

    def check_head(self, commit: str) -> None:
        """Raise InputError if another session has taken over, before or at a commit of the pushed branch."""
        if self._repo is not None:
            self._repo.check_head(commit)

    def _stage(self, args: TrainingArguments, state: TrainerState, folder: Path) -> _Staged:
        """Put what the push needs into a folder: the trainer may remove the checkpoint during the push."""
        shutil.rmtree(folder, ignore_errors=True)
        best: Path | None = None
        if self._keeps_best and state.best_model_checkpoint and state.best_global_step != state.global_step:
            best = Path(state.best_model_checkpoint)
        files = self._save(folder)
        link_checkpoint(Path(str(args.output_dir), f"checkpoint-{state.global_step}"), folder / "linked", best=best)
        return _Staged(state.global_step, folder, files)

    def _push_waiting(self) -> None:
        with self._lock:
            staged, self._waiting = self._waiting, None
        if staged is not None:
            self._push_staged(staged)

    def _push_staged(self, staged: _Staged, *, waits_s: tuple[float, ...] = CHECKPOINT_WAITS_S) -> None:
        assert self._repo is not None
        obsolete, self._failed = self._failed, None
        if obsolete is not None and obsolete is not staged:
            _remove(obsolete.folder)
        try:
            state_folder = staged.folder / STATE_FOLDER
            shutil.rmtree(state_folder, ignore_errors=True)
            names = export_checkpoint(staged.folder / "linked", state_folder, run=self._run)
            files = [*staged.files, *(f"{STATE_FOLDER}/{name}" for name in names)]
            self._repo.push(staged.folder, files=files, step=staged.step, waits_s=waits_s)
        except Exception as error:  # whatever it is, it must not end the run
            if self._repo.lease.taken_by is None:  # else the run ends, and says why
                logger.warning("the push of step %s failed (%s); %s", staged.step, first_line(error), self._newest())
            self._failed, self._has_failed = staged, True
        else:
            logger.info("pushed: adapter and state of step %s", staged.step)
            self._pushed, self._has_failed = staged, False
            _remove(staged.folder)

    def _newest(self) -> str:
        """What a restart on another disk would resume from now, and what is pushed next."""
        newest = "this session has pushed none so far"
        if (pushed := self._pushed) is not None:
            minutes = (time.monotonic() - pushed.at) / 60
            newest = f"the newest one on the Hub is of step {pushed.step}, {minutes:.0f} minutes old"
        return newest if self._is_ending else f"{newest}; the next one will be pushed instead"


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # another step is in it
        folder.parent.rmdir()
