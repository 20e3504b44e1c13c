"""Training runs of the tests: their command line, as a process, and what they leave behind."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from huggingface_hub import ModelCard
from peft import LoraConfig
from safetensors.torch import load_file

from product_vqa.errors import argument
from product_vqa.hub import Location
from product_vqa.modeling.loading import LANGUAGE_MODEL_LINEARS, load_base_model, load_processor
from product_vqa.task.features import FEATURES
from product_vqa.task.schema import CHALLENGE
from tests.commands import ROOT
from tests.product_vqa.modeling.challenge import TrainingCollator
from tests.tiny import make_rows
from training.callbacks import SaveOnSigterm
from training.options import TrainingOptions
from training.trainer import PaliGemmaTrainer

QUICKSTART = ROOT / "training" / "configs" / "quickstart.yaml"
ADAPTER_FILES = {
    "README.md", "adapter_config.json", "adapter_model.safetensors", "log.csv", "processor_config.json",
    "product_vqa.json", "sft_config.yaml", "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip
STEPS = 14  # of `command`


# ---- As a process --------------------------------------------------------------------------------------------------


def command(base_model: Path | str, dataset: Path | str, output_dir: Path, *more: str | int | Path) -> list[str]:
    """A run of STEPS steps that saves a checkpoint every third step and evaluates nothing."""
    arguments: list[Any] = [
        "--config", QUICKSTART, "--dataset_name", dataset, "--model_name_or_path", base_model, "--output_dir",
        output_dir, "--max_steps", STEPS, "--save_steps", 3, "--logging_steps", 1, "--lora_r", 4, "--eval_strategy",
        "no", "--max_eval_samples", 0, "--per_device_train_batch_size", 4, "--seed", 3, *more,
    ]  # fmt: skip
    return [sys.executable, "-m", "training.sft", *map(str, arguments)]


def pushed_to(repo_id: str, *more: str | int) -> list[str | int]:
    push = ["--push_to_hub", "--hub_model_id", repo_id, "--hub_strategy", "checkpoint", "--base_model_id", "user/base"]
    return [*push, *more]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        arguments, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for(process: subprocess.Popen[str], text: str) -> list[str]:
    """Lines of its output until one contains `text`."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError("".join(lines))


def run_to_the_end(arguments: list[str]) -> str:
    process = start(arguments)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


# ---- In this process -----------------------------------------------------------------------------------------------


def make_trainer(
    kind: type[PaliGemmaTrainer],
    base_model: Path,
    output_dir: Path,
    *,
    load_in_4bit: bool = False,
    **settings: Any,
) -> PaliGemmaTrainer:
    """A trainer of three steps of three rows on an adapter that is not zero at the start."""
    location = Location(str(base_model))
    processor = load_processor(location)
    lora = LoraConfig(r=4, target_modules=LANGUAGE_MODEL_LINEARS, init_lora_weights=False)
    options: dict[str, Any] = {
        "per_device_train_batch_size": 3,
        "max_steps": 3,
        "logging_steps": 1,
        "learning_rate": 1e-3,
        "save_strategy": "no",
        "disable_tqdm": True,
        "bf16": False,
    }
    with argument("base_model"):
        return kind(
            model=load_base_model(location, dtype=torch.float32, load_in_4bit=load_in_4bit),
            args=TrainingOptions(output_dir=str(output_dir), **(options | settings)),
            train_dataset=Dataset.from_list(make_rows(24), features=FEATURES),
            eval_dataset=Dataset.from_list(make_rows(8), features=FEATURES),
            processing_class=processor,
            data_collator=TrainingCollator(processor),
            schema=CHALLENGE,
            peft_config=lora,
        )


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int | None) -> None:
    """End runs in this process at a step, without a last checkpoint."""

    def on_step_end(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(SaveOnSigterm, "on_step_end", on_step_end)


# ---- What a run leaves behind --------------------------------------------------------------------------------------


def load_adapter(folder: Path) -> dict[str, Any]:
    return load_file(folder / "adapter_model.safetensors")


def check_equal_adapters(folder: Path, expected: Path) -> None:
    """To the bit."""
    ours, theirs = load_adapter(folder), load_adapter(expected)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].equal(tensor), name


def read_log(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "log.csv").open()))


def read_losses(folder: Path) -> list[tuple[str, float]]:
    """The loss of each step."""
    return [(row["step"], float(row["loss"])) for row in read_log(folder) if row["loss"]]


def card_scores(folder: Path) -> dict[str, float]:
    results = ModelCard.load(folder / "README.md").data.eval_results
    return {result.metric_name: result.metric_value for result in results}
