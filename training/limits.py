"""Ranges of a run's numbers: outside them a run would make no step, never end, or end in an error of a library."""

from dataclasses import fields
from typing import Any

from product_vqa.errors import InputError

_SEEDS = (0, 2**32 - 1)  # what NumPy takes
_BATCHES = (1, 2**16)
_STEPS = (0, 10**9)
_FACTORS = (0, 1e9)

# Both ends are allowed. A number that is not here is not limited. NaN is outside of each range.
LIMITS: dict[str, tuple[float, float]] = {
    "adam_beta1": (0, 0.999999),
    "adam_beta2": (0, 0.999999),
    "adam_epsilon": (0, 1),
    "data_seed": _SEEDS,
    "dataloader_num_workers": (0, 256),
    "dataloader_prefetch_factor": (1, 1024),
    "ddp_bucket_cap_mb": (1, 2**20),
    "ddp_timeout": (1, 10**7),
    "early_stopping_patience": (1, 10**9),
    "eval_accumulation_steps": (1, 10**9),
    "eval_delay": _STEPS,
    "eval_steps": _STEPS,
    "gradient_accumulation_steps": (1, 2**20),
    "learning_rate": (0, 1e6),
    "logging_steps": _STEPS,
    "lora_alpha": (1, 2**20),
    "lora_r": (1, 2**14),
    "max_card_samples": (0, 2**63 - 1),
    "max_eval_samples": (0, 2**63 - 1),
    "max_grad_norm": _FACTORS,
    "max_steps": (-1, 10**9),
    "max_train_samples": (1, 2**63 - 1),
    "neftune_noise_alpha": _FACTORS,
    "num_train_epochs": (-(10**6), 10**6),
    "per_device_eval_batch_size": _BATCHES,
    "per_device_train_batch_size": _BATCHES,
    "save_steps": _STEPS,
    "save_total_limit": (1, 10**9),
    "seed": _SEEDS,
    "shuffle_buffer_size": (1, 10**9),
    "torch_empty_cache_steps": (1, 10**9),
    "warmup_steps": _STEPS,
    "weight_decay": _FACTORS,
}
MAX_SAMPLES_PER_STEP = 2**20


def check_limits(options: Any) -> None:
    """Raise InputError, naming the option, if a number of a dataclass of options is outside its range."""
    for option in fields(options):
        value, limits = getattr(options, option.name), LIMITS.get(option.name)
        if value is None or limits is None:
            continue
        low, high = limits
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"`{option.name}` must be a number, got {value!r}")
        if not value >= low:
            raise InputError(f"`{option.name}` must be at least {low:g}, got {value}")
        if not value <= high:
            raise InputError(f"`{option.name}` must be at most {high:g}, got {value}")
