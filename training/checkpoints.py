"""Going on where a run was: the last whole checkpoint, and only of the same run."""

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import yaml
from accelerate import Accelerator
from transformers import TrainerState

from product_vqa.command import InputError
from product_vqa.files import written_whole

logger = logging.getLogger(__name__)

CONFIG_FILE = "sft_config.yaml"

# What may change between start and restart: it does not touch what is learnt.
_FREE_KEYS = ("push_to_hub", "report_to", "run_name", "dataloader_num_workers", "max_eval_samples")
_FREE_PREFIXES = ("hub_", "logging_", "log_", "save_", "dataloader_", "disable_tqdm")


def check_same_run(output_dir: Path, config: dict[str, Any]) -> None:
    """Raises InputError, with the keys that differ, if `output_dir` holds a run of another configuration."""
    file = output_dir / CONFIG_FILE
    if not file.is_file():
        return
    before = yaml.safe_load(file.read_text())
    changed = [
        f"{key}: {before.get(key, '(default)')} -> {config.get(key, '(default)')}"
        for key in sorted(before.keys() | config.keys())
        if before.get(key) != config.get(key) and key not in _FREE_KEYS and not key.startswith(_FREE_PREFIXES)
    ]
    if changed:
        raise InputError(
            f"--output_dir {output_dir} holds a run of another configuration ({'; '.join(changed)}): "
            "choose another folder, or delete this one"
        )


def save_config(output_dir: Path, config: dict[str, Any]) -> None:
    """Write the resolved configuration (see `training.configuration`)."""
    with written_whole(output_dir / CONFIG_FILE) as temporary:
        temporary.write_text(yaml.safe_dump(config, sort_keys=True))


def last_whole_checkpoint(output_dir: Path, accelerator: Accelerator) -> str | None:
    """The newest checkpoint that was written to its end; newer ones, cut off by a kill, are removed.

    The trainer writes `checkpoint-N` in place, `trainer_state.json` last, and would itself take the highest number.
    Every process must call this: the first removes, then all look.
    """
    with accelerator.main_process_first():
        return _last_whole_checkpoint(output_dir, remove=accelerator.is_main_process)


def read_state(checkpoint: str) -> TrainerState:
    """What a checkpoint says of the run: its step, its log."""
    return TrainerState.load_from_json(str(Path(checkpoint, "trainer_state.json")))


def _last_whole_checkpoint(output_dir: Path, *, remove: bool) -> str | None:
    checkpoints = sorted(
        (int(match[1]), folder)
        for folder in output_dir.glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", folder.name))
    )
    for step, folder in reversed(checkpoints):
        try:
            if json.loads((folder / "trainer_state.json").read_text())["global_step"] == step:
                return str(folder)
        except (OSError, ValueError, KeyError):
            pass
        if remove:
            logger.warning("%s was cut off while it was written: removed", folder)
            shutil.rmtree(folder)
    return None
