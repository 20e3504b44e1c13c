"""Which checkpoint a run resumes from."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate import PartialState
from datasets import Dataset

from product_vqa.errors import InputError
from product_vqa.task.features import FEATURES
from tests.commands import call
from tests.tiny import make_rows, save_tiny_base
from tests.training.runs import check_equal_adapters
from training import sft
from training.checkpoints import check_same_run, find_checkpoint, find_damage, remove_checkpoint, save_manifest
from training.run_config import save_config

pytestmark = pytest.mark.slow


def write_checkpoint(output_dir: Path, step: int, *, complete: bool = True) -> Path:
    folder = output_dir / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(bytes(100))
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "best_global_step": None}))
    if complete:
        save_manifest(folder, run={})
    return folder


def find(output_dir: Path, **options: Any) -> str | None:
    return find_checkpoint(output_dir, PartialState(cpu=True), run={}, **options)


# ---- Which checkpoint ----------------------------------------------------------------------------------------------


def test_the_newest_complete_checkpoint_is_taken_and_newer_ones_are_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_checkpoint(tmp_path, 5)
    write_checkpoint(tmp_path, 10)
    (write_checkpoint(tmp_path, 15) / "adapter_model.safetensors").write_bytes(bytes(50))
    write_checkpoint(tmp_path, 100, complete=False)
    assert find(tmp_path) == str(tmp_path / "checkpoint-10")
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-5"]
    assert "checkpoint-15/adapter_model.safetensors has 50 bytes instead of 100: checkpoint removed" in caplog.text
    assert (
        "manifest.json is missing (the run was killed while it wrote checkpoint-100): checkpoint removed"
        in caplog.text
    )


def test_a_symlink_to_a_damaged_checkpoint_is_removed_and_its_target_stays(tmp_path: Path) -> None:
    output_dir, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    complete = write_checkpoint(output_dir, 4)
    write_checkpoint(elsewhere, 8, complete=False)
    (output_dir / "checkpoint-8").symlink_to(elsewhere / "checkpoint-8")
    (output_dir / "checkpoint-12").write_text("a file")
    assert find(output_dir) == str(complete)
    assert not (output_dir / "checkpoint-8").exists() and list((elsewhere / "checkpoint-8").iterdir())
    remove_checkpoint(output_dir / "checkpoint-12")
    assert [file.name for file in output_dir.iterdir()] == ["checkpoint-4"]


def test_where_no_checkpoint_was_ever_complete_a_run_starts_from_the_beginning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "checkpoint-final").mkdir()
    assert find(tmp_path) is None
    write_checkpoint(tmp_path, 5, complete=False)
    assert find(tmp_path) is None
    assert "no checkpoint was ever complete: starting from the beginning" in caplog.text
    assert [folder.name for folder in tmp_path.iterdir()] == ["checkpoint-final"]


def test_where_no_complete_checkpoint_is_left_nothing_is_removed_and_the_file_is_named(tmp_path: Path) -> None:
    (write_checkpoint(tmp_path, 5) / "trainer_state.json").unlink()
    with pytest.raises(
        InputError, match=r"no complete checkpoint is left \(.*checkpoint-5/trainer_state.json is missing"
    ):
        find(tmp_path)
    assert (tmp_path / "checkpoint-5" / "adapter_model.safetensors").exists()


def test_the_best_checkpoint_must_be_complete_too_where_it_is_kept(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 5)
    best = write_checkpoint(tmp_path, 10)
    last = write_checkpoint(tmp_path, 15)
    (last / "trainer_state.json").write_text(json.dumps({"global_step": 15, "best_global_step": 10}))
    save_manifest(last, run={})
    assert find(tmp_path, keeps_best=True) == str(last)
    (best / "adapter_model.safetensors").write_bytes(b"\1" + bytes(99))
    assert find(tmp_path) == str(last)
    assert find(tmp_path, keeps_best=True) == str(tmp_path / "checkpoint-5")


def test_a_given_checkpoint_is_checked_as_well(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 5)
    assert find(tmp_path / "run", given=str(folder)) == str(folder)
    with pytest.raises(InputError, match=r"`resume_from_checkpoint` .*/none: no such folder"):
        find(tmp_path, given=str(tmp_path / "none"))
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"`resume_from_checkpoint` .*: .*adapter_model.safetensors is missing"):
        find(tmp_path, given=str(folder))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"files": {}}', '{"sha256": "x", "run": {}, "files": {}}'])
def test_a_garbled_manifest_is_named(tmp_path: Path, text: str) -> None:
    folder = write_checkpoint(tmp_path, 5)
    (folder / "manifest.json").write_text(text)
    assert find_damage(folder) == f"{folder}/manifest.json has changed since it was written"


# ---- Checkpoints of earlier versions -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tiny_run: list[str | Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str | Path]]:
    """A run of six steps with checkpoints at 2, 4 and 6, and its arguments without the folder."""
    output_dir = tmp_path_factory.mktemp("finished") / "run"
    arguments = [
        *tiny_run, "--max_steps", "6", "--save_steps", "2", "--logging_steps", "1", "--lora_r", "4", "--eval_strategy",
        "no", "--max_eval_samples", "0", "--save_total_limit", "3", "--gradient_accumulation_steps", "2",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as monkeypatch:
        call(sft.main, monkeypatch, *arguments, "--output_dir", output_dir)
    return output_dir, arguments


@pytest.fixture
def stopped(finished: tuple[Path, list[str | Path]], tmp_path: Path) -> tuple[Path, list[str | Path]]:
    """The same run as it was after step 4."""
    output_dir = shutil.copytree(finished[0], tmp_path / "run")
    shutil.rmtree(output_dir / "checkpoint-6")
    (output_dir / "adapter_model.safetensors").unlink()
    return output_dir, [*finished[1], "--output_dir", output_dir]


def garble(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGES: dict[str, Callable[[Path], None]] = {"removed": Path.unlink, "truncated": truncate, "garbled": garble}


@pytest.mark.parametrize("damage", DAMAGES)
def test_however_a_file_of_the_last_checkpoint_is_damaged_the_one_before_is_taken(
    finished: tuple[Path, list[str | Path]], tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    files = sorted(file.name for file in (finished[0] / "checkpoint-4").iterdir())
    assert {"adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} < {
        *files
    }
    for name in files:
        output_dir = tmp_path / name
        for step in (2, 4):
            shutil.copytree(finished[0] / f"checkpoint-{step}", output_dir / f"checkpoint-{step}")
        DAMAGES[damage](output_dir / "checkpoint-4" / name)
        caplog.clear()
        assert find_checkpoint(output_dir, PartialState(cpu=True), run=run_of(finished[0])) == str(
            output_dir / "checkpoint-2"
        )
        assert f"checkpoint-4/{name} " in caplog.text
        assert not (output_dir / "checkpoint-4").exists()


def run_of(output_dir: Path) -> dict[str, Any]:
    return json.loads((output_dir / "checkpoint-4" / "manifest.json").read_text())["run"]


@pytest.mark.faults
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("steps", [(4,), (2, 4)], ids=["only", "last"])
def test_with_any_file_damaged_a_run_ends_in_the_right_adapter_or_names_the_file(
    finished: tuple[Path, list[str | Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str,
    steps: tuple[int, ...],
) -> None:  # fmt: skip
    for name in sorted(file.name for file in (finished[0] / "checkpoint-4").iterdir()):
        output_dir = tmp_path / name
        for step in steps:
            shutil.copytree(finished[0] / f"checkpoint-{step}", output_dir / f"checkpoint-{step}")
        shutil.copy(finished[0] / "sft_config.yaml", output_dir)
        DAMAGES[damage](output_dir / "checkpoint-4" / name)
        error = None
        try:
            call(sft.main, monkeypatch, *finished[1], "--output_dir", output_dir)
        except InputError as raised:
            error = str(raised)
        if error is None:
            check_equal_adapters(output_dir, finished[0])
        else:
            assert steps == (4,) and f"checkpoint-4/{name}" in error


def test_a_resumed_run_ends_in_the_same_adapter_with_accumulation(
    finished: tuple[Path, list[str | Path]], stopped: tuple[Path, list[str | Path]], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    truncate(stopped[0] / "checkpoint-4" / "adapter_model.safetensors")
    call(sft.main, monkeypatch, *stopped[1])
    assert "resuming at step 2/6" in capsys.readouterr().out
    check_equal_adapters(stopped[0], finished[0])
    assert "| steps | 6 with 4 samples each" in (stopped[0] / "README.md").read_text()


def test_checkpoints_of_an_earlier_version_are_judged_by_what_resuming_needs(
    finished: tuple[Path, list[str | Path]], stopped: tuple[Path, list[str | Path]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    output_dir, arguments = stopped
    for step in (2, 4):
        (output_dir / f"checkpoint-{step}" / "manifest.json").unlink()
    config = yaml.safe_load((output_dir / "sft_config.yaml").read_text())
    for key in ("samples_per_step", "dataset_sha256", "base_sha256"):
        del config[key]
    save_config(output_dir, config)
    with pytest.raises(InputError, match=r"samples_per_step: 4 -> 8"):  # it was one process
        call(sft.main, monkeypatch, *arguments, "--gradient_accumulation_steps", 4)
    given = str(output_dir / "checkpoint-4")
    assert find(tmp_path, given=given) == given
    (output_dir / "checkpoint-4" / "optimizer.pt").unlink()
    with pytest.raises(InputError, match=r"checkpoint-4: a file that resuming needs is missing or damaged"):
        find(tmp_path, given=given)
    call(sft.main, monkeypatch, *arguments)
    assert "resuming at step 2/6" in capsys.readouterr().out
    check_equal_adapters(output_dir, finished[0])


# ---- The same run --------------------------------------------------------------------------------------------------


def test_an_unreadable_configuration_is_named(tmp_path: Path) -> None:
    for text in ("", "- 1", "a: [", "\0"):
        (tmp_path / "sft_config.yaml").write_text(text)
        with pytest.raises(InputError, match=r"sft_config.yaml cannot be read"):
            check_same_run(tmp_path, {"samples_per_step": 8}, processes=1)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("dataset", r"holds a run with another configuration \(dataset_sha256: "),
        ("base", r"holds a run with another configuration \(base_sha256: "),
        ("config", r"checkpoint-4 holds a run with another configuration .*lora_r: 4 -> 5"),
        ("sharding", r"saved under DeepSpeed, but this launch uses no sharding"),
    ],
)
def test_a_checkpoint_of_other_data_another_base_or_another_launch_is_refused(
    stopped: tuple[Path, list[str | Path]], tiny_base: Path, tiny_dataset: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, what: str, message: str,
) -> None:  # fmt: skip
    output_dir, arguments = stopped
    if what == "dataset":  # of the same name, built again
        changed = shutil.copytree(tiny_dataset, tmp_path / tiny_dataset.name)
        rows = [row | {"entity_value": "7.0 gram"} for row in make_rows(32)]
        Dataset.from_list(rows, features=FEATURES).to_parquet(changed / "data" / "train-00000-of-00001.parquet")
        arguments = [*arguments, "--dataset_name", changed]
    elif what == "base":
        arguments = [*arguments, "--model_name_or_path", save_tiny_base(tmp_path / tiny_base.name, seed=1)]
    elif what == "config":
        (output_dir / "sft_config.yaml").unlink()
        arguments = [*arguments, "--lora_r", 5]
    else:
        save_manifest(output_dir / "checkpoint-4", run=run_of(output_dir) | {"sharding": "DeepSpeed"})
    with pytest.raises(InputError, match=message):
        call(sft.main, monkeypatch, *arguments)


def test_a_folder_with_a_run_of_another_configuration_is_refused(tmp_path: Path) -> None:
    config = {"lora_r": 8, "samples_per_step": 8}
    check_same_run(tmp_path, config, processes=1)  # no run yet
    save_config(tmp_path, config)
    check_same_run(tmp_path, config, processes=1)
    with pytest.raises(
        InputError, match=r"`output_dir` .* holds a run with another configuration \(lora_r: 8 -> 16\)"
    ):
        check_same_run(tmp_path, config | {"lora_r": 16}, processes=1)
