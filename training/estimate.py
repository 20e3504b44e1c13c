"""Estimate the memory and the time of a training run from the base model's config, without loading any weights.

python -m training.estimate --config training/configs/paligemma_3b_224_nf4.yaml --dtype bfloat16
"""

from dataclasses import dataclass, field
from typing import Any

from product_vqa import cli  # first: it hides lines that libraries log when they are imported

# isort: split
import torch
from peft import LoraConfig
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import PaliGemmaConfig

from product_vqa.errors import InputError, argument
from product_vqa.hub import locate
from product_vqa.modeling.loading import load_config
from training.loading import make_lora
from training.memory import (
    ANSWER_TOKENS,
    TEXT_TOKENS,
    adapts_vision,
    build_empty_model,
    estimate_run,
    use_fake_tensors,
)
from training.options import DatasetOptions, ModelOptions, TrainingOptions

# Dense 16-bit matrix products with 32-bit accumulation, TFLOP/s, from the makers' data sheets.
PEAK_TFLOPS = {"T4": 65, "L4": 121, "RTX 4090": 165, "A100": 312, "H100": 989}
UTILIZATION = 0.4  # of the peak: what a GPU that never waits for data reaches in practice


@dataclass
class EstimateOptions:
    """What the options of a run do not tell."""

    train_rows: int = field(
        default=250_000,
        metadata={
            "help": "Number of rows to train on, those that `oversample_like` repeats included; the default is about "
            "that of the challenge's split train."
        },
    )

    def __post_init__(self) -> None:
        if self.train_rows < 1:
            raise InputError(f"--train_rows must be at least 1, got {self.train_rows}")


def main() -> None:
    estimate_options, dataset_options, model_options, options = cli.parse_options(
        EstimateOptions,
        DatasetOptions,
        ModelOptions,
        TrainingOptions,
        description="Estimate the memory and the time of a training run.",
    )
    with argument("model_name_or_path"):
        config = load_config(locate(model_options.model_name_or_path, revision=model_options.model_revision))
    print(estimate_run(config, model_options, options))
    flop = count_flop(config, make_lora(model_options), gradient_checkpointing=bool(options.gradient_checkpointing))
    train_rows = min(estimate_options.train_rows, dataset_options.max_train_samples or estimate_options.train_rows)
    samples = count_samples(train_rows, options)
    hours = ", ".join(f"{gpu} {estimate_hours(samples * flop, tflops=peak):.1f}" for gpu, peak in PEAK_TFLOPS.items())
    print(
        f"compute, {flop / 1e12:.1f} TFLOP per sample; hours for {samples:,} samples on one GPU at {UTILIZATION:.0%} "
        f"of its peak: {hours}"
    )


def count_samples(train_rows: int, options: TrainingOptions) -> int:
    """Return the number of samples that a run on one device processes."""
    if options.max_steps > 0:
        return options.max_steps * options.per_device_train_batch_size * options.gradient_accumulation_steps
    return round(train_rows * options.num_train_epochs)


def count_flop(config: PaliGemmaConfig, lora: LoraConfig, *, gradient_checkpointing: bool = False) -> int:
    """Count the floating-point operations (a multiply-add is two) of one sample's forward and backward pass.

    SigLIP runs backward only if the adapter changes it, lm_head on the answer's tokens only. With gradient
    checkpointing, the language model runs forward twice, and so does SigLIP if the adapter changes it.
    """
    vision: Any = config.vision_config
    size, width = vision.image_size, config.get_text_config().hidden_size
    model, adapted = build_empty_model(config, lora, dtype=torch.bfloat16)
    adapted.to(torch.bfloat16).train()  # the adapter too: nothing here casts between two dtypes
    with FakeTensorMode():
        use_fake_tensors(model)
        pixels = torch.empty(1, 3, size, size, dtype=torch.bfloat16)
        text = torch.empty(1, TEXT_TOKENS, width, dtype=torch.bfloat16)
        with FlopCounterMode(display=False) as vision:
            image = model.get_image_features(pixels).pooler_output
        with FlopCounterMode(display=False) as forward:
            embedded = torch.cat([image, text], dim=1)
            hidden = model.model.language_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
            logits = model.lm_head(hidden[:, :ANSWER_TOKENS])
        with FlopCounterMode(display=False) as backward:
            logits.sum().backward()
    flop = vision.get_total_flops() + forward.get_total_flops() + backward.get_total_flops()
    repeated = forward.get_total_flops() + (vision.get_total_flops() if adapts_vision(adapted) else 0)
    return flop + (repeated if gradient_checkpointing else 0)


def estimate_hours(flop: float, *, tflops: float) -> float:
    """Return the hours that a GPU with this peak needs, at UTILIZATION."""
    return flop / (UTILIZATION * tflops * 1e12) / 3600


if __name__ == "__main__":
    cli.run(main)
