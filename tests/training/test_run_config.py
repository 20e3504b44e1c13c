"""What a resumed run may change, and what it may not."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from product_vqa.errors import InputError
from training.options import DatasetOptions, TrainingOptions, with_changes
from training.run_config import FREE_KEYS, check_hub_options, check_same_config

CONFIG = {"lora_r": 8, "learning_rate": 2e-4, "samples_per_step": 8, "dataset_name": "user/data", "max_steps": 100}


def check(before: dict[str, Any], config: dict[str, Any], *, processes: int = 1) -> None:
    check_same_config(before, config, where="the folder", processes=processes)


def test_another_configuration_is_refused_with_the_keys_that_differ() -> None:
    check(CONFIG, CONFIG)
    with pytest.raises(InputError, match=r"lora_r: 8 -> 16; seed: \(default\) -> 1"):
        check(CONFIG, CONFIG | {"lora_r": 16, "seed": 1})


def test_what_a_stranger_wrote_is_one_line_of_limited_length() -> None:
    before = CONFIG | {f"key\n{number}": "\x1b[2J" * 10_000 for number in range(1000)}
    with pytest.raises(InputError, match=r"; and 980 more\): choose another repo") as raised:
        check_same_config(before, CONFIG, where="the repo", processes=1, remedy="choose another repo")
    assert len(str(raised.value)) < 10_000 and str(raised.value).isprintable()
    before = {key: value for key, value in CONFIG.items() if key != "samples_per_step"}
    with pytest.raises(InputError, match=r"samples_per_step: \(default\) -> 8\): choose another folder"):
        check(before, CONFIG)


def test_the_state_of_a_run_is_kept_on_the_hub_only_where_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def options(**settings: Any) -> TrainingOptions:
        return TrainingOptions(output_dir=str(tmp_path), bf16=False, report_to="none", **settings)

    push = {"push_to_hub": True, "hub_strategy": "checkpoint"}
    check_hub_options(options(**push, resume_from_hub=True, hub_take_over=True))
    check_hub_options(options(hub_strategy="checkpoint", resume_from_hub=False))
    for name in ("resume_from_hub", "hub_take_over"):
        for others in ({}, {"push_to_hub": True}, {"hub_strategy": "checkpoint"}):
            with pytest.raises(InputError, match=f"`{name}` needs `push_to_hub` true and `hub_strategy` checkpoint"):
                check_hub_options(options(**{name: True}, **others))
    with pytest.raises(InputError, match="`hub_strategy` checkpoint needs checkpoints; set `save_strategy` steps"):
        check_hub_options(options(**push, save_strategy="no"))
    sharded = options(**push)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(InputError, match=r"under FSDP each process saves a part .*, or set `hub_strategy` every_save"):
        check_hub_options(sharded)
    check_hub_options(with_changes(sharded, hub_strategy="every_save"))
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    with pytest.raises(InputError, match="under DeepSpeed"):
        check_hub_options(with_changes(sharded, deepspeed_plugin=object()))


@pytest.mark.parametrize(
    "changed",
    [
        {"dataset_name": "user/other"},
        {"dataset_revision": "abc"},
        {"model_revision": "abc"},
        {"max_steps": 200},
        {"num_train_epochs": 2},
        {"max_eval_samples": 100},
        {"max_train_samples": 100},
        {"dataloader_drop_last": True},
        {"dataloader_in_order": False},
        {"data_seed": 1},
        {"dtype": "float16"},
        {"bf16": True},
        {"load_in_4bit": True},
        {"eval_steps": 50},
        {"metric_for_best_model": "f1_quantity"},
        {"load_best_model_at_end": True},
        {"lora_dropout": 0.1},
        {"optim": "adamw_8bit"},
        {"torch_compile": True},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_changes_the_result_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"holds a run with another configuration .*{next(iter(changed))}: "):
        check(CONFIG, CONFIG | changed)


@pytest.mark.parametrize(
    "changed",
    [
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
        {"logging_steps": 1, "report_to": ["tensorboard"], "disable_tqdm": True},
        {"save_steps": 7, "save_total_limit": 1},
        {"dataloader_num_workers": 4, "dataloader_prefetch_factor": 1},
        {"gradient_checkpointing": True},
        {"max_eval_samples": 500},  # the default, which an earlier version did not write
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_does_not_change_the_result_may_change(changed: dict[str, Any]) -> None:
    check(CONFIG, CONFIG | changed)


def test_where_the_best_checkpoint_is_kept_the_steps_that_save_may_not_change() -> None:
    config = CONFIG | {"load_best_model_at_end": True, "save_steps": 10}
    with pytest.raises(InputError, match=r"save_steps: 10 -> 20"):
        check(config, config | {"save_steps": 20})


@pytest.mark.parametrize(
    ("processes", "remedy"),
    [
        (1, r"1 process with .*batch_size` 8 `gradient_accumulation_steps` 1 or .*batch_size` 4 .*steps` 2 or"),
        (
            4,
            r"4 processes with .*batch_size` 2 `gradient_accumulation_.*` 1 or .*batch_size` 1 .*steps` 2, or choose",
        ),
        (3, r"8 samples per step need 1, 2, 4 or 8 processes, or choose another folder"),
    ],
)
def test_another_number_of_samples_per_step_is_refused_with_the_ways_to_keep_it(processes: int, remedy: str) -> None:
    with pytest.raises(InputError, match=rf"samples_per_step: 8 -> 6\): .*{remedy}"):
        check(CONFIG, CONFIG | {"samples_per_step": 6}, processes=processes)


def test_every_option_is_compared_unless_it_is_listed_as_free() -> None:
    """A new field of TRL is compared: only what is listed is free, and all of it exists."""
    assert {f.name for kind in (DatasetOptions, TrainingOptions) for f in fields(kind)} >= FREE_KEYS
    assert not [name for name in FREE_KEYS if re.match("hub_|learning|lora|max_[^c]|seed|eval", name)]
