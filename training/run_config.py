"""The configuration of a run: resolved, saved as sft_config.yaml, and compared when the run is resumed."""

import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import yaml

from product_vqa.atomic_io import atomic_write
from product_vqa.distributed import init_distributed
from product_vqa.errors import InputError, argument
from product_vqa.modeling.loading import resolve_dtype
from product_vqa.provenance import BASE_MODEL_FILES, DATASET_FILES, check_content
from product_vqa.quoting import one_line
from training.loading import Sources
from training.options import DatasetOptions, ModelOptions, TrainingOptions, samples_per_step

CONFIG_FILE = "sft_config.yaml"
NO_SHARDING = "no sharding"
MAX_LISTED = 20  # keys in an error; a stranger's state may have any number of them

# Where a run is written and whether it is pushed is not part of what is trained; tokens must never be saved.
_LOCAL_KEYS = (
    "output_dir", "logging_dir", "run_name", "resume_from_checkpoint", "resume_from_hub", "push_to_hub",
    "base_model_id",
)  # fmt: skip
_LOCAL_PREFIXES = ("hub_",)

# What may change when a run is resumed, because it changes neither what is learned nor which checkpoint is kept. Batch
# size and accumulation are among them because samples_per_step is compared.
FREE_KEYS = {
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
    "streaming",  # shuffle_buffer_size, which is compared, decides the order of the samples
}  # fmt: skip
# With load_best_model_at_end only a checkpoint that was saved can be the best.
_FREE_UNLESS_BEST_IS_KEPT = {"save_strategy", "save_steps"}


def resolve_config(
    dataset_options: DatasetOptions, model_options: ModelOptions, options: TrainingOptions, sources: Sources
) -> dict[str, Any]:
    """Return the run as one flat mapping that `--config` reads, without anything specific to this machine.

    It holds all options of the dataset, the base model and the adapter, and those of TRL's settings that differ from
    their defaults. Raises InputError if `samples_per_step` was given and is not the product of batch size,
    accumulation and processes.
    """
    samples = samples_per_step(options)
    if options.samples_per_step not in (None, samples):
        raise InputError(
            f"`samples_per_step` is {options.samples_per_step}, but `per_device_train_batch_size` "
            f"{options.per_device_train_batch_size} x `gradient_accumulation_steps` "
            f"{options.gradient_accumulation_steps} x {options.world_size} processes = {samples}"
        )
    defaults = TrainingOptions(output_dir=options.output_dir)
    chosen = {
        field.name: getattr(options, field.name)
        for field in fields(TrainingOptions)
        if getattr(options, field.name) != getattr(defaults, field.name)
    }
    # `auto` and unset depend on the machine: what they resolved to is part of the run.
    dtype = resolve_dtype(model_options.dtype, device=init_distributed().device)
    precision = {"dtype": str(dtype).removeprefix("torch."), "bf16": options.bf16, "fp16": options.fp16}
    config = asdict(dataset_options) | asdict(model_options) | chosen | precision | {"samples_per_step": samples}
    with argument("dataset_sha256"):
        dataset_sha256 = check_content(sources.dataset, DATASET_FILES, expected=dataset_options.dataset_sha256)
    with argument("base_sha256"):
        base_sha256 = check_content(sources.base_model, BASE_MODEL_FILES, expected=model_options.base_sha256)
    config |= {
        "dataset_name": sources.named_dataset.name,
        "dataset_revision": sources.named_dataset.revision,
        "dataset_sha256": dataset_sha256,
        "model_name_or_path": sources.named_base_model.name,
        "model_revision": sources.named_base_model.revision,
        "base_sha256": base_sha256,
    }
    return {
        key: _to_plain(value)
        for key, value in config.items()
        if value is not None and key not in _LOCAL_KEYS and not key.startswith(_LOCAL_PREFIXES)
    }


def _to_plain(value: Any) -> Any:
    """Replace an enumeration by its value, so that YAML holds only text, numbers, lists and mappings."""
    if isinstance(value, list):
        return [_to_plain(one) for one in value]
    if isinstance(value, bool | int | float | dict):
        return value
    return str(getattr(value, "value", value))


def check_hub_options(options: TrainingOptions) -> None:
    """Raises InputError if the state of the run is to be kept on the Hub, or used, where that cannot work."""
    if not options.keeps_state_on_hub:
        for name in ("resume_from_hub", "hub_take_over"):
            if getattr(options, name):
                raise InputError(f"`{name}` needs `push_to_hub` true and `hub_strategy` checkpoint")
    elif options.save_strategy == "no":
        raise InputError("`hub_strategy` checkpoint needs checkpoints; set `save_strategy` steps and `save_steps`")
    elif (sharding := _find_sharding(options)) != NO_SHARDING:
        raise InputError(
            f"`hub_strategy` checkpoint: under {sharding} each process saves a part of the optimizer, as a pickle; "
            "train with DDP (training/accelerate_configs/gpu_multi.yaml), or set `hub_strategy` every_save"
        )


def describe_run(config: dict[str, Any], options: TrainingOptions) -> dict[str, Any]:
    """Return what a checkpoint's manifest records of its run: the configuration and the kind of launch."""
    return {"config": config, "processes": options.world_size, "sharding": _find_sharding(options)}


def _find_sharding(options: TrainingOptions) -> str:
    """Return what shards the model and the optimizer under this launch."""
    if options.deepspeed_plugin is not None:
        return "DeepSpeed"
    is_fsdp = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    return "FSDP" if is_fsdp else NO_SHARDING


def save_config(folder: Path, config: dict[str, Any]) -> None:
    """Write a resolved configuration to sft_config.yaml."""
    with atomic_write(folder / CONFIG_FILE) as temporary:
        temporary.write_text(yaml.safe_dump(config, sort_keys=True))


def check_same_config(
    before: dict[str, Any],
    config: dict[str, Any],
    *,
    where: str,
    processes: int,
    remedy: str = "choose another folder, or delete this one",
) -> None:
    """Compare two resolved configurations.

    Raises InputError, with the keys that differ and the remedy, if a run with `before`, which is stored in `where`,
    cannot be resumed with `config` on this number of processes.
    """
    defaults = {option.name: option.default for kind in (DatasetOptions, ModelOptions) for option in fields(kind)}
    free = FREE_KEYS - (_FREE_UNLESS_BEST_IS_KEPT if config.get("load_best_model_at_end") else set())
    changed = [
        key
        for key in sorted((before.keys() | config.keys()) - free)
        if before.get(key, defaults.get(key)) != config.get(key, defaults.get(key))
    ]
    if not changed:
        return
    if changed == ["samples_per_step"] and "samples_per_step" in before:  # else a stranger wrote it
        remedy = f"{_ways_to_keep(before['samples_per_step'], processes=processes)}, or {remedy}"
    listed = "; ".join(
        f"{one_line(key)}: {_show(before.get(key, '(default)'))} -> {_show(config.get(key, '(default)'))}"
        for key in changed[:MAX_LISTED]
    )
    if len(changed) > MAX_LISTED:
        listed += f"; and {len(changed) - MAX_LISTED} more"
    raise InputError(f"{where} holds a run with another configuration ({listed}): {remedy}")


def _show(value: Any) -> str:
    return one_line(str(value))


def _ways_to_keep(samples: int, *, processes: int) -> str:
    """List the batch sizes and accumulations that keep the number of samples per step on this number of processes."""
    if samples % processes:
        *others, last = [str(number) for number in range(1, samples + 1) if samples % number == 0]
        return f"{samples} samples per step need {', '.join(others)} or {last} processes"
    share = samples // processes
    sizes = [size for size in range(share, 0, -1) if share % size == 0][:4]
    ways = [f"`per_device_train_batch_size` {n} `gradient_accumulation_steps` {share // n}" for n in sizes]
    return f"resume it on {processes} process{'es' if processes > 1 else ''} with {' or '.join(ways)}"
