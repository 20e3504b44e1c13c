"""The adapter as a folder and as a Hub repo: save its files, create its repo, push them in one commit."""

import csv
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import CommitInfo, HfApi, errors
from peft import PeftModel
from torch.distributed.tensor import DTensor

from product_vqa.cards import CARD_FILE, mark_card, merge_cards
from product_vqa.documents import parse_json
from product_vqa.errors import InputError, argument
from product_vqa.hub import Location, commit_files, hub_errors, read_file, retry
from product_vqa.provenance import CALIBRATION_FILE, adapter_sha256
from product_vqa.schemas import save_schema
from product_vqa.task.prompt import BaseSettings, save_task
from product_vqa.task.schema_file import SCHEMA_FILE
from training.loading import Sources
from training.model_card import describe_training, make_card
from training.run_config import save_config
from training.trainer import PaliGemmaTrainer

logger = logging.getLogger(__name__)

LOG_FILE = "log.csv"
LAST_FILE = "adapter_config.json"  # put in place last: a folder that has it is complete

# Seconds before each further attempt: eight minutes in all for the last push; a checkpoint's push is soon superseded.
WAITS_S = (1, 5, 15, 60, 120, 300)
CHECKPOINT_WAITS_S = (1, 2, 5)


# ---- The folder ----------------------------------------------------------------------------------------------------


def save_adapter(
    folder: Path,
    trainer: PaliGemmaTrainer,
    *,
    adapter_id: str,
    sources: Sources,
    config: dict[str, Any],
    scores: dict[str, float] | None,
    is_selected_by_scores: bool,
) -> list[str]:
    """Write the adapter, its processor, prompt template, configuration, log and card to `folder`.

    All files are safetensors or text; the adapter names its base model by repo and commit, never by a local path.
    `adapter_id` is its own name, `config` the resolved configuration (`training.run_config`). `scores` are those of an
    evaluation, and `is_selected_by_scores` says whether the same rows selected the checkpoint. Every process must call
    this; the first one writes and returns the names of the files.
    """
    weights = gather_adapter(trainer.model)
    if not trainer.is_world_process_zero():
        return []
    temporary = folder / ".publication"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    _save_weights(trainer.model, weights, temporary, base_model=sources.named_base_model)
    _save_processor(trainer.processing_class, temporary)
    save_task(temporary, BaseSettings(**{option.name: config[option.name] for option in fields(BaseSettings)}))
    save_schema(sources.schema, temporary)
    save_config(temporary, config)
    _save_log(temporary / LOG_FILE, trainer.state.log_history)
    training = describe_training(
        trainer, sources, adapter_id=adapter_id, scores=scores, is_selected_by_scores=is_selected_by_scores
    )
    card, earlier_card = mark_card(str(make_card(training, config))), folder / CARD_FILE
    if earlier_card.is_file():
        card = merge_cards(card, earlier_card.read_bytes().decode("utf-8", "replace"))
    (temporary / CARD_FILE).write_bytes(card.encode())
    names = sorted(file.name for file in temporary.iterdir())
    if SCHEMA_FILE not in names:  # the challenge's: a file here is of an earlier run, on another dataset
        (folder / SCHEMA_FILE).unlink(missing_ok=True)
    for name in [*(name for name in names if name != LAST_FILE), LAST_FILE]:
        os.replace(temporary / name, folder / name)
    temporary.rmdir()
    return names


def gather_adapter(model: PeftModel) -> dict[str, torch.Tensor]:
    """Return the adapter's complete weights on the CPU, however they are sharded. Every process must call this."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if any(hasattr(parameter, "ds_id") for parameter in trained.values()):  # ZeRO-3
        import deepspeed  # optional: installed by those who launch with it

        with deepspeed.zero.GatheredParameters(list(trained.values())):
            return {name: parameter.detach().cpu().clone() for name, parameter in trained.items()}
    return {
        name: (parameter.full_tensor() if isinstance(parameter, DTensor) else parameter).detach().cpu()
        for name, parameter in trained.items()
    }


def _save_weights(model: PeftModel, weights: dict[str, torch.Tensor], folder: Path, *, base_model: Location) -> None:
    """Save the weights under the base model's public name: peft would name the folder that it was loaded from."""
    config = model.peft_config["default"]
    before = config.base_model_name_or_path, config.revision
    config.base_model_name_or_path, config.revision = base_model.name, base_model.revision
    try:
        # No embeddings are adapted. To find that out, peft would ask the Hub for the base model's config.
        model.save_pretrained(str(folder), state_dict=weights, save_embedding_layers=False)
    finally:  # checkpoints are for this machine
        config.base_model_name_or_path, config.revision = before


def _save_processor(processor: Any, folder: Path) -> None:
    """Save the processor as it was loaded: its last call left padding and truncation in the tokenizer."""
    processor.tokenizer.backend_tokenizer.no_padding()
    processor.tokenizer.backend_tokenizer.no_truncation()
    processor.save_pretrained(folder)


def _save_log(file: Path, log_history: list[dict[str, Any]]) -> None:
    columns = ["step", "epoch"]
    for entry in log_history:
        columns += [key for key in entry if key not in columns]
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=columns)
        writer.writeheader()
        writer.writerows(log_history)


# ---- The repo ------------------------------------------------------------------------------------------------------


@contextmanager
def hub_token(token: str | None) -> Iterator[None]:
    """Let the Hub's client use the token of `--hub_token`, in the way in which it finds one anyway."""
    if not token:
        yield
        return
    logger.warning("`hub_token` is visible to all users of this machine (ps); set HF_TOKEN, or run `hf auth login`")
    before = os.environ.get("HF_TOKEN")
    os.environ["HF_TOKEN"] = token
    try:
        yield
    finally:
        os.environ.pop("HF_TOKEN")
        if before is not None:
            os.environ["HF_TOKEN"] = before


def open_repo(repo_id: str, *, private: bool | None) -> str:
    """Create the adapter's repo if it does not exist, and return its id with the namespace.

    This is done before the training, so that nothing is trained that cannot be pushed. Raises InputError for a token
    that is missing, invalid or has no write access, and where no Hub answers.
    """
    with argument("hub_model_id"), hub_errors(repo_id):
        api = HfApi()
        full_id = retry(lambda: api.create_repo(repo_id, private=private, exist_ok=True)).repo_id
        retry(lambda: api.auth_check(full_id, write=True))
    return full_id


def push_run(
    output_dir: Path,
    *,
    files: list[str],
    repo_id: str,
    revision: str | None,
    check_head: Callable[[str], None] = lambda commit: None,
) -> str:
    """Push the finished adapter, retrying for some minutes, tag the commit and return its URL.

    `check_head` is that of `push_adapter`. Raises InputError if the push does not succeed, at once if the Hub refuses
    it. The adapter is complete in `output_dir` then, and rerunning the command pushes it.
    """
    try:
        commit = push_adapter(
            output_dir,
            files=files,
            repo_id=repo_id,
            revision=revision,
            message="Adapter, processor, card and log of a run",
            check_head=check_head,
            waits_s=WAITS_S,
        )
    except InputError as error:
        raise InputError(
            f"{error}. The adapter is complete in {output_dir}: rerun the same command to push it"
        ) from error
    _tag(repo_id, commit)
    return commit.commit_url


def push_adapter(
    folder: Path,
    *,
    files: list[str],
    repo_id: str,
    revision: str | None,
    message: str,
    is_obsolete: Callable[[str], bool] = lambda name: False,
    check_head: Callable[[str], None] = lambda commit: None,
    waits_s: tuple[float, ...] = CHECKPOINT_WAITS_S,
) -> CommitInfo:
    """Upload `files` of `folder` in one commit, which also removes the calibration and the schema of another adapter.

    Other files of the repo for which `is_obsolete` is true are removed too. `check_head` may refuse the commit that
    the new one would follow. Raises InputError if the Hub refuses it or does not answer.
    """
    with argument("hub_model_id"), hub_errors(repo_id):
        is_calibrated = _is_calibrated(repo_id, folder, revision=revision, waits_s=waits_s)
        return commit_files(
            repo_id,
            {name: folder / name for name in files},
            message=message,
            revision=revision,
            is_obsolete=lambda name: (
                is_obsolete(name) or name == SCHEMA_FILE or (name == CALIBRATION_FILE and not is_calibrated)
            ),
            check_head=check_head,
            waits_s=waits_s,
        )


def _is_calibrated(repo_id: str, folder: Path, *, revision: str | None, waits_s: tuple[float, ...]) -> bool:
    """Whether the repo holds a calibration that was fitted on the adapter in `folder`."""
    try:
        content = parse_json(retry(lambda: read_file(repo_id, CALIBRATION_FILE, revision=revision), waits_s=waits_s))
        return content["adapter_sha256"] == adapter_sha256(folder)
    except (errors.EntryNotFoundError, errors.RevisionNotFoundError):
        return False
    except (ValueError, KeyError, TypeError):  # it cannot be parsed, or does not name its adapter
        return False


def _tag(repo_id: str, commit: CommitInfo) -> None:
    try:
        with argument("hub_model_id"), hub_errors(repo_id):
            tag = f"run-{datetime.now(UTC):%Y%m%d-%H%M%S}"
            retry(lambda: HfApi().create_tag(repo_id, tag=tag, revision=commit.oid, exist_ok=True))
    except InputError as error:
        logger.warning("The adapter was pushed, but its commit was not tagged: %s", error)
