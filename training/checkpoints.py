"""Checkpoints of a run: which of them are complete, and from which one the same run resumes."""

import hashlib
import json
import logging
import re
import shutil
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError, safe_open
from transformers import TrainerState

from product_vqa.atomic_io import atomic_write
from product_vqa.errors import InputError
from training.options import TrainingOptions
from training.run_config import CONFIG_FILE, check_same_config

logger = logging.getLogger(__name__)

MANIFEST_FILE = "manifest.json"


# ---- Complete checkpoints ------------------------------------------------------------------------------------------


def save_manifest(checkpoint: Path, *, run: dict[str, Any]) -> None:
    """Record the size and hash of every file, once all processes have written theirs: this completes a checkpoint.

    `run` describes the run (`training.run_config.describe_run`); it is compared before the checkpoint is resumed.
    """
    files = {
        file.relative_to(checkpoint).as_posix(): {"size": file.stat().st_size, "sha256": _sha256(file)}
        for file in sorted(checkpoint.rglob("*"))
        if file.is_file() and file.name != MANIFEST_FILE
    }
    content = {"run": run, "files": files}
    with atomic_write(checkpoint / MANIFEST_FILE) as temporary:
        temporary.write_text(json.dumps({"sha256": _digest(content), **content}, indent=1) + "\n")


def find_damage(checkpoint: Path) -> str | None:
    """Describe what is wrong with the first bad file of a checkpoint; None if all are there as they were written."""
    manifest = _load_manifest(checkpoint)
    if isinstance(manifest, str):
        return manifest
    for name, expected in manifest["files"].items():
        file = checkpoint / name
        if not file.is_file():
            return f"{file} is missing"
        if file.stat().st_size != expected["size"]:
            return f"{file} has {file.stat().st_size} bytes instead of {expected['size']}"
        if _sha256(file) != expected["sha256"]:
            return f"{file} has changed since it was written (its sha256 differs)"
    return None


def _load_manifest(checkpoint: Path) -> dict[str, Any] | str:
    """Return the manifest, or a description of what is wrong with it."""
    file = checkpoint / MANIFEST_FILE
    try:
        manifest = json.loads(file.read_text())
        if manifest.pop("sha256") == _digest(manifest):
            return manifest
    except FileNotFoundError:
        return f"{file} is missing"
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        pass
    return f"{file} has changed since it was written"


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


# ---- The checkpoint to resume from ---------------------------------------------------------------------------------


def check_same_run(output_dir: Path, config: dict[str, Any], *, processes: int) -> None:
    """Raises InputError, with the keys that differ, if `output_dir` holds a run with another configuration.

    `config` is resolved by `training.run_config` for this number of processes.
    """
    file = output_dir / CONFIG_FILE
    if not file.is_file():
        return
    try:
        before = yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        before = None
    if not isinstance(before, dict):
        raise InputError(f"{file} cannot be read: choose another `output_dir`, or delete this one to start over")
    if "samples_per_step" not in before:
        before = _complete_early_config(before, config, output_dir)
    check_same_config(before, config, where=f"`output_dir` {output_dir}", processes=processes)


def find_checkpoint(
    output_dir: Path, state: PartialState, *, run: dict[str, Any], given: str | None = None, keeps_best: bool = False
) -> str | None:
    """Return the checkpoint to resume from: `given`, or else the newest complete one; None if there is none.

    Newer ones that are incomplete are removed. Every process must call this; the first one searches and tells the
    others. Raises InputError, naming the file, if `given` is damaged, if a run that had a complete checkpoint has none
    left, or if the checkpoint cannot be resumed under this launch. `keeps_best`: the best checkpoint is needed too.
    """
    found: list[Any] = [None]
    if state.is_main_process:
        if given:
            folder: Path | None = _check_given(Path(given), keeps_best=keeps_best)
        else:
            folder = _newest_complete(output_dir, keeps_best=keeps_best)
        if folder is not None:
            _check_run(folder, run)
            found = [str(folder)]
    if state.num_processes > 1:
        broadcast_object_list(found)
    return found[0]


def _check_given(checkpoint: Path, *, keeps_best: bool) -> Path:
    if not checkpoint.is_dir():
        raise InputError(
            f"`resume_from_checkpoint` {checkpoint}: no such folder. Without this option the run resumes from the "
            "last complete checkpoint in `output_dir`"
        )
    damage: str | None
    if not (checkpoint / MANIFEST_FILE).exists() and not _writes_manifests(checkpoint.parent):
        damage = None if _looks_complete(checkpoint) else "a file that resuming needs is missing or damaged"
    else:
        damage = _damage(checkpoint, keeps_best=keeps_best)
    if damage:
        raise InputError(f"`resume_from_checkpoint` {checkpoint}: {damage}; choose another checkpoint")
    return checkpoint


def read_state(checkpoint: str | Path) -> TrainerState:
    """Read the trainer's state from a checkpoint: its step, its log."""
    return TrainerState.load_from_json(str(Path(checkpoint, "trainer_state.json")))


def _checkpoints(output_dir: Path) -> list[tuple[int, Path]]:
    return sorted(
        (int(match[1]), folder)
        for folder in output_dir.glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", folder.name)) and folder.is_dir()
    )


def _newest_complete(output_dir: Path, *, keeps_best: bool) -> Path | None:
    checkpoints = [folder for _, folder in _checkpoints(output_dir)]
    if (output_dir / CONFIG_FILE).is_file() and not _writes_manifests(output_dir):
        _add_manifests(checkpoints)
    damages: dict[Path, str] = {}
    for folder in reversed(checkpoints):
        damage = _damage(folder, keeps_best=keeps_best)
        if damage is None:
            _remove(damages, instead=f"resuming from {folder.name}")
            return folder
        damages[folder] = damage
    once_complete = [folder for folder in damages if (folder / MANIFEST_FILE).exists()]
    if once_complete:
        raise InputError(
            f"`output_dir` {output_dir}: no complete checkpoint is left ({damages[once_complete[0]]}). Restore the "
            "file, or delete the folder's checkpoints to start over"
        )
    _remove(damages, instead="no checkpoint was ever complete: starting from the beginning")
    return None


def _remove(damages: dict[Path, str], *, instead: str) -> None:
    for folder, damage in damages.items():
        cause = "" if (folder / MANIFEST_FILE).exists() else f" (the run was killed while it wrote {folder.name})"
        logger.warning("%s%s: checkpoint removed, %s", damage, cause, instead)
        remove_checkpoint(folder)


def remove_checkpoint(checkpoint: Path) -> None:
    """Remove a checkpoint's folder; where its name is a symbolic link or a file, remove only that."""
    if checkpoint.is_symlink() or checkpoint.is_file():
        checkpoint.unlink()
    elif checkpoint.exists():
        shutil.rmtree(checkpoint)


def _damage(checkpoint: Path, *, keeps_best: bool) -> str | None:
    """Like `find_damage`; where the best checkpoint is kept, that one must be complete too."""
    if damage := find_damage(checkpoint):
        return damage
    best = read_state(checkpoint).best_global_step if keeps_best else None
    if best is None or (folder := checkpoint.parent / f"checkpoint-{best}") == checkpoint:
        return None
    return find_damage(folder)


def _check_run(checkpoint: Path, run: dict[str, Any]) -> None:
    """Raises InputError if the checkpoint belongs to another run or was saved by another kind of launch."""
    manifest = _load_manifest(checkpoint)
    before = manifest["run"] if isinstance(manifest, dict) else None
    if not before:
        return  # written by an earlier version
    check_same_config(before["config"], run["config"], where=str(checkpoint), processes=run["processes"])
    if before["sharding"] != run["sharding"]:
        raise InputError(
            f"{checkpoint} was saved under {before['sharding']}, but this launch uses {run['sharding']}: use the same "
            "file of training/accelerate_configs"
        )
    if run["sharding"] == "DeepSpeed" and before["processes"] != run["processes"]:
        raise InputError(
            f"{checkpoint} holds DeepSpeed shards for {before['processes']} processes: launch with the same "
            "number of processes"
        )


# ---- Runs of earlier versions, which wrote no manifest -------------------------------------------------------------


def _writes_manifests(output_dir: Path) -> bool:
    """Whether this version wrote the run, so that a checkpoint without a manifest is an incomplete one."""
    file = output_dir / CONFIG_FILE
    return file.is_file() and "samples_per_step" in yaml.safe_load(file.read_text())


def _complete_early_config(before: dict[str, Any], config: dict[str, Any], output_dir: Path) -> dict[str, Any]:
    """Add what an earlier version did not record; its checkpoints show how many processes it had."""
    samples = config["samples_per_step"]
    for _, folder in reversed(_checkpoints(output_dir)):
        if processes := len(list(folder.glob("rng_state*.pth"))):
            defaults: dict[str, Any] = {option.name: option.default for option in fields(TrainingOptions)}
            options = defaults | before
            samples = options["per_device_train_batch_size"] * options["gradient_accumulation_steps"] * processes
            break
    unrecorded = {key: config[key] for key in ("dataset_sha256", "base_sha256") if key in config}
    return unrecorded | before | {"samples_per_step": samples}


def _add_manifests(checkpoints: list[Path]) -> None:
    """Write a manifest into each checkpoint that holds what resuming needs."""
    for folder in checkpoints:
        if not (folder / MANIFEST_FILE).exists() and _looks_complete(folder):
            save_manifest(folder, run={})


def _looks_complete(checkpoint: Path) -> bool:
    """Whether every kind of file is there and can be opened. `trainer_state.json` was written last."""
    sharded = list(checkpoint.glob("global_step*")) + list(checkpoint.glob("optimizer*"))
    if not (sharded and list(checkpoint.glob("rng_state*.pth"))):
        return False
    if not (list(checkpoint.glob("global_step*")) or (checkpoint / "scheduler.pt").is_file()):
        return False
    try:
        if read_state(checkpoint).global_step != int(checkpoint.name.rpartition("-")[2]):
            return False
        with safe_open(checkpoint / "adapter_model.safetensors", framework="pt") as adapter:
            list(adapter.keys())
        for file in checkpoint.rglob("*"):
            if file.suffix in {".pt", ".pth", ".bin"} and zipfile.ZipFile(file).testzip() is not None:
                return False
    except (OSError, ValueError, TypeError, KeyError, SafetensorError, zipfile.BadZipFile):
        return False
    return True
