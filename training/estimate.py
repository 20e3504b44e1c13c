"""How much memory and how long a training run will take, before anything is loaded: counted on the base's shape.

python -m training.estimate --config training/configs/paligemma_3b_224_nf4.yaml --dtype bfloat16
"""

from dataclasses import dataclass, field

from product_vqa.cli import parse_options, run
from product_vqa.errors import InputError, argument


@dataclass
class EstimateOptions:
    """What the run's own options do not say."""

    train_rows: int = field(default=263_859, metadata={"help": "Rows to learn from; default: the challenge's own."})

    def __post_init__(self) -> None:
        if self.train_rows < 1:
            raise InputError(f"--train_rows must be at least 1, got {self.train_rows}")


def main() -> None:
    from training.options import DatasetOptions, ModelOptions, TrainingOptions

    estimate_options, _, model_options, options = parse_options(
        EstimateOptions,
        DatasetOptions,
        ModelOptions,
        TrainingOptions,
        description="How much memory and how long a training run will take.",
    )

    from product_vqa.hub import locate
    from product_vqa.modeling.loading import load_config
    from training.compute import PEAK_TFLOPS, REACHED, flop_per_row, hours
    from training.loading import make_lora
    from training.memory import estimate_run

    with argument("model_name_or_path"):
        base = locate(model_options.model_name_or_path, revision=model_options.model_revision)
    with argument("model_name_or_path"):
        config = load_config(base)
    print(estimate_run(config, model_options, options))
    flop = flop_per_row(config, make_lora(model_options), gradient_checkpointing=bool(options.gradient_checkpointing))
    rows = round(estimate_options.train_rows * options.num_train_epochs)
    if options.max_steps > 0:
        rows = options.max_steps * options.per_device_train_batch_size * options.gradient_accumulation_steps
    times = ", ".join(f"{name} {hours(rows * flop, tflops=peak):.1f}" for name, peak in PEAK_TFLOPS.items())
    print(
        f"compute, {flop / 1e12:.1f} TFLOP a row: hours for {rows:,} rows on one GPU at {REACHED:.0%} of its peak: "
        f"{times}"
    )


if __name__ == "__main__":
    run(main)
