"""The options of a training run: the dataset, the base model and its adapter, and TRL's own settings."""

import copy
import importlib.util
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import torch
from transformers import TrainingArguments
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
)
from transformers.trainer_utils import HubStrategy
from trl import SFTConfig  # type: ignore[attr-defined]  # exported lazily

from product_vqa.distributed import runs_on_cpu
from product_vqa.documents import parse_json, read_json
from product_vqa.errors import InputError, argument, library_errors
from product_vqa.modeling.layer_pattern import check_layer_pattern
from product_vqa.modeling.loading import LANGUAGE_MODEL_LINEARS, resolve_dtype
from training.limits import MAX_SAMPLES_PER_STEP, check_limits

DEFAULT_BUFFER_SIZE = 10_000  # rows, of `shuffle_buffer_size` when streaming: about 100 MB at 224 px


@dataclass
class DatasetOptions:
    """The dataset to train on; its columns are those of `product_vqa.task.features`."""

    dataset_name: str = field(
        metadata={"help": "Dataset made by dataset_builder.build: a repo (user/name) or a folder."}
    )
    dataset_revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of the dataset repo. Unset: the current main."}
    )
    dataset_sha256: str | None = field(
        default=None,
        metadata={
            "help": "Expected hash of a dataset folder's content; a folder with other content is refused. Every run "
            "records it in sft_config.yaml."
        },
    )
    dataset_train_split: str = field(default="train", metadata={"help": "Split to train on."})
    dataset_test_split: str = field(default="validation", metadata={"help": "Split to evaluate on."})
    max_train_samples: int | None = field(
        default=None,
        metadata={"help": "Train on at most this many rows, the first ones after a shuffle with data_seed."},
    )
    oversample_like: str | None = field(
        default=None,
        metadata={
            "help": "Split, for example test, whose distribution of attributes to approach: rows of an attribute with "
            "a larger share there are repeated, until there are as many as that share of the original rows. No row is "
            "dropped."
        },
    )
    max_eval_samples: int = field(
        default=500,
        metadata={
            "help": "Maximum number of rows of dataset_test_split to evaluate on, every eval_steps. With "
            "load_best_model_at_end these rows select the checkpoint, and are at most half of the split. 0 disables "
            "the evaluation."
        },
    )
    max_card_samples: int = field(
        default=2000,
        metadata={
            "help": "With load_best_model_at_end: the scores in the model card are measured on at most this many of "
            "the other rows, which did not select the checkpoint."
        },
    )

    streaming: bool = field(
        default=False,
        metadata={
            "help": "Read the rows from the Hub while training, without a copy on disk. shuffle_buffer_size defaults "
            f"to {DEFAULT_BUFFER_SIZE} then."
        },
    )
    shuffle_buffer_size: int | None = field(
        default=None,
        metadata={
            "help": "Shuffle row groups, and rows within a buffer of this many, as a streamed run does; the rows of "
            "max_train_samples are then those of complete row groups. A streamed run and one from disk train on the "
            "same samples in the same order, and resume each other. Unset: shuffle all rows."
        },
    )

    def __post_init__(self) -> None:
        if self.streaming and self.shuffle_buffer_size is None:
            self.shuffle_buffer_size = DEFAULT_BUFFER_SIZE
        check_limits(self)


@dataclass
class ModelOptions:
    """The base model, how it is loaded, and the adapter that is trained on it."""

    model_name_or_path: str = field(
        default="google/paligemma-3b-pt-224",
        metadata={"help": "PaliGemma base model: a repo (user/name) or a folder."},
    )
    model_revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of the base model's repo. Unset: the current main."}
    )
    base_model_id: str | None = field(
        default=None,
        metadata={
            "help": "Repo id of the base model where model_name_or_path is a folder; the adapter's config names it."
        },
    )
    base_sha256: str | None = field(
        default=None,
        metadata={
            "help": "Expected hash of a base model folder's content; a folder with other content is refused. Every "
            "run records it in sft_config.yaml."
        },
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = field(
        default="auto",
        metadata={
            "help": "Dtype of the frozen base model. auto: bfloat16 where the device is fast at it, otherwise "
            "float16 on a GPU and float32 on a CPU."
        },
    )
    attn_implementation: str | None = field(
        default=None,
        metadata={"help": "sdpa or eager. Flash attention does not support PaliGemma's prefix mask and is refused."},
    )
    load_in_4bit: bool = field(
        default=False,
        metadata={"help": "Quantize the language model, but not SigLIP, to 4-bit NF4 with double quantization."},
    )
    disable_logit_softcapping: bool = field(
        default=False,
        metadata={"help": "Remove PaliGemma 2's cap of the output logits, as its authors do for fine-tuning."},
    )
    lora_r: int = field(default=8, metadata={"help": "Rank of the adapter."})
    lora_alpha: int = field(default=16, metadata={"help": "The update is scaled by lora_alpha / lora_r."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout before the adapter, from 0 to below 1."})
    lora_target_modules: str = field(
        default=LANGUAGE_MODEL_LINEARS,
        metadata={
            "help": "Regular expression for the layers to adapt; by default all linear layers of the language model."
        },
    )
    use_rslora: bool = field(
        default=False, metadata={"help": "Scale the update by lora_alpha / sqrt(lora_r) (peft's rsLoRA)."}
    )
    use_dora: bool = field(
        default=False, metadata={"help": "Train the magnitude and the direction of weights separately (peft's DoRA)."}
    )

    def __post_init__(self) -> None:
        check_limits(self)
        if not 0 <= self.lora_dropout < 1:
            raise InputError(f"`lora_dropout` must be at least 0 and below 1, got {self.lora_dropout}")
        if self.attn_implementation and "flash" in self.attn_implementation:
            raise InputError("`attn_implementation`: flash attention drops PaliGemma's prefix mask; use sdpa or eager")
        if self.attn_implementation not in (None, "sdpa", "eager"):  # the name of a repo would run its code
            raise InputError(f"`attn_implementation` must be sdpa or eager, got {self.attn_implementation}")
        with argument("lora_target_modules"):
            check_layer_pattern(self.lora_target_modules)


# Settings of SFTConfig that would silently have no effect on our batches or our loss.
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


# Settings that would keep a run from resuming as the same run, and why.
_UNRESUMABLE_SETTINGS = {
    "auto_find_batch_size": "it would change the number of samples per step; training.estimate shows what fits",
    "average_tokens_across_devices": "the result would depend on the number of processes",
    "enable_jit_checkpoint": "a SIGTERM saves a checkpoint anyway",
    "ignore_data_skip": "a resumed run would train on the same samples again",
    "save_on_each_node": "`output_dir` must be a folder that all machines share",
    "save_only_model": "a checkpoint without optimizer state cannot be resumed",
}
_COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
# The keys of accelerator_config that decide which samples a step takes, with transformers' own values.
_SAMPLE_ORDER = {"split_batches": False, "dispatch_batches": None, "even_batches": True, "use_seedable_sampler": True}


@dataclass
class TrainingOptions(SFTConfig):
    """TRL's SFTConfig with defaults for an adapter on a frozen PaliGemma."""

    gradient_checkpointing: bool | None = field(  # type: ignore[assignment]  # unset, as in transformers
        default=None,
        metadata={"help": "Use less memory for 45 percent more compute. Sequences are short: usually not needed."},
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Every row has an image and an answer, so every parameter is used."}
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Stop after this many evaluations without a better F1 and keep the best checkpoint."},
    )
    hub_private_repo: bool | None = field(
        default=True,
        metadata={"help": "Create the adapter's repo as private. A repo that exists keeps its visibility."},
    )
    hub_strategy: str = field(
        default="end",
        metadata={
            "help": "When to push. end: after training. every_save: also the adapter and its card at each checkpoint. "
            "checkpoint: with them all that a run needs to resume on another machine.",
            "choices": ["end", "every_save", "checkpoint"],
        },
    )
    resume_from_hub: bool | None = field(
        default=None,
        metadata={
            "help": "Resume from the state in the repo if it is newer than the checkpoints in output_dir. Unset: with "
            "hub_strategy checkpoint. If false, the next checkpoint replaces it.",
            "nargs": "?",  # without a value: true, as of a flag whose default is false
            "const": True,
        },
    )
    hub_take_over: bool = field(
        default=False,
        metadata={
            "help": "With hub_strategy checkpoint, where another session trains to the same repo: end it, and "
            "continue from its last state."
        },
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Must stay unset: an image, its question and its answer are never truncated."}
    )
    samples_per_step: int | None = field(
        default=None,
        metadata={
            "help": "Expected value of per_device_train_batch_size x gradient_accumulation_steps x processes; any "
            "other product is refused. Every run records it in sft_config.yaml."
        },
    )
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Hide NaN and infinite losses from the log. They stop the run either way."}
    )

    def __post_init__(self) -> None:
        self.use_cpu = self.use_cpu or runs_on_cpu()
        self.dataloader_pin_memory = self.dataloader_pin_memory and not self.use_cpu
        if self.bf16 is None and not self.fp16:
            # SFTConfig's default, True, computes in bfloat16 on any CPU and any GPU.
            accelerator = None if self.use_cpu else torch.accelerator.current_accelerator()
            fast = resolve_dtype("auto", device=accelerator or "cpu")
            self.bf16, self.fp16 = fast == torch.bfloat16, fast == torch.float16
        self._refuse_settings()
        self._read_documents()
        if self.early_stopping_patience is not None:
            self.load_best_model_at_end = True
        if self.load_best_model_at_end and self.metric_for_best_model is None:
            # Not the loss; and an exact string also depends on whether the label says 500 or 500.0.
            self.metric_for_best_model = "f1_quantity"
        with library_errors():
            super().__post_init__()
        changed = [name for name, value in _SAMPLE_ORDER.items() if getattr(self.accelerator_config, name) != value]
        if changed:
            raise InputError(
                f"`accelerator_config`: {changed[0]} would change which samples a step takes; remove this setting"
            )
        assert isinstance(self.report_to, list)  # made one by __post_init__
        _check_trackers(self.report_to)

    def check_gpus(self) -> None:
        """Raise InputError if this process sees several GPUs: transformers would multiply its batch by their number.

        An estimate needs no such check.
        """
        if self.n_gpu > 1:
            raise InputError(
                f"one process sees {self.n_gpu} GPUs and would put {self.n_gpu} times `per_device_train_batch_size` "
                "on one of them: launch with training/accelerate_configs/gpu_multi.yaml and "
                f"num_processes {self.n_gpu} to train on all, or set CUDA_VISIBLE_DEVICES=0 to train on one"
            )

    @property
    def keeps_state_on_hub(self) -> bool:
        """Whether the complete state of the run is pushed with each checkpoint."""
        return bool(self.push_to_hub) and self.hub_strategy == HubStrategy.CHECKPOINT

    def _read_documents(self) -> None:
        """Read the JSON files that an option names, and check JSON that is given in its place.

        transformers would read them without any limit. Raises InputError for what is not a mapping of JSON.
        """
        for name in self._VALID_DICT_FIELDS:
            value = getattr(self, name)
            if not isinstance(value, str):
                continue
            try:
                if value.startswith("{"):
                    parse_json(value)  # transformers parses it
                    continue
                content = read_json(value)
            except (OSError, ValueError) as error:
                raise InputError(f"`{name}` {value}: {getattr(error, 'strerror', None) or error}") from error
            if not isinstance(content, dict):
                raise InputError(f"`{name}` {value} must hold a JSON object, got {type(content).__name__}")
            setattr(self, name, content)

    def _refuse_settings(self) -> None:
        """Raises InputError for a setting that cannot work, that would have no effect or that prevents resuming."""
        check_limits(self)
        defaults = {option.name: option.default for option in fields(SFTConfig)}
        for name in _IGNORED_SETTINGS:
            if getattr(self, name) != defaults[name]:
                raise InputError(f"`{name}`: {getattr(self, name)!r} would have no effect here; remove this setting")
        if self.max_length is not None:
            raise InputError(f"`max_length`: {self.max_length!r} would have no effect here; remove this setting")
        for name, reason in _UNRESUMABLE_SETTINGS.items():
            if getattr(self, name) != defaults[name]:
                raise InputError(f"`{name}`: {reason}; remove this setting")
        for name in ("save_steps", "logging_steps"):
            if getattr(self, name) == 0 and getattr(self, name.replace("_steps", "_strategy")) == "steps":
                raise InputError(f"`{name}` must be more than 0; `{name.replace('_steps', '_strategy')}` no for never")
        if self.per_device_train_batch_size * self.gradient_accumulation_steps > MAX_SAMPLES_PER_STEP:
            raise InputError(
                f"`per_device_train_batch_size` x `gradient_accumulation_steps` must be at most {MAX_SAMPLES_PER_STEP}"
            )
        if self.use_liger_kernel and not importlib.util.find_spec("liger_kernel"):
            raise InputError("`use_liger_kernel`: liger-kernel is not installed; remove this setting")
        if self.torch_compile_mode not in (None, *_COMPILE_MODES):
            raise InputError(f"`torch_compile_mode` must be one of {', '.join(_COMPILE_MODES)}")
        if self.dataloader_num_workers == 0 and self.dataloader_persistent_workers:
            raise InputError("`dataloader_persistent_workers` needs `dataloader_num_workers` 1 or more")
        if self.max_steps == 0:
            raise InputError("`max_steps` is 0: the run would make no step")
        if self.max_steps < 0 and not self.num_train_epochs > 0:
            raise InputError(f"`num_train_epochs` is {self.num_train_epochs}: the run would make no step")
        if self.early_stopping_patience is not None:
            if self.early_stopping_patience < 1:
                raise InputError(f"`early_stopping_patience` must be at least 1, got {self.early_stopping_patience}")
            if self.eval_strategy == "no":
                raise InputError(
                    "`early_stopping_patience` needs evaluations; set `eval_strategy` steps and `eval_steps`"
                )


def with_changes(options: TrainingOptions, **changes: Any) -> TrainingOptions:
    """A copy of `options` with other values; `options` stays as it is.

    `dataclasses.replace` would run `__post_init__` again, which resets accelerate's state and makes a second DeepSpeed
    plugin.
    """
    changed = copy.copy(options)
    for name, value in changes.items():
        setattr(changed, name, value)
    return changed


def samples_per_step(options: TrainingArguments) -> int:
    """Samples of one optimizer step, over all processes and micro-batches."""
    return options.per_device_train_batch_size * options.gradient_accumulation_steps * options.world_size


def steps_per_epoch(options: TrainingArguments, samples: int) -> int:
    """Optimizer steps for `samples` samples. An incomplete last step counts unless `dataloader_drop_last` drops it."""
    complete, rest = divmod(samples, samples_per_step(options))
    return complete + bool(rest and not options.dataloader_drop_last)


def _check_trackers(names: list[str]) -> None:
    """Raises InputError for a tracker that transformers does not know or that is not installed."""
    installed = get_available_reporting_integrations()
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(INTEGRATION_TO_CALLBACK)
            raise InputError(f"`report_to`: {name} is not a known tracker; choose from {known}")
        if name not in installed and not (name == "flyte" and importlib.util.find_spec("flytekit")):
            raise InputError(f"`report_to`: {name} is not installed; run `pip install {name}` or choose another")
