"""To the Hub: the adapter at the end, and with every checkpoint if asked for. A Hub that is down costs no run."""

import json
import logging
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from huggingface_hub import CommitInfo, HfApi, errors
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from product_vqa.errors import InputError, argument
from product_vqa.hub import commit_files, hub_errors, read_file, retry
from product_vqa.modeling.calibration import CALIBRATION_FILE
from product_vqa.provenance import adapter_sha256

logger = logging.getLogger(__name__)

# Seconds before each further attempt of the last push: eight minutes in all. That of a checkpoint is soon superseded.
WAITS_S = (1, 5, 15, 60, 120, 300)
CHECKPOINT_WAITS_S = (1, 2, 5)


def open_repo(repo_id: str, *, private: bool | None) -> str:
    """Make the adapter's repo if it is not there; returns its id with the namespace.

    Before the training, so that nothing is trained in vain.

    Raises InputError for a token that is missing, bad or may not write there, and where no Hub answers.
    """
    with argument("hub_model_id"), hub_errors(repo_id):
        api = HfApi()
        repo_id = retry(lambda: api.create_repo(repo_id, private=private, exist_ok=True)).repo_id  # its full name
        retry(lambda: api.auth_check(repo_id, write=True))
    return repo_id


def push_adapter(
    folder: Path,
    *,
    files: list[str],
    repo_id: str,
    revision: str | None,
    message: str,
    waits_s: tuple[float, ...] = CHECKPOINT_WAITS_S,
) -> CommitInfo:
    """Upload `files` of `folder` in one commit, which removes a calibration of another adapter.

    Raises InputError if the Hub refuses it, or there is none.
    """
    with argument("hub_model_id"), hub_errors(repo_id):
        is_calibrated = _is_calibrated(repo_id, folder, revision=revision, waits_s=waits_s)
        return commit_files(
            repo_id,
            {name: folder / name for name in files},
            message=message,
            revision=revision,
            is_obsolete=lambda name: name == CALIBRATION_FILE and not is_calibrated,
            waits_s=waits_s,
        )


def _is_calibrated(repo_id: str, folder: Path, *, revision: str | None, waits_s: tuple[float, ...]) -> bool:
    """Whether the repo holds a calibration that was fitted on the adapter in `folder`."""
    try:
        content = json.loads(retry(lambda: read_file(repo_id, CALIBRATION_FILE, revision=revision), waits_s=waits_s))
        return content["adapter_sha256"] == adapter_sha256(folder)
    except (errors.EntryNotFoundError, errors.RevisionNotFoundError):
        return False
    except (ValueError, KeyError, TypeError):  # it cannot be read, or does not say what it was fitted on
        return False


def push_run(output_dir: Path, *, files: list[str], repo_id: str, revision: str | None) -> str:
    """The last push of a run, tried for some minutes, and a tag for it; returns the commit's URL.

    Raises InputError if there is no success, at once if the Hub will not have it: the adapter lies in `output_dir`,
    and the same command pushes it.
    """
    try:
        commit = push_adapter(
            output_dir, files=files, repo_id=repo_id, revision=revision,
            message="Adapter, processor, card and log of a run", waits_s=WAITS_S,
        )  # fmt: skip
    except InputError as error:
        raise InputError(
            f"{error}. The adapter is whole in {output_dir}: the same command, given again, pushes it"
        ) from error
    _tag(repo_id, commit)
    return commit.commit_url


def _tag(repo_id: str, commit: CommitInfo) -> None:
    try:
        with argument("hub_model_id"), hub_errors(repo_id):
            tag = f"run-{datetime.now(UTC):%Y%m%d-%H%M%S}"
            retry(lambda: HfApi().create_tag(repo_id, tag=tag, revision=commit.oid, exist_ok=True))
    except InputError as error:
        logger.warning("pushed, but not tagged: %s", error)


class PushCheckpoints(TrainerCallback):
    """With a checkpoint a push, in the background, of what `save` writes: never of the checkpoint itself.

    A checkpoint holds optimizer state and pickles. What could not be pushed, or while another push was on its way, is
    superseded by the next.
    """

    def __init__(self, save: Callable[[Path], list[str]], *, repo_id: str) -> None:
        """`save` writes the adapter, as it is now, into a folder and names its files; every process calls it."""
        self._save = save
        self._repo_id = repo_id
        self._executor = ThreadPoolExecutor(max_workers=1)
        self._push: Future[None] | None = None

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:
            return  # the whole run is pushed next
        if control.should_training_stop and self._push is not None:
            wait([self._push])  # told to stop: there will be no later push
        if self._is_busy(args):
            return
        folder = Path(args.output_dir) / ".on_the_way"
        try:
            files = self._save(folder)
        except OSError as error:
            logger.warning("step %s is not pushed: %s", state.global_step, error)
            return
        if state.is_world_process_zero:
            self._push = self._executor.submit(self._try, folder, files, args.hub_revision, state.global_step)

    def _is_busy(self, args: TrainingArguments) -> bool:
        """Whether the push before is still on its way; all processes are told, for they save together."""
        busy = [self._push is not None and not self._push.done()]
        if args.world_size > 1:
            broadcast_object_list(busy)
        return busy[0]

    def _try(self, folder: Path, files: list[str], revision: str | None, step: int) -> None:
        try:
            push_adapter(
                folder, files=files, repo_id=self._repo_id, revision=revision, message=f"Adapter after step {step}"
            )
        except Exception as error:
            logger.warning("step %s was not pushed, a later one will be: %s", step, error)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def on_train_end(self, *_: Any, **kwargs: Any) -> None:
        """Wait for the push that is on its way."""
        self._executor.shutdown(wait=True)
