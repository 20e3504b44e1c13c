import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load, load_file

from product_vqa.errors import InputError
from product_vqa.modeling.loading import resolve_dtype
from tests.commands import ROOT, call
from training import sft, trainer
from training.evaluation import score as real_score
from training.options import DatasetOptions, ModelOptions, TrainingOptions

CONFIGS = sorted((ROOT / "training" / "configs").glob("*.yaml"))
ACCELERATE = sorted((ROOT / "training" / "accelerate_configs").glob("*.yaml"))
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
    assert [file.stem for file in CONFIGS] == [
        "paligemma2_3b_224_nf4", "paligemma_3b_224_nf4", "paligemma_3b_224_t4x2", "paligemma_3b_448_8gpu",
        "paligemma_3b_448_nf4", "quickstart",
    ]  # fmt: skip
    assert [file.stem for file in ACCELERATE] == sorted(WHAT_IT_STARTS)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda file: file.stem)
def test_every_config_is_short_and_begins_with_its_command(config: Path) -> None:
    lines = config.read_text().splitlines()
    assert len(lines) <= 50
    assert lines[0].startswith("# accelerate launch --config_file training/accelerate_configs/")
    assert f"--config training/configs/{config.name}" in lines[0]
    launched = next(word for word in lines[0].split() if word.startswith("training/accelerate_configs/"))
    assert (ROOT / launched).is_file()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda file: file.stem)
def test_every_config_trains_for_a_step(
    config: Path, tiny_base: Path, tiny_paligemma2: Path, tiny_dataset: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Through the command, with base, dataset and output overridden: 28 px."""
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


def scores_of(monkeypatch: pytest.MonkeyPatch, *values: float) -> None:
    """What the model is said to score, at one evaluation after another."""
    left = list(values)

    def score(answered: Any) -> dict[str, float]:
        value = left.pop(0)
        return real_score(answered) | {"f1_quantity": value, "f1": value / 2}

    monkeypatch.setattr(trainer, "score", score)


def card_scores(output_dir: Path) -> dict[str, float]:
    results = ModelCard.load(output_dir / "README.md").data.eval_results
    return {result.metric_name: result.metric_value for result in results}


def test_stopped_early_it_keeps_and_scores_the_best_checkpoint(
    tiny_run: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [
        *tiny_run, "--output_dir", tmp_path, "--max_steps", 9, "--max_eval_samples", 4, "--eval_steps", 1,
        "--save_steps", 1, "--early_stopping_patience", 2, "--max_card_samples", 0,
    ]  # fmt: skip
    scores_of(monkeypatch, 0.2, 0.6, 0.5, 0.4)
    call(sft.main, monkeypatch, *arguments)
    assert sorted(folder.name for folder in tmp_path.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    kept, best = (load_file(folder / "adapter_model.safetensors") for folder in (tmp_path, tmp_path / "checkpoint-2"))
    assert all((kept[name] == tensor).all() for name, tensor in best.items())
    # The weights that are kept are the ones scored, without a further evaluation.
    assert card_scores(tmp_path) == {"F1, number and unit": 0.6, "F1, exact string": 0.3}
    # Started again, perhaps to push, it trains no further.
    (tmp_path / "adapter_model.safetensors").unlink()
    call(sft.main, monkeypatch, *arguments)
    again = load_file(tmp_path / "adapter_model.safetensors")
    assert all((again[name] == tensor).all() for name, tensor in best.items())
    assert card_scores(tmp_path) == {"F1, number and unit": 0.6, "F1, exact string": 0.3}
    assert "| steps | 4 of 2 rows" in (tmp_path / "README.md").read_text()


def test_the_best_checkpoint_is_found_where_the_folder_was_moved_to(
    tiny_run: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [
        *tiny_run, "--max_steps", 3, "--max_eval_samples", 4, "--eval_steps", 1, "--save_steps", 1,
        "--load_best_model_at_end", "true", "--max_card_samples", 0, "--save_total_limit", 3,
    ]  # fmt: skip
    scores_of(monkeypatch, 0.6, 0.2, 0.1, 0.1, 0.1)
    call(sft.main, monkeypatch, *arguments, "--output_dir", tmp_path / "first")
    best = (tmp_path / "first" / "checkpoint-1" / "adapter_model.safetensors").read_bytes()
    shutil.copytree(tmp_path / "first", tmp_path / "moved")
    shutil.rmtree(tmp_path / "first")
    shutil.rmtree(tmp_path / "moved" / "checkpoint-3")
    given = tmp_path / "moved" / "checkpoint-2"
    for output_dir, more in ((tmp_path / "other", ["--resume_from_checkpoint", given]), (tmp_path / "moved", [])):
        call(sft.main, monkeypatch, *arguments, "--output_dir", output_dir, *more)
        assert card_scores(output_dir)["F1, number and unit"] == 0.6
        kept, expected = load_file(output_dir / "adapter_model.safetensors"), load(best)
        assert all((kept[name] == tensor).all() for name, tensor in expected.items())


def test_rows_that_chose_the_checkpoint_do_not_score_the_card(
    tiny_run: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores_of(monkeypatch, 0.9, 0.1, 0.7)
    call(
        sft.main, monkeypatch, *tiny_run, "--output_dir", tmp_path, "--max_steps", 2, "--max_eval_samples", 4,
        "--eval_steps", 1, "--save_steps", 1, "--load_best_model_at_end", "true",
    )  # fmt: skip
    assert card_scores(tmp_path) == {"F1, number and unit": 0.7, "F1, exact string": 0.35}
    card = (tmp_path / "README.md").read_text()
    assert "On 4 rows of split `validation`" in card and "not trained on and chose no checkpoint" in card


def test_without_rows_to_score_on_nothing_is_stopped_early(
    tiny_run: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(
        sft.main, monkeypatch, *tiny_run, "--output_dir", tmp_path, "--max_steps", 1, "--max_eval_samples", 0,
        "--early_stopping_patience", 2,
    )  # fmt: skip
    assert "Not scored" in (tmp_path / "README.md").read_text()


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
    weights = load_file(tmp_path / "adapter_model.safetensors")
    assert any("magnitude" in key for key in weights) == (switch == "use_dora")


@pytest.mark.parametrize("config", ACCELERATE, ids=lambda file: file.stem)
def test_every_accelerate_config_loads_and_says_what_it_starts(config: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    assert config.read_text().startswith("# ")
    loaded = load_config_from_file(str(config))
    found = (loaded.distributed_type.value, loaded.use_cpu, loaded.num_processes)
    assert found == WHAT_IT_STARTS[config.stem]


@pytest.mark.parametrize(("flags", "visible"), [([], "0"), (["--gpu_ids", "1"], "1"), (["--gpu_ids", "all"], "5,6")])
def test_the_config_for_one_gpu_shows_one_to_the_process(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], visible: str
) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_simple_launcher_cmd_env

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    arguments = ["--config_file", str(ROOT / "training/accelerate_configs/gpu.yaml"), *flags, "-m", "training.sft"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(arguments))
    assert prepare_simple_launcher_cmd_env(arguments)[1]["CUDA_VISIBLE_DEVICES"] == visible


def test_one_process_that_sees_several_gpus_is_refused_with_the_remedies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingOptions, "n_gpu", 8)
    remedies = r"gpu_multi.yaml --num_processes 8 .* CUDA_VISIBLE_DEVICES=0"
    with pytest.raises(InputError, match=f"8 GPUs are visible to one process.*{remedies}"):
        TrainingOptions(output_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"packing": True}, "packing: True would change nothing here"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor: 0.1"),
        ({"completion_only_loss": True}, "completion_only_loss"),
        ({"max_length": 512}, "max_length: 512"),
        ({"trust_remote_code": True}, "trust_remote_code"),
        ({"train_sampling_strategy": "group_by_length"}, "train_sampling_strategy"),
        ({"auto_find_batch_size": True}, "auto_find_batch_size: it would change the number of samples per step"),
        ({"average_tokens_across_devices": False}, "average_tokens_across_devices: what is learned would depend on"),
        ({"enable_jit_checkpoint": True}, "enable_jit_checkpoint: a SIGTERM saves a checkpoint as it is"),
        ({"ignore_data_skip": True}, "ignore_data_skip: a resumed run would train on samples again"),
        ({"save_only_model": True}, "save_only_model: a checkpoint without optimizer state cannot be resumed"),
        ({"save_on_each_node": True}, "save_on_each_node: --output_dir must be a folder that all machines see"),
        ({"accelerator_config": {"split_batches": True}}, "accelerator_config: split_batches would change which"),
        ({"accelerator_config": {"even_batches": False}}, "accelerator_config: even_batches would change which"),
        ({"max_steps": 0}, "max_steps 0: not a single step would be made"),
        ({"num_train_epochs": 0}, "num_train_epochs 0: not a single step would be made"),
        ({"num_train_epochs": -1.5}, "num_train_epochs -1.5: not a single step"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size must be at least 1, got 0"),
        ({"per_device_eval_batch_size": 0}, "per_device_eval_batch_size must be at least 1"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps must be at least 1"),
        ({"dataloader_num_workers": -1}, "dataloader_num_workers must be at least 0"),
        ({"dataloader_prefetch_factor": 2}, "dataloader_prefetch_factor"),  # transformers' own check
        ({"report_to": "wandb"}, r"report_to wandb: it is not installed \(pip install wandb\)"),
        ({"report_to": "wand"}, "report_to wand: no such tracker; known are .*tensorboard"),
        ({"early_stopping_patience": 2}, "early_stopping_patience: nothing is evaluated"),
        ({"early_stopping_patience": 0}, "early_stopping_patience must be at least 1"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(tmp_path: Path, setting: dict, message: str) -> None:
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
        ({"max_train_samples": 0}, "max_train_samples must be at least 1, got 0"),
        ({"max_eval_samples": -1}, "max_eval_samples must be at least 0, got -1"),
    ],
)
def test_a_dataset_setting_that_cannot_work_is_refused(setting: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DatasetOptions(dataset_name="user/data", **setting)


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
