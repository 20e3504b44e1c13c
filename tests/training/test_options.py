"""The options of a run and their YAML files: each trains for a step, and settings that cannot work are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

from product_vqa import cli
from product_vqa.errors import InputError
from product_vqa.modeling.loading import resolve_dtype
from product_vqa.task.prompt import TASK_FILE
from tests.commands import ROOT, call
from tests.training.runs import load_adapter
from training import sft
from training.loading import load_model, locate_sources
from training.options import DatasetOptions, ModelOptions, TrainingOptions, with_changes

CONFIGS = sorted((ROOT / "training" / "configs").glob("*.yaml"))
ACCELERATE = sorted((ROOT / "training" / "accelerate_configs").glob("*.yaml"))
LAUNCHES = {
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
    assert [file.stem for file in CONFIGS] == [
        "paligemma2_3b_224_nf4", "paligemma_3b_224_nf4", "paligemma_3b_224_t4x2", "paligemma_3b_448_8gpu",
        "paligemma_3b_448_bf16", "paligemma_3b_448_nf4", "quickstart",
    ]  # fmt: skip
    assert [file.stem for file in ACCELERATE] == sorted(LAUNCHES)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda file: file.stem)
def test_every_config_is_short_and_begins_with_its_command(config: Path) -> None:
    lines = config.read_text().splitlines()
    assert len(lines) <= 50
    assert lines[0].startswith("# accelerate launch --config_file training/accelerate_configs/")
    assert f"--config training/configs/{config.name}" in lines[0]
    launched = next(word for word in lines[0].split() if word.startswith("training/accelerate_configs/"))
    assert (ROOT / launched).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=lambda file: file.stem)
def test_every_config_trains_for_a_step(
    config: Path, tiny_base: Path, tiny_paligemma2: Path, tiny_dataset: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Through the command, with a base model of 28 px."""
    base = tiny_paligemma2 if "paligemma2" in config.stem else tiny_base
    call(
        sft.main, monkeypatch, "--config", config, "--dataset_name", tiny_dataset, "--model_name_or_path", base,
        "--base_model_id", "user/base", "--output_dir", tmp_path, "--max_steps", 1, "--max_eval_samples", 4,
        "--eval_steps", 1, "--save_steps", 1, "--per_device_train_batch_size", 2, "--gradient_accumulation_steps", 1,
        "--dataloader_num_workers", 0,
    )  # fmt: skip
    assert (tmp_path / "adapter_model.safetensors").is_file()
    assert "eval_f1" in (tmp_path / "log.csv").read_text()
    written = yaml.safe_load((tmp_path / "sft_config.yaml").read_text())
    assert written["lora_r"] == yaml.safe_load(config.read_text())["lora_r"]
    recorded = json.loads((tmp_path / TASK_FILE).read_text())["base_model"]
    assert recorded.get("disable_logit_softcapping", False) == ("paligemma2" in config.stem)


def test_a_removed_cap_of_the_logits_is_removed_in_training(tiny_paligemma2: Path, tiny_dataset: Path) -> None:
    for is_removed, cap in ((True, None), (False, 30.0)):
        options = ModelOptions(model_name_or_path=str(tiny_paligemma2), disable_logit_softcapping=is_removed)
        sources = locate_sources(DatasetOptions(dataset_name=str(tiny_dataset)), options)
        assert load_model(sources, options)[0].config.text_config.final_logit_softcapping == cap


def test_a_split_to_oversample_like_is_looked_up_before_anything_is_downloaded(
    tiny_run: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sft, "download_sources", None)
    with pytest.raises(InputError, match=r"--oversample_like .* has no split 'tests'"):
        call(sft.main, monkeypatch, *tiny_run, "--output_dir", tmp_path / "run", "--oversample_like", "tests")


def test_a_cap_of_the_logits_that_does_not_exist_cannot_be_removed(
    tiny_run: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"--disable_logit_softcapping: .* does not cap its logits"):
        call(sft.main, monkeypatch, *tiny_run, "--output_dir", tmp_path / "run", "--disable_logit_softcapping", "true")


@pytest.mark.slow
@pytest.mark.parametrize(("switch", "name"), [("use_dora", "DoRA"), ("use_rslora", "rsLoRA")])
def test_pefts_own_switches_reach_the_adapter_and_its_card(
    tiny_run: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switch: str, name: str
) -> None:
    call(
        sft.main, monkeypatch, *tiny_run, "--output_dir", tmp_path, "--max_steps", 1, "--max_eval_samples", 0,
        f"--{switch}", "true",
    )  # fmt: skip
    assert json.loads((tmp_path / "adapter_config.json").read_text())[switch] is True
    assert f"| adapter | {name}, r=32" in (tmp_path / "README.md").read_text()
    assert any("magnitude" in key for key in load_adapter(tmp_path)) == (switch == "use_dora")


@pytest.mark.parametrize("config", ACCELERATE, ids=lambda file: file.stem)
def test_every_accelerate_config_loads_and_starts_what_it_should(config: Path) -> None:
    assert config.read_text().startswith("# ")
    loaded = load_config_from_file(str(config))
    found = (loaded.distributed_type.value, loaded.use_cpu, loaded.num_processes)
    assert found == LAUNCHES[config.stem]


@pytest.mark.parametrize(("flags", "visible"), [([], "0"), (["--gpu_ids", "1"], "1"), (["--gpu_ids", "all"], "5,6")])
def test_the_config_for_one_gpu_shows_one_to_the_process(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], visible: str
) -> None:
    from accelerate.commands.launch import _validate_launch_command
    from accelerate.utils.launch import prepare_simple_launcher_cmd_env

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    arguments = ["--config_file", str(ROOT / "training/accelerate_configs/gpu.yaml"), *flags, "-m", "training.sft"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(arguments))
    assert prepare_simple_launcher_cmd_env(arguments)[1]["CUDA_VISIBLE_DEVICES"] == visible


def test_one_process_that_sees_several_gpus_is_refused_with_the_remedies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingOptions, "n_gpu", 8)
    remedies = r"gpu_multi.yaml and num_processes 8 .* CUDA_VISIBLE_DEVICES=0"
    with pytest.raises(InputError, match=f"one process sees 8 GPUs.*{remedies}"):
        call(sft.main, monkeypatch, "--dataset_name", "user/dataset", "--output_dir", tmp_path)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"packing": True}, "`packing`: True would have no effect here"),
        ({"label_smoothing_factor": 0.1}, "`label_smoothing_factor`: 0.1"),
        ({"completion_only_loss": True}, "`completion_only_loss`: True"),
        ({"max_length": 512}, "`max_length`: 512"),
        ({"trust_remote_code": True}, "`trust_remote_code`: True"),
        ({"train_sampling_strategy": "group_by_length"}, "`train_sampling_strategy`: "),
        ({"auto_find_batch_size": True}, "`auto_find_batch_size`: it would change the number of samples per step"),
        ({"average_tokens_across_devices": False}, "`average_tokens_across_devices`: the result would depend on"),
        ({"enable_jit_checkpoint": True}, "`enable_jit_checkpoint`: a SIGTERM saves a checkpoint anyway"),
        ({"ignore_data_skip": True}, "`ignore_data_skip`: a resumed run would train on the same samples again"),
        ({"save_only_model": True}, "`save_only_model`: a checkpoint without optimizer state cannot be resumed"),
        ({"save_on_each_node": True}, "`save_on_each_node`: `output_dir` must be a folder that all machines share"),
        ({"accelerator_config": {"split_batches": True}}, "`accelerator_config`: split_batches would change which"),
        ({"accelerator_config": {"even_batches": False}}, "`accelerator_config`: even_batches would change which"),
        ({"max_steps": 0}, "`max_steps` is 0: the run would make no step"),
        ({"num_train_epochs": 0}, "`num_train_epochs` is 0: the run would make no step"),
        ({"num_train_epochs": -1.5}, "`num_train_epochs` is -1.5: the run would make no"),
        ({"per_device_train_batch_size": 0}, "`per_device_train_batch_size` must be at least 1, got 0"),
        ({"per_device_eval_batch_size": 0}, "`per_device_eval_batch_size` must be at least 1"),
        ({"gradient_accumulation_steps": 0}, "`gradient_accumulation_steps` must be at least 1"),
        ({"dataloader_num_workers": -1}, "`dataloader_num_workers` must be at least 0"),
        ({"dataloader_prefetch_factor": 2}, "dataloader_prefetch_factor"),  # transformers' own check
        ({"report_to": "wandb"}, "`report_to`: wandb is not installed; run `pip install wandb`"),
        ({"report_to": "wand"}, "`report_to`: wand is not a known tracker; choose from .*tensorboard"),
        ({"early_stopping_patience": 2}, "`early_stopping_patience` needs evaluations"),
        ({"early_stopping_patience": 0}, "`early_stopping_patience` must be at least 1"),
    ],
)
def test_a_setting_without_effect_or_that_prevents_resuming_is_refused(
    tmp_path: Path, setting: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        TrainingOptions(output_dir=str(tmp_path), **setting)


def test_the_defaults_suit_an_adapter_on_a_frozen_base_model(tmp_path: Path) -> None:
    options = TrainingOptions(output_dir=str(tmp_path))
    assert not options.gradient_checkpointing
    assert options.bf16 == (resolve_dtype("auto", device="cpu") == torch.bfloat16)
    assert not options.fp16
    assert options.ddp_find_unused_parameters is False


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"max_train_samples": 0}, "`max_train_samples` must be at least 1, got 0"),
        ({"max_eval_samples": -1}, "`max_eval_samples` must be at least 0, got -1"),
    ],
)
def test_a_dataset_setting_that_cannot_work_is_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DatasetOptions(dataset_name="user/data", **setting)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"lora_r": 0}, "`lora_r` must be at least 1, got 0"),
        ({"lora_dropout": 1.0}, "lora_dropout"),
        ({"attn_implementation": "flash_attention_2"}, "drops PaliGemma's prefix mask"),
    ],
)
def test_a_model_setting_that_cannot_work_is_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ModelOptions(**setting)


def test_the_write_ups_run_is_nf4_with_rank_8() -> None:
    config = yaml.safe_load((ROOT / "training/configs/paligemma_3b_224_nf4.yaml").read_text())
    assert (config["model_name_or_path"], config["load_in_4bit"], config["lora_r"]) == (
        "google/paligemma-3b-pt-224", True, 8,
    )  # fmt: skip


def test_changed_options_are_a_copy(tmp_path: Path) -> None:
    options = TrainingOptions(output_dir=str(tmp_path), max_steps=10)
    changed = with_changes(options, max_steps=3)
    assert (options.max_steps, changed.max_steps) == (10, 3)
    assert changed.device == options.device and changed.output_dir == options.output_dir


@pytest.mark.parametrize(
    ("given", "expected"),
    [([], None), (["--resume_from_hub"], True), (["--resume_from_hub", "true"], True),
     (["--resume_from_hub", "false"], False)],
)  # fmt: skip
def test_whether_to_resume_from_the_hub_is_a_flag_with_or_without_a_value(
    tmp_path: Path, given: list[str], expected: bool | None
) -> None:
    arguments = ["--output_dir", str(tmp_path), "--report_to", "none", *given]
    (options,) = cli.parse_options(TrainingOptions, description="A run.", argv=arguments)
    assert options.resume_from_hub is expected and not options.hub_take_over
