"""What a training run can be told: the dataset, the base and its adapter, and TRL's own settings."""

from dataclasses import dataclass, field, fields
from typing import Literal

import torch
from transformers import TrainingArguments
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
)
from trl import SFTConfig

from product_vqa.distributed import runs_on_cpu
from product_vqa.errors import InputError
from product_vqa.modeling.loading import LANGUAGE_MODEL_LINEARS, resolve_dtype


@dataclass
class DatasetOptions:
    """The dataset to learn from; its columns are those of `product_vqa.task.features`."""

    dataset_name: str = field(
        metadata={"help": "Dataset that dataset_builder.build made: a repo (user/name) or a folder."}
    )
    dataset_revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of the dataset repo; default: what main is now."}
    )
    dataset_sha256: str | None = field(
        default=None,
        metadata={"help": "Of a dataset folder's content: another is refused. A run records it in sft_config.yaml."},
    )
    dataset_train_split: str = field(default="train", metadata={"help": "The split to learn from."})
    dataset_test_split: str = field(default="validation", metadata={"help": "The split to score on."})
    max_train_samples: int | None = field(
        default=None, metadata={"help": "Learn from so many rows at most, the first after a shuffle with data_seed."}
    )
    max_eval_samples: int = field(
        default=500,
        metadata={
            "help": "Answer and score so many rows of dataset_test_split, every eval_steps; at most half of the split "
            "where load_best_model_at_end chooses by the score."
        },
    )
    max_card_samples: int = field(
        default=2000,
        metadata={
            "help": "With load_best_model_at_end: score the card on so many of the other rows, which chose nothing."
        },
    )

    def __post_init__(self) -> None:
        if self.max_train_samples is not None and self.max_train_samples < 1:
            raise InputError(f"max_train_samples must be at least 1, got {self.max_train_samples}")
        for name in ("max_eval_samples", "max_card_samples"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be at least 0, got {getattr(self, name)}")


@dataclass
class ModelOptions:
    """The base, how it is loaded, and the adapter that is trained on it."""

    model_name_or_path: str = field(
        default="google/paligemma-3b-pt-224", metadata={"help": "PaliGemma: a repo (user/name) or a folder."}
    )
    model_revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of the base's repo; default: what main is now."}
    )
    base_model_id: str | None = field(
        default=None,
        metadata={"help": "Where the base is a folder: the repo id that the adapter names as its base."},
    )
    base_sha256: str | None = field(
        default=None,
        metadata={"help": "Of a base folder's content: another is refused. A run records it in sft_config.yaml."},
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = field(
        default="auto",
        metadata={
            "help": "Of the frozen base. auto: bfloat16 where it is fast, else float16 on a GPU and float32 on a CPU."
        },
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "sdpa or eager; flash attention has no prefix mask and is refused."}
    )
    load_in_4bit: bool = field(
        default=False, metadata={"help": "Quantize the language model to 4-bit NF4 (double quantization); not SigLIP."}
    )
    lora_r: int = field(default=8, metadata={"help": "Rank of the adapter."})
    lora_alpha: int = field(default=16, metadata={"help": "The update is scaled by lora_alpha / lora_r."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout before the adapter, 0 to 1."})
    lora_target_modules: str = field(
        default=LANGUAGE_MODEL_LINEARS,
        metadata={"help": "Regular expression of the layers to adapt; default: all linears of the language model."},
    )
    use_rslora: bool = field(default=False, metadata={"help": "Scale by lora_alpha / sqrt(lora_r) (peft's rsLoRA)."})
    use_dora: bool = field(default=False, metadata={"help": "Learn magnitude and direction apart (peft's DoRA)."})

    def __post_init__(self) -> None:
        if self.lora_r < 1:
            raise InputError(f"lora_r must be at least 1, got {self.lora_r}")
        if not 0 <= self.lora_dropout < 1:
            raise InputError(f"lora_dropout must be at least 0 and below 1, got {self.lora_dropout}")
        if self.attn_implementation and "flash" in self.attn_implementation:
            raise InputError("attn_implementation: flash attention drops PaliGemma's prefix mask; use sdpa or eager")


# Settings of SFTConfig that our batches or our loss would ignore without a word.
_IGNORED_SETTINGS = (
    "assistant_only_loss",
    "chat_template_path",
    "completion_only_loss",
    "dataset_kwargs",
    "dataset_num_proc",
    "dataset_text_field",
    "eos_token",
    "eval_packing",
    "label_smoothing_factor",
    "loss_type",
    "model_init_kwargs",
    "packing",
    "packing_strategy",
    "pad_to_multiple_of",
    "padding_free",
    "shuffle_dataset",
    "train_sampling_strategy",
    "truncation_mode",
    "trust_remote_code",
)


# Settings with which a run could not be resumed as the same run, and why.
_UNRESUMABLE_SETTINGS = {
    "auto_find_batch_size": "it would change the number of samples per step; training.estimate says what fits",
    "average_tokens_across_devices": "what is learned would depend on the number of processes",
    "enable_jit_checkpoint": "a SIGTERM saves a checkpoint as it is",
    "ignore_data_skip": "a resumed run would train on samples again",
    "save_on_each_node": "--output_dir must be a folder that all machines see",
    "save_only_model": "a checkpoint without optimizer state cannot be resumed",
}
_LEAST = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "dataloader_num_workers": 0,
}
# Of accelerator_config, with transformers' own values.
_SAMPLE_ORDER = {"split_batches": False, "dispatch_batches": None, "even_batches": True, "use_seedable_sampler": True}


@dataclass
class TrainingOptions(SFTConfig):
    """TRL's SFTConfig with the defaults that suit an adapter on a frozen PaliGemma."""

    gradient_checkpointing: bool | None = field(
        default=None, metadata={"help": "Less memory, 45 percent more compute: rows are short, so usually not needed."}
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Every row has an image and an answer: every parameter is used."}
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Stop after so many evaluations without a better F1; the best checkpoint is what is kept."},
    )
    hub_private_repo: bool | None = field(
        default=True,
        metadata={"help": "false: let everyone see the adapter's repo. One that is there already stays as it is."},
    )
    hub_strategy: str = field(
        default="end",
        metadata={
            "help": "When to push: at the end only, or every_save: the adapter and its card with each checkpoint too.",
            "choices": ["end", "every_save"],
        },
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Only unset: rows are image, question and answer, and never cut."}
    )
    samples_per_step: int | None = field(
        default=None,
        metadata={
            "help": "What per_device_train_batch_size x gradient_accumulation_steps x processes must come to, checked "
            "if it is given; every run records it."
        },
    )
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Hide losses that are not numbers from the log; here they stop the run."}
    )

    def __post_init__(self) -> None:
        self.use_cpu = self.use_cpu or runs_on_cpu()
        self.dataloader_pin_memory = self.dataloader_pin_memory and not self.use_cpu
        if self.bf16 is None and not self.fp16:
            # SFTConfig's default, True, computes in bfloat16 on any CPU and any GPU.
            accelerator = None if self.use_cpu else torch.accelerator.current_accelerator()
            fast = resolve_dtype("auto", device=accelerator or "cpu")
            self.bf16, self.fp16 = fast == torch.bfloat16, fast == torch.float16
        defaults = {f.name: f.default for f in fields(SFTConfig)} | {"max_length": None}
        for name in (*_IGNORED_SETTINGS, "max_length"):
            if getattr(self, name) != defaults[name]:
                raise InputError(f"{name}: {getattr(self, name)!r} would change nothing here; leave it out")
        defaults = {f.name: f.default for f in fields(SFTConfig)}
        for name, reason in _UNRESUMABLE_SETTINGS.items():
            if getattr(self, name) != defaults[name]:
                raise InputError(f"{name}: {reason}; leave it out")
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.max_steps == 0 or (self.max_steps < 0 and not self.num_train_epochs > 0):
            name = "max_steps" if self.max_steps == 0 else "num_train_epochs"
            raise InputError(f"{name} {getattr(self, name)}: not a single step would be made")
        if self.early_stopping_patience is not None:
            if self.early_stopping_patience < 1:
                raise InputError(f"early_stopping_patience must be at least 1, got {self.early_stopping_patience}")
            if self.eval_strategy == "no":
                raise InputError("early_stopping_patience: nothing is evaluated; set eval_strategy and eval_steps")
            self.load_best_model_at_end = True
        if self.load_best_model_at_end:
            self.metric_for_best_model = self.metric_for_best_model or "f1_quantity"  # not the loss; an exact
            # string also depends on whether a labeller wrote 500 or 500.0
        try:
            super().__post_init__()
        except (ValueError, ImportError) as error:
            raise InputError(" ".join(str(error).split()) or type(error).__name__) from error
        changed = [name for name, value in _SAMPLE_ORDER.items() if getattr(self.accelerator_config, name) != value]
        if changed:
            raise InputError(f"accelerator_config: {changed[0]} would change which samples a step takes; leave it out")
        if self.n_gpu > 1:
            raise InputError(
                f"{self.n_gpu} GPUs are visible to one process, which would put {self.n_gpu} times "
                "per_device_train_batch_size on one of them: launch with --config_file "
                f"training/accelerate_configs/gpu_multi.yaml --num_processes {self.n_gpu} to train on all, or set "
                "CUDA_VISIBLE_DEVICES=0 to train on one"
            )
        _check_trackers(self.report_to)


def samples_per_step(options: TrainingArguments) -> int:
    """Of an optimizer step, over all processes and micro-batches."""
    return options.per_device_train_batch_size * options.gradient_accumulation_steps * options.world_size


def steps_per_epoch(options: TrainingArguments, samples: int) -> int:
    """Optimizer steps that `samples` samples take, the last of them filled up or dropped."""
    whole, rest = divmod(samples, samples_per_step(options))
    return whole + bool(rest and not options.dataloader_drop_last)


def _check_trackers(names: list[str]) -> None:
    """Raises InputError for a tracker that transformers does not know or that is not installed."""
    installed = get_available_reporting_integrations()
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            raise InputError(f"report_to {name}: no such tracker; known are {', '.join(INTEGRATION_TO_CALLBACK)}")
        if name not in installed and name != "flyte":
            raise InputError(f"report_to {name}: it is not installed (pip install {name}), or leave it out")
