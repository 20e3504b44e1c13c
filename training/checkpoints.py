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

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError, safe_open
from transformers import TrainerState

from product_vqa.atomic_io import atomic_write
from product_vqa.disk_space import DiskPlan, Need
from product_vqa.documents import read_bytes, read_json, read_yaml
from product_vqa.errors import InputError, first_line
from training.limits import MAX_SAMPLES_PER_STEP
from training.loading import Sources
from training.memory import MemoryEstimate
from training.options import TrainingOptions
from training.run_config import CONFIG_FILE, check_same_config

logger = logging.getLogger(__name__)

MANIFEST_FILE = "manifest.json"
STATE_FILE = "trainer_state.json"
PROCESSOR_BYTES = 35_000_000  # of Gemma's tokenizer.json
MAX_STATE_BYTES = 512 * 1024**2  # of trainer_state.json, which holds the log of every step


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
    manifest = load_manifest(checkpoint)
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


def load_manifest(checkpoint: Path) -> dict[str, Any] | str:
    """Return the manifest, or a description of what is wrong with it."""
    file = checkpoint / MANIFEST_FILE
    try:
        manifest = read_json(file)
        if manifest.pop("sha256") == _digest(manifest) and _is_manifest(manifest):
            return manifest
    except FileNotFoundError:
        return f"{file} is missing"
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        pass
    return f"{file} has changed since it was written"


def _is_manifest(manifest: dict[str, Any]) -> bool:
    """Whether every value has the type that `save_manifest` writes, and no file is outside of the checkpoint."""
    run = manifest["run"]
    if not isinstance(run, dict) or not isinstance(manifest["files"], dict):
        return False
    if run and not (isinstance(run["processes"], int) and isinstance(run["sharding"], str)):
        return False
    if run and not (isinstance(run["config"], dict) and _has_samples(run["config"])):
        return False
    return all(
        isinstance(one, dict) and isinstance(one["size"], int) and isinstance(one["sha256"], str)
        and not Path(name).is_absolute() and ".." not in Path(name).parts
        for name, one in manifest["files"].items()
    )  # fmt: skip


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


# ---- The checkpoint to resume from ---------------------------------------------------------------------------------


def check_folder(output_dir: Path, sources: Sources) -> None:
    """Raises InputError if `output_dir` is the folder of the base model or the dataset, or holds another model."""
    for what, location in (("base model", sources.base_model), ("dataset", sources.dataset)):
        if location.folder is not None and location.folder.resolve() == output_dir.resolve():
            raise InputError(f"`output_dir` {output_dir} is the folder of the {what}: choose another")
    checkpoints = [folder for _, folder in _checkpoints(output_dir)]
    if (output_dir / CONFIG_FILE).exists() or any((folder / MANIFEST_FILE).exists() for folder in checkpoints):
        return  # a run wrote it
    for file in (output_dir / "adapter_config.json", output_dir / "config.json", *checkpoints):
        if file.exists():
            raise InputError(
                f"`output_dir` {output_dir} holds a model ({file.name}) that no run here has written: choose another"
            )


def check_same_run(output_dir: Path, config: dict[str, Any], *, processes: int) -> None:
    """Raises InputError, with the keys that differ, if `output_dir` holds a run with another configuration.

    `config` is resolved by `training.run_config` for this number of processes.
    """
    file = output_dir / CONFIG_FILE
    if not file.is_file():
        return
    before = _read_config(file)
    if before is None:
        raise InputError(f"{file} cannot be read: choose another `output_dir`, or delete this one to start over")
    if "samples_per_step" not in before:
        before = _complete_early_config(before, config, output_dir)
    check_same_config(before, config, where=f"`output_dir` {output_dir}", processes=processes)


def _read_config(file: Path) -> dict[str, Any] | None:
    """Read sft_config.yaml; None if it is not there, or not what a run writes."""
    try:
        config = read_yaml(file)
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) and _has_samples(config) else None


def _has_samples(config: dict[str, Any]) -> bool:
    """Whether `samples_per_step`, with which we calculate, is a number of samples; earlier versions wrote none."""
    samples = config.get("samples_per_step", 1)
    return isinstance(samples, int) and 1 <= samples <= MAX_SAMPLES_PER_STEP


def newest_step(output_dir: Path, *, keeps_best: bool = False) -> int:
    """Return the step of the newest complete checkpoint, 0 if there is none. Nothing is removed."""
    newest_first = reversed(_checkpoints(output_dir))
    return next((step for step, folder in newest_first if _damage(folder, keeps_best=keeps_best) is None), 0)


def find_checkpoint(
    output_dir: Path, state: PartialState, *, run: dict[str, Any], given: str | None = None, keeps_best: bool = False
) -> str | None:
    """Return the checkpoint to resume from: `given`, or else the newest complete one; None if there is none.

    Newer ones that are incomplete are removed. Every process must call this; the first one searches and tells the
    others. Raises InputError, naming the file, if `given` is damaged, if a run that had a complete checkpoint has none
    left, or if the checkpoint cannot be resumed under this launch. `keeps_best`: the best checkpoint is needed too.
    """
    found: list[str | None] = [None]
    if state.is_main_process:
        if given:
            folder: Path | None = _check_given(Path(given), keeps_best=keeps_best)
        else:
            folder = _newest_complete(output_dir, keeps_best=keeps_best)
        if folder is not None:
            _check_run(folder, run)
            found = [str(folder)]
    found = broadcast_object_list(found)
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
    """Read the trainer's state from a checkpoint: its step, its log. Raises InputError for a file that is not one."""
    file = Path(checkpoint, STATE_FILE)
    try:
        # Not `read_json`: float16 logs NaN as the gradient norm of a step that its scaler skipped.
        content = json.loads(read_bytes(file, max_bytes=MAX_STATE_BYTES))
        state = TrainerState(**content)
        if not isinstance(state.global_step, int) or not isinstance(state.log_history, list):
            raise ValueError("global_step is not a number, or log_history not a list")
        if not all(isinstance(entry, dict) for entry in state.log_history):
            raise ValueError("log_history holds an entry that is not an object")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise InputError(f"{file}: {reason}; choose another checkpoint") from error
    return state


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
    if not (checkpoint / STATE_FILE).is_file():  # the best one of a run that resumed from the Hub
        return f"{checkpoint} holds an adapter only"
    state = read_state(checkpoint)
    best = state.best_global_step if keeps_best else None
    if best is None or (folder := checkpoint.parent / f"checkpoint-{best}") == checkpoint:
        return None
    return find_damage(folder)


def _check_run(checkpoint: Path, run: dict[str, Any]) -> None:
    """Raises InputError if the checkpoint belongs to another run or was saved by another kind of launch."""
    manifest = load_manifest(checkpoint)
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
    return "samples_per_step" in (_read_config(output_dir / CONFIG_FILE) or {})


def _complete_early_config(before: dict[str, Any], config: dict[str, Any], output_dir: Path) -> dict[str, Any]:
    """Add what an earlier version did not record; its checkpoints show how many processes it had."""
    samples = config["samples_per_step"]
    for _, folder in reversed(_checkpoints(output_dir)):
        if processes := len(list(folder.glob("rng_state*.pth"))):
            defaults: dict[str, Any] = {option.name: option.default for option in fields(TrainingOptions)}
            options = defaults | {key: value for key, value in before.items() if isinstance(value, int)}
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


# ---- Their size ----------------------------------------------------------------------------------------------------


def plan_checkpoints(output_dir: Path, options: TrainingOptions, memory: MemoryEstimate) -> DiskPlan:
    """Plan the disk space of the checkpoints that are kept, and of the one that is written before another is removed.

    Each has the adapter, the optimizer's state and the processor. Without `save_total_limit`, all are kept: their
    number is unknown here, and only one of them is planned.
    """
    if options.save_strategy == "no":
        return DiskPlan((), 0)
    number = (options.save_total_limit or 0) + 1
    one = memory.adapter / 2 + memory.optimizer + PROCESSOR_BYTES
    num_bytes = number * one
    what = "1 checkpoint" if number == 1 else f"{number} checkpoints"
    if options.keeps_state_on_hub:  # one that is being pushed, in two forms, and one that waits for its turn
        num_bytes += 3 * one
        what += ", and 2 on their way to the Hub"
    return DiskPlan((Need(what, "`output_dir`", output_dir, num_bytes),), downloaded=0)
