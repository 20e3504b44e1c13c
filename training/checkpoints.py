"""Resuming a run: from the last complete checkpoint, and only the same run."""

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
from training.options import DatasetOptions, ModelOptions, TrainingOptions

logger = logging.getLogger(__name__)

CONFIG_FILE = "sft_config.yaml"
MANIFEST_FILE = "manifest.json"

# What may change when a run is resumed: none of it changes what is learned or which checkpoint is kept. Batch size and
# accumulation may, because samples_per_step is compared.
_FREE_KEYS = {
    "per_device_train_batch_size", "gradient_accumulation_steps",
    "gradient_checkpointing", "gradient_checkpointing_kwargs", "activation_checkpointing",
    "activation_checkpointing_kwargs", "activation_offloading", "torch_empty_cache_steps",
    "dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers", "dataloader_prefetch_factor",
    "dataloader_multiprocessing_context",
    "report_to", "project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id",
    "logging_strategy", "logging_steps", "logging_first_step", "logging_nan_inf_filter", "log_level",
    "log_level_replica", "log_on_each_node", "disable_tqdm", "include_num_input_tokens_seen", "skip_memory_metrics",
    "save_strategy", "save_steps", "save_total_limit",
    "ddp_backend", "ddp_timeout", "local_rank", "do_train", "do_eval", "do_predict", "debug",
    "max_card_samples",
}  # fmt: skip
# With load_best_model_at_end only a checkpoint that was saved can be the best.
_FREE_UNLESS_BEST_IS_KEPT = {"save_strategy", "save_steps"}


# ---- The same run --------------------------------------------------------------------------------------------------


def check_same_run(output_dir: Path, config: dict[str, Any], *, processes: int) -> None:
    """Raises InputError, with the keys that differ, if `output_dir` holds a run of another configuration.

    `config` is what `training.configuration` resolved for this many processes.
    """
    file = output_dir / CONFIG_FILE
    if not file.is_file():
        return
    try:
        before = yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        before = None
    if not isinstance(before, dict):
        raise InputError(f"{file} cannot be read: choose another --output_dir, or delete this one to start anew")
    if "samples_per_step" not in before:
        samples = _samples_per_step(before, output_dir) or config["samples_per_step"]
        unknown = {key: config[key] for key in ("dataset_sha256", "base_sha256") if key in config}
        before = unknown | before | {"samples_per_step": samples}
    _compare(before, config, where=f"--output_dir {output_dir}", processes=processes)


def _compare(before: dict[str, Any], config: dict[str, Any], *, where: str, processes: int) -> None:
    defaults = {f.name: f.default for kind in (DatasetOptions, ModelOptions) for f in fields(kind)}
    free = _FREE_KEYS - (_FREE_UNLESS_BEST_IS_KEPT if config.get("load_best_model_at_end") else set())
    changed = [
        f"{key}: {before.get(key, '(default)')} -> {config.get(key, '(default)')}"
        for key in sorted(before.keys() | config.keys())
        if before.get(key, defaults.get(key)) != config.get(key, defaults.get(key)) and key not in free
    ]
    if changed:
        remedy = "choose another folder, or delete this one"
        if len(changed) == 1 and changed[0].startswith("samples_per_step: "):
            remedy = f"{_ways_to_keep(before['samples_per_step'], processes=processes)}, or {remedy}"
        raise InputError(f"{where} holds a run of another configuration ({'; '.join(changed)}): {remedy}")


def _ways_to_keep(samples_per_step: int, *, processes: int) -> str:
    """Which batch sizes and accumulations keep the number of samples per step on so many processes."""
    if samples_per_step % processes:
        possible = [str(number) for number in range(1, samples_per_step + 1) if samples_per_step % number == 0]
        return f"{samples_per_step} samples per step need {', '.join(possible[:-1])} or {possible[-1]} processes"
    share = samples_per_step // processes
    sizes = [size for size in range(share, 0, -1) if share % size == 0][:4]
    ways = [f"--per_device_train_batch_size {n} --gradient_accumulation_steps {share // n}" for n in sizes]
    return f"resume it on {processes} process{'es' if processes > 1 else ''} with {' or '.join(ways)}"


def _samples_per_step(config: dict[str, Any], output_dir: Path) -> int | None:
    """Of a run that was written before this was recorded; its checkpoints show its number of processes."""
    for _, folder in reversed(_checkpoints(output_dir)):
        if processes := len(list(folder.glob("rng_state*.pth"))):
            options = {f.name: f.default for f in fields(TrainingOptions)} | config
            return options["per_device_train_batch_size"] * options["gradient_accumulation_steps"] * processes
    return None


def save_config(output_dir: Path, config: dict[str, Any]) -> None:
    """Write the resolved configuration (see `training.configuration`)."""
    with atomic_write(output_dir / CONFIG_FILE) as temporary:
        temporary.write_text(yaml.safe_dump(config, sort_keys=True))


# ---- Complete checkpoints ------------------------------------------------------------------------------------------


def save_manifest(checkpoint: Path, *, run: dict[str, Any]) -> None:
    """Record size and hash of every file, once all processes have written theirs: it makes a checkpoint complete.

    `run` says what the checkpoint is part of; `check_checkpoint` compares it.
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
    """What is wrong with the files of a checkpoint, naming the first; None if it is complete and as it was written."""
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
            return f"{file} is not as it was written (its sha256 differs)"
    return None


def _load_manifest(checkpoint: Path) -> dict[str, Any] | str:
    """The manifest, or what is wrong with it."""
    file = checkpoint / MANIFEST_FILE
    try:
        manifest = json.loads(file.read_text())
        if manifest.pop("sha256") == _digest(manifest):
            return manifest
    except FileNotFoundError:
        return f"{file} is missing"
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        pass
    return f"{file} is not as it was written"


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


# ---- The checkpoint to resume from ---------------------------------------------------------------------------------


def find_checkpoint(
    output_dir: Path, state: PartialState, *, run: dict[str, Any], given: str | None = None, keeps_best: bool = False
) -> str | None:
    """The checkpoint to resume from: `given`, or the newest complete one of `output_dir`; None to start anew.

    Newer ones that are not complete are removed. Every process must call this; the first looks, and tells the others.
    Raises InputError, naming the file, if `given` is damaged, if no complete checkpoint is left of a run that had one,
    or if the checkpoint cannot be resumed under this launch.
    """
    found: list[Any] = [None]
    if state.is_main_process:
        folder = (
            _check_given(Path(given), keeps_best) if given else _newest_complete(output_dir, keeps_best=keeps_best)
        )
        if folder is not None:
            _check_run(folder, run)
            found = [str(folder)]
    if state.num_processes > 1:
        broadcast_object_list(found)
    return found[0]


def _check_given(checkpoint: Path, keeps_best: bool) -> Path:
    if not checkpoint.is_dir():
        raise InputError(
            f"--resume_from_checkpoint {checkpoint}: no such folder; without this option the last complete checkpoint "
            "of --output_dir is taken"
        )
    if not (checkpoint / MANIFEST_FILE).exists() and not _writes_manifests(checkpoint.parent):
        damage = None if _looks_complete(checkpoint) else "a file that resuming needs is missing or damaged"
    else:
        damage = _damage(checkpoint, keeps_best=keeps_best)
    if damage:
        raise InputError(f"--resume_from_checkpoint {checkpoint}: {damage}; choose another checkpoint")
    return checkpoint


def read_state(checkpoint: str | Path) -> TrainerState:
    """What a checkpoint says of the run: its step, its log."""
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
        _adopt(checkpoints)
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
            f"--output_dir {output_dir}: no complete checkpoint is left ({damages[once_complete[0]]}). Restore the "
            "file, or delete the folder's checkpoints to start anew"
        )
    _remove(damages, instead="no checkpoint was ever complete: starting from the beginning")
    return None


def _remove(damages: dict[Path, str], *, instead: str) -> None:
    for folder, damage in damages.items():
        cut_off = "" if (folder / MANIFEST_FILE).exists() else f" ({folder.name} was cut off while it was written)"
        logger.warning("%s%s: removed, %s", damage, cut_off, instead)
        remove_checkpoint(folder)


def remove_checkpoint(checkpoint: Path) -> None:
    """Remove what bears a checkpoint's name: a folder, a link to one, which stays, or a file."""
    if checkpoint.is_symlink() or checkpoint.is_file():
        checkpoint.unlink()
    elif checkpoint.exists():
        shutil.rmtree(checkpoint)


def _damage(checkpoint: Path, *, keeps_best: bool) -> str | None:
    """As `find_damage`; where the best checkpoint is kept, that one too must be complete."""
    if damage := find_damage(checkpoint):
        return damage
    best = read_state(checkpoint).best_global_step if keeps_best else None
    if best is None or (folder := checkpoint.parent / f"checkpoint-{best}") == checkpoint:
        return None
    return find_damage(folder)


def _check_run(checkpoint: Path, run: dict[str, Any]) -> None:
    """Raises InputError if the checkpoint is part of another run, or was saved by another kind of launch."""
    manifest = _load_manifest(checkpoint)
    before = manifest["run"] if isinstance(manifest, dict) else None
    if not before:
        return  # of an earlier version
    _compare(before["config"], run["config"], where=str(checkpoint), processes=run["processes"])
    if before["sharding"] != run["sharding"]:
        raise InputError(
            f"{checkpoint} was saved under {before['sharding']}, which this launch is not ({run['sharding']}): launch "
            "with the same file of training/accelerate"
        )
    if run["sharding"] == "DeepSpeed" and before["processes"] != run["processes"]:
        raise InputError(
            f"{checkpoint} holds DeepSpeed's shards of {before['processes']} processes: --num_processes "
            f"{before['processes']}"
        )


# ---- Checkpoints of earlier versions, which wrote no manifest ------------------------------------------------------


def _writes_manifests(output_dir: Path) -> bool:
    """Whether the run is of this version, so that a checkpoint without a manifest is one that was cut off."""
    file = output_dir / CONFIG_FILE
    return file.is_file() and "samples_per_step" in yaml.safe_load(file.read_text())


def _adopt(checkpoints: list[Path]) -> None:
    """Give those a manifest that hold what resuming needs."""
    for folder in checkpoints:
        if not (folder / MANIFEST_FILE).exists() and _looks_complete(folder):
            save_manifest(folder, run={})


def _looks_complete(checkpoint: Path) -> bool:
    """Whether every kind of file is there and can be opened: `trainer_state.json` was written last."""
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
