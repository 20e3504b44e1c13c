"""The configuration of a run as one flat YAML: what `--config` reads, without anything of this machine."""

import os
from dataclasses import asdict, fields
from typing import Any

from product_vqa.distributed import init_distributed
from product_vqa.errors import InputError, argument
from product_vqa.modeling.loading import resolve_dtype
from product_vqa.provenance import BASE_MODEL_FILES, DATASET_FILES, check_content
from training.loading import Sources
from training.options import DatasetOptions, ModelOptions, TrainingOptions, samples_per_step

# Where it is written and whether it is pushed are no part of what is trained; tokens are nobody's business.
_LOCAL = ("output_dir", "logging_dir", "run_name", "resume_from_checkpoint", "push_to_hub", "base_model_id")
_LOCAL_PREFIXES = ("hub_",)


def resolve_config(
    dataset_options: DatasetOptions, model_options: ModelOptions, options: TrainingOptions, sources: Sources
) -> dict[str, Any]:
    """What was chosen: dataset, base and adapter whole, of TRL's settings those that are not the default.

    Raises InputError if samples_per_step was given and is not what batch, accumulation and processes come to.
    """
    samples = samples_per_step(options)
    if options.samples_per_step not in (None, samples):
        raise InputError(
            f"samples_per_step {options.samples_per_step}: per_device_train_batch_size "
            f"{options.per_device_train_batch_size} x gradient_accumulation_steps "
            f"{options.gradient_accumulation_steps} x {options.world_size} processes are {samples}"
        )
    defaults = TrainingOptions(output_dir=options.output_dir)
    chosen = {
        field.name: getattr(options, field.name)
        for field in fields(TrainingOptions)
        if getattr(options, field.name) != getattr(defaults, field.name)
    }
    # `auto` and unset are this machine's: what they came to is part of the run.
    dtype = resolve_dtype(model_options.dtype, device=init_distributed().device)
    precision = {"dtype": str(dtype).removeprefix("torch."), "bf16": options.bf16, "fp16": options.fp16}
    config = asdict(dataset_options) | asdict(model_options) | chosen | precision | {"samples_per_step": samples}
    with argument("dataset_sha256"), argument("base_sha256"):
        config |= {
            "dataset_name": sources.named_dataset.name,
            "dataset_revision": sources.named_dataset.revision,
            "dataset_sha256": check_content(sources.dataset, DATASET_FILES, expected=dataset_options.dataset_sha256),
            "model_name_or_path": sources.named_base.name,
            "model_revision": sources.named_base.revision,
            "base_sha256": check_content(sources.base, BASE_MODEL_FILES, expected=model_options.base_sha256),
        }
    return {
        key: _plain(value)
        for key, value in config.items()
        if value is not None and key not in _LOCAL and not key.startswith(_LOCAL_PREFIXES)
    }


def describe_run(config: dict[str, Any], options: TrainingOptions) -> dict[str, Any]:
    """What a checkpoint is part of, written into its manifest: the configuration, and what it does not say."""
    is_fsdp = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    return {
        "config": config,
        "processes": options.world_size,
        "sharding": "DeepSpeed" if options.deepspeed_plugin is not None else "FSDP" if is_fsdp else "no sharding",
    }


def _plain(value: Any) -> Any:
    """Enumerations as their values, so that YAML holds only text, numbers, lists and mappings."""
    if isinstance(value, bool | int | float | list | dict):
        return value
    return str(getattr(value, "value", value))
