import json
from pathlib import Path

import pytest
from accelerate import Accelerator

from product_vqa.command import InputError
from training.checkpoints import check_same_run, last_whole_checkpoint, save_config


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


def write_checkpoint(output_dir: Path, step: int, state: str | None = None) -> None:
    folder = output_dir / f"checkpoint-{step}"
    folder.mkdir()
    (folder / "adapter_model.safetensors").touch()
    if state is not None:
        (folder / "trainer_state.json").write_text(state)


def test_the_newest_whole_checkpoint_is_taken_and_newer_ruins_are_removed(
    tmp_path: Path, accelerator: Accelerator
) -> None:
    write_checkpoint(tmp_path, 5, json.dumps({"global_step": 5}))
    write_checkpoint(tmp_path, 10, json.dumps({"global_step": 10}))
    write_checkpoint(tmp_path, 15, '{"global_st')  # cut off while it was written
    write_checkpoint(tmp_path, 100)  # not even begun
    assert last_whole_checkpoint(tmp_path, accelerator) == str(tmp_path / "checkpoint-10")
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-5"]


def test_without_a_checkpoint_a_run_begins_at_the_beginning(tmp_path: Path, accelerator: Accelerator) -> None:
    (tmp_path / "checkpoint-final").mkdir()
    assert last_whole_checkpoint(tmp_path, accelerator) is None


def test_a_run_of_another_configuration_is_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    config = {"lora_r": 8, "learning_rate": 2e-4, "logging_steps": 5}
    check_same_run(tmp_path, config)  # nothing there yet
    save_config(tmp_path, config)
    check_same_run(tmp_path, config)
    check_same_run(tmp_path, config | {"logging_steps": 1, "save_steps": 7})  # what is learnt stays the same
    with pytest.raises(InputError, match=r"lora_r: 8 -> 16; seed: \(default\) -> 1"):
        check_same_run(tmp_path, config | {"lora_r": 16, "seed": 1})
