# /// script
# requires-python = ">=3.11"
# dependencies = ["product-vqa[all]"]
#
# [tool.uv.sources]
# product-vqa = { git = "https://git.example/product-vqa" }  # where this project is
#
# [tool.hf-jobs]
# flavor = "a100-large"
# timeout = "24h"
# secrets = ["HF_TOKEN"]
# ///
"""Train on a published dataset and predict its test split: the run as one file, here or on the Hub's machines.

    uv run scripts/hf_job.py --dataset user/dataset --adapter user/adapter --predictions user/predictions
    hf jobs uv run scripts/hf_job.py --dataset user/dataset --adapter user/adapter --predictions user/predictions

Each step is a public command, which is printed before it runs. What it makes is on the Hub: the adapter with the state
of the training, the predictions, and submission.csv next to the adapter. Run it again to resume after a job has ended.
"""

import re
import signal
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import psutil

import training
from product_vqa.cli import parse_options, run
from product_vqa.errors import InputError, argument
from product_vqa.paths import writable_folder
from quickstart.steps import Steps

TRAINING_FOLDER = Path(training.__file__).parent


@dataclass
class JobOptions:
    """The repos on the Hub, and how to train."""

    dataset: str = field(metadata={"help": "Dataset repo that dataset_builder.build made (user/name)."})
    adapter: str = field(metadata={"help": "Model repo to push the adapter to (user/name)."})
    predictions: str = field(metadata={"help": "Dataset repo to push the predictions to (user/name)."})
    training_config: str = field(
        default="paligemma_3b_448_bf16.yaml",
        metadata={"help": "Configuration of the training: a file of training/configs, or a path."},
    )
    training_options: list[str] = field(
        default_factory=list, metadata={"help": "More options of training.sft: num_train_epochs=1 seed=3 ..."}
    )
    shards: int = field(
        default=8, metadata={"help": "Number of shards of the predictions. Each is pushed at its end."}
    )
    batch_size: int = field(default=64, metadata={"help": "Rows per batch of the predictions."})
    output_dir: str = field(default="runs/hf_job", metadata={"help": "Folder for checkpoints and predictions."})

    def __post_init__(self) -> None:
        if self.shards < 1:
            raise InputError(f"`shards` must be at least 1, got {self.shards}")
        if wrong := [text for text in self.training_options if not re.fullmatch(r"[a-z0-9_]+=.+", text)]:
            raise InputError(f"`training_options` {wrong[0]!r} is not of the form name=value")

    @property
    def training_flags(self) -> list[str]:
        """`seed=3` as `--seed 3`."""
        return [word for text in self.training_options for word in f"--{text}".split("=", 1)]


def main() -> None:
    (options,) = parse_options(JobOptions, description="Train on a published dataset and predict its test split.")
    config = find_config(options.training_config)
    with argument("output_dir"):
        folder = writable_folder(options.output_dir)
    signal.signal(signal.SIGTERM, forward_signal)
    steps = Steps({"TOKENIZERS_PARALLELISM": "false"})
    launch = launch_command(count_gpus())
    submission = folder / "submission.csv"
    predict = (
        "inference.predict", "--adapter", options.adapter, "--dataset", options.dataset, "--split", "test",
        "--batch_size", options.batch_size, "--output", submission,
        "--push_to_hub", "--hub_predictions_id", options.predictions,
    )  # fmt: skip
    steps.run(
        "train", "Train the adapter",
        *launch, "training.sft", "--config", config, "--dataset_name", options.dataset,
        "--streaming", "true", "--output_dir", folder / "adapter", *options.training_flags,
        "--push_to_hub", "--hub_model_id", options.adapter, "--hub_strategy", "checkpoint",
    )  # fmt: skip
    for number in range(1, options.shards + 1):
        shard = f"{number}/{options.shards}"
        steps.run(f"predict {shard}", f"Predict shard {shard}", *launch, *predict, "--shard", shard)
    steps.run("merge", "Merge the shards", "python", "-m", *predict, "--merge", options.shards)
    steps.run("upload", "Upload the submission", "hf", "upload", options.adapter, submission, submission.name)


def count_gpus() -> int:
    import torch  # after parsing, as --help does not need it

    return torch.cuda.device_count()


def launch_command(num_gpus: int) -> tuple[str | Path | int, ...]:
    """`product_vqa.launch` with the configuration for so many GPUs, up to the module's name."""
    name = {0: "cpu.yaml", 1: "gpu.yaml"}.get(num_gpus, "gpu_multi.yaml")
    config_file = TRAINING_FOLDER / "accelerate_configs" / name
    return (
        "python", "-m", "product_vqa.launch", "--config_file", config_file, "--num_processes", max(1, num_gpus), "-m",
    )  # fmt: skip


def find_config(name: str) -> Path:
    """A file of training/configs, or the path that `name` is. Raises InputError if it is neither."""
    found = [file for file in (TRAINING_FOLDER / "configs" / name, Path(name)) if file.is_file()]
    if not found:
        known = ", ".join(sorted(file.name for file in (TRAINING_FOLDER / "configs").glob("*.yaml")))
        raise InputError(f"`training_config` {name}: no such file, and none of training/configs ({known})")
    return found[0]


def forward_signal(number: int, _: FrameType | None) -> None:
    """Forward a signal to the step that runs: a training saves and pushes its state before it ends."""
    for child in psutil.Process().children():
        child.send_signal(number)


if __name__ == "__main__":
    run(main)
