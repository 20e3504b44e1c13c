from pathlib import Path

import pytest
import torch
import yaml

from product_vqa.command import InputError, parse_options
from product_vqa.paligemma import resolve_dtype
from tests.commands import ROOT
from training.options import DatasetOptions, ModelOptions, TrainingOptions

CONFIGS = sorted((ROOT / "training" / "configs").glob("*.yaml"))
ACCELERATE = sorted((ROOT / "training" / "accelerate").glob("*.yaml"))
WHAT_IT_STARTS = {
    "cpu": ("NO", True, 1),
    "cpu_2": ("MULTI_GPU", True, 2),
    # Run in test_processes.py, on a CPU.
    "fsdp2": ("FSDP", False, 8),
    "multi_node": ("MULTI_GPU", False, 16),
    "zero2": ("DEEPSPEED", False, 8),
    "zero3": ("DEEPSPEED", False, 8),
    # Only parsed: with use_cpu they would be cpu.yaml and cpu_2.yaml.
    "gpu": ("NO", False, 1),
    "gpu_multi": ("MULTI_GPU", False, 8),
}


def test_every_config_is_known_here() -> None:
    assert [file.stem for file in CONFIGS] == ["paligemma_3b_224_nf4", "paligemma_3b_448_nf4", "quickstart"]
    assert [file.stem for file in ACCELERATE] == sorted(WHAT_IT_STARTS)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda file: file.stem)
def test_every_config_parses_is_short_and_begins_with_its_command(config: Path, tmp_path: Path) -> None:
    lines = config.read_text().splitlines()
    assert len(lines) <= 50
    assert lines[0].startswith("# accelerate launch --config_file training/accelerate/")
    assert f"--config training/configs/{config.name}" in lines[0]
    launched = next(word for word in lines[0].split() if word.startswith("training/accelerate/"))
    assert (ROOT / launched).is_file()
    # 8-bit and bf16 settings are checked against the machine, so only what a CPU has is asked of it.
    dataset, model, options = parse_options(
        DatasetOptions,
        ModelOptions,
        TrainingOptions,
        description="",
        argv=["--config", str(config), "--output_dir", str(tmp_path)],
    )
    assert dataset.dataset_name
    assert model.model_name_or_path
    assert options.hub_strategy == "end"


@pytest.mark.parametrize("config", ACCELERATE, ids=lambda file: file.stem)
def test_every_accelerate_config_loads_and_says_what_it_starts(config: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    assert config.read_text().startswith("# ")
    loaded = load_config_from_file(str(config))
    found = (loaded.distributed_type.value, loaded.use_cpu, loaded.num_processes)
    assert found == WHAT_IT_STARTS[config.stem]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"packing": True}, "packing: True would change nothing here"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor: 0.1"),
        ({"completion_only_loss": True}, "completion_only_loss"),
        ({"max_length": 512}, "max_length: 512"),
        ({"trust_remote_code": True}, "trust_remote_code"),
    ],
)
def test_a_setting_that_would_be_ignored_is_refused(tmp_path: Path, setting: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainingOptions(output_dir=str(tmp_path), **setting)


def test_the_defaults_suit_an_adapter_on_a_frozen_base(tmp_path: Path) -> None:
    options = TrainingOptions(output_dir=str(tmp_path))
    assert not options.gradient_checkpointing
    assert options.bf16 == (resolve_dtype("auto", device="cpu") == torch.bfloat16)
    assert not options.fp16
    assert options.ddp_find_unused_parameters is False


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"lora_r": 0}, "lora_r must be at least 1, got 0"),
        ({"lora_dropout": 1.0}, "lora_dropout"),
        ({"attn_implementation": "flash_attention_2"}, "drops PaliGemma's prefix mask"),
    ],
)
def test_a_model_setting_that_cannot_work_is_refused(setting: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ModelOptions(**setting)


def test_the_write_ups_run_is_nf4_with_rank_8() -> None:
    config = yaml.safe_load((ROOT / "training/configs/paligemma_3b_224_nf4.yaml").read_text())
    assert (config["model_name_or_path"], config["load_in_4bit"], config["lora_r"]) == (
        "google/paligemma-3b-pt-224", True, 8,
    )  # fmt: skip
