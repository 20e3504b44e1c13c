"""Which checkpoint a run resumes from."""

import hashlib
import json
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate import PartialState
from datasets import Dataset

from product_vqa.errors import InputError
from product_vqa.hub import Location
from product_vqa.task.features import FEATURES
from product_vqa.task.schema import CHALLENGE
from tests.commands import call
from tests.tiny import make_rows, save_tiny_base
from tests.training.runs import check_equal_adapters
from training import sft
from training.checkpoints import (
    PROCESSOR_BYTES,
    check_folder,
    check_same_run,
    find_checkpoint,
    find_damage,
    newest_step,
    plan_checkpoints,
    read_state,
    remove_checkpoint,
    save_manifest,
)
from training.limits import MAX_SAMPLES_PER_STEP
from training.loading import Sources
from training.memory import MemoryEstimate
from training.options import TrainingOptions
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
    assert (output_dir / "checkpoint-12").exists(), "it is not a checkpoint"
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


def test_the_newest_step_is_that_of_a_checkpoint_that_can_be_resumed_from(tmp_path: Path) -> None:
    assert newest_step(tmp_path) == 0
    write_checkpoint(tmp_path, 5)
    write_checkpoint(tmp_path, 15, complete=False)
    only_adapter = write_checkpoint(tmp_path, 10)
    assert newest_step(tmp_path) == 10
    (only_adapter / "trainer_state.json").unlink()
    save_manifest(only_adapter, run={})
    assert newest_step(tmp_path) == newest_step(tmp_path, keeps_best=True) == 5
    assert (tmp_path / "checkpoint-15").exists(), "nothing is removed"
    with pytest.raises(InputError, match="checkpoint-10 holds an adapter only; choose another checkpoint"):
        find(tmp_path, given=str(only_adapter))


def test_the_disk_plan_has_the_states_on_their_way_to_the_hub(tmp_path: Path) -> None:
    memory = MemoryEstimate(weights=0, adapter=20_000_000, optimizer=20_000_000, activations=0, samples=1)
    options: dict[str, Any] = {"output_dir": str(tmp_path), "bf16": False, "report_to": "none", "save_total_limit": 1}
    for more, what, number in (
        ({}, "2 checkpoints", 2),
        ({"push_to_hub": True, "hub_strategy": "checkpoint"}, "2 checkpoints, and 2 on their way to the Hub", 5),
    ):
        (need,) = plan_checkpoints(tmp_path, TrainingOptions(**options, **more), memory).needs
        assert (need.what, need.num_bytes) == (what, number * (30_000_000 + PROCESSOR_BYTES))


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


HASH = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"  # of 1
ONE_FILE = {"a.txt": {"size": 1, "sha256": HASH}}
RUN = {"config": {"samples_per_step": 4}, "processes": 1, "sharding": "no sharding"}


@pytest.mark.parametrize(
    ("run", "files", "is_manifest"),
    [
        ({}, ONE_FILE, True),
        (RUN, ONE_FILE, True),
        (RUN | {"config": {}}, ONE_FILE, True),
        ([], ONE_FILE, False),
        ({}, [], False),
        (RUN | {"processes": "1"}, ONE_FILE, False),
        (RUN | {"sharding": 1}, ONE_FILE, False),
        (RUN | {"config": []}, ONE_FILE, False),
        (RUN | {"config": {"samples_per_step": 0}}, ONE_FILE, False),
        ({"config": {}}, ONE_FILE, False),
        ({}, {"a.txt": [1, HASH]}, False),
        ({}, {"a.txt": {"size": "1", "sha256": HASH}}, False),
        ({}, {"a.txt": {"size": 1, "sha256": 1}}, False),
        ({}, {"a.txt": {"size": 1}}, False),
        ({}, {"../a.txt": {"size": 1, "sha256": HASH}}, False),
        ({}, {"sub/../../a.txt": {"size": 1, "sha256": HASH}}, False),
        ({}, {"FOLDER/a.txt": {"size": 1, "sha256": HASH}}, False),
    ],
)
def test_a_manifest_that_no_run_writes_is_refused_and_no_file_elsewhere_is_read(
    tmp_path: Path, run: Any, files: Any, is_manifest: bool
) -> None:
    """Its own hash is right: it was made on purpose."""
    folder = tmp_path / "checkpoint-5"
    (folder / "sub").mkdir(parents=True)
    for file in (tmp_path / "a.txt", folder / "a.txt"):
        file.write_text("1")
    content = json.loads(json.dumps({"files": files, "run": run}).replace("FOLDER", str(folder)))
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(content | {"sha256": digest}))
    damage = f"{folder}/manifest.json has changed since it was written"
    assert find_damage(folder) == (None if is_manifest else damage)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "No such file or directory"),
        ("", "Expecting value: line 1 column 1 (char 0)"),
        ("[" * 100_000, "maximum recursion depth exceeded while decoding a JSON array from a unicode string"),
        ('{"global_step": "5"}', "global_step is not a number, or log_history not a list"),
        ('{"global_step": 5, "log_history": {}}', "global_step is not a number, or log_history not a list"),
        ('{"global_step": 5, "log_history": [{}, 1]}', "log_history holds an entry that is not an object"),
    ],
)
def test_a_state_that_no_trainer_writes_is_refused(tmp_path: Path, text: str | None, reason: str) -> None:
    if text is not None:
        (tmp_path / "trainer_state.json").write_text(text)
    with pytest.raises(InputError) as refused:
        read_state(tmp_path)
    assert str(refused.value) == f"{tmp_path}/trainer_state.json: {reason}; choose another checkpoint"


def test_a_state_may_have_half_a_gigabyte(tmp_path: Path) -> None:
    state = {"global_step": 5, "log_history": [{"step": 1, "grad_norm": float("nan")}, {"x": "x" * 1_100_000}]}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    assert read_state(tmp_path).log_history[0]["step"] == 1
    os.truncate(tmp_path / "trainer_state.json", 536_870_913)
    with pytest.raises(InputError, match="json: 536870913 bytes, more than 536870912; choose another checkpoint"):
        read_state(tmp_path)


def test_a_manifest_names_every_file_with_its_size_and_hash_and_has_a_hash_of_its_own(tmp_path: Path) -> None:
    """Hashes: `printf 1 | sha256sum`, and `printf '{"files": ..., "run": ...}' | sha256sum` with sorted keys."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b").write_text("22")
    (tmp_path / "a.txt").write_text("1")
    (tmp_path / "manifest.json").write_text("an earlier one")
    run = {"config": {"samples_per_step": 4}, "processes": 1, "sharding": "none"}
    save_manifest(tmp_path, run=run)
    one = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
    two = "785f3ec7eb32f30b90cd0fcf3657d388b5ff4297f2f9716ff66e9b69c05ddd09"
    content = {
        "sha256": "351fef0e04fe5bdf0e913f78cbb6d8c45732eab964542b082ae786e576be79f1",
        "run": run,
        "files": {"a.txt": {"size": 1, "sha256": one}, "sub/b": {"size": 2, "sha256": two}},
    }
    assert (tmp_path / "manifest.json").read_text() == json.dumps(content, indent=1) + "\n"
    assert find_damage(tmp_path) is None
    (tmp_path / "sub" / "b").write_text("23")
    assert find_damage(tmp_path) == f"{tmp_path}/sub/b has changed since it was written (its sha256 differs)"
    (tmp_path / "sub" / "b").write_text("2")
    assert find_damage(tmp_path) == f"{tmp_path}/sub/b has 1 bytes instead of 2"
    (tmp_path / "sub" / "b").unlink()
    assert find_damage(tmp_path) == f"{tmp_path}/sub/b is missing"
    (tmp_path / "manifest.json").unlink()
    assert find_damage(tmp_path) == f"{tmp_path}/manifest.json is missing"
    (tmp_path / "manifest.json").mkdir()
    assert find_damage(tmp_path) == f"{tmp_path}/manifest.json has changed since it was written"


def test_what_is_removed_is_named_with_its_cause(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_checkpoint(tmp_path, 5)
    (write_checkpoint(tmp_path, 10) / "trainer_state.json").unlink()
    write_checkpoint(tmp_path, 15, complete=False)
    assert find(tmp_path) == str(tmp_path / "checkpoint-5")
    logged = [name for name, level, _ in caplog.record_tuples if level == logging.WARNING]
    assert logged == ["training.checkpoints", "training.checkpoints"]
    assert caplog.messages == [
        f"{tmp_path}/checkpoint-15/manifest.json is missing (the run was killed while it wrote checkpoint-15): "
        "checkpoint removed, resuming from checkpoint-5",
        f"{tmp_path}/checkpoint-10/trainer_state.json is missing: checkpoint removed, resuming from checkpoint-5",
    ]
    caplog.clear()
    shutil.rmtree(tmp_path / "checkpoint-5")
    write_checkpoint(tmp_path, 20, complete=False)
    assert find(tmp_path) is None
    assert caplog.messages == [
        f"{tmp_path}/checkpoint-20/manifest.json is missing (the run was killed while it wrote checkpoint-20): "
        "checkpoint removed, no checkpoint was ever complete: starting from the beginning",
    ]


def test_errors_name_the_checkpoint_and_the_remedy(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 5)
    messages = []
    for action in (
        lambda: find(tmp_path, given=str(tmp_path / "none")),
        lambda: find(tmp_path, given=str(write_checkpoint(tmp_path / "early", 4, complete=False))),
        lambda: (folder / "trainer_state.json").unlink() or find(tmp_path, given=str(folder)),
        lambda: find(tmp_path),
        lambda: (tmp_path / "sft_config.yaml").write_text("") or check_same_run(tmp_path, {}, processes=1),
    ):
        with pytest.raises(InputError) as raised:
            action()
        messages.append(str(raised.value).replace(str(tmp_path), "."))
    assert messages == [
        "`resume_from_checkpoint` ./none: no such folder. Without this option the run resumes from the last complete "
        "checkpoint in `output_dir`",
        "`resume_from_checkpoint` ./early/checkpoint-4: a file that resuming needs is missing or damaged; choose "
        "another checkpoint",
        "`resume_from_checkpoint` ./checkpoint-5: ./checkpoint-5/trainer_state.json is missing; choose another "
        "checkpoint",
        "`output_dir` .: no complete checkpoint is left (./checkpoint-5/trainer_state.json is missing). Restore the "
        "file, or delete the folder's checkpoints to start over",
        "./sft_config.yaml cannot be read: choose another `output_dir`, or delete this one to start over",
    ]


def test_a_given_checkpoint_needs_the_best_one_only_where_that_is_kept(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 5, complete=False)
    last = write_checkpoint(tmp_path, 10)
    (last / "trainer_state.json").write_text(json.dumps({"global_step": 10, "best_global_step": 5}))
    save_manifest(last, run={})
    assert find(tmp_path, given=str(last)) == str(last)
    with pytest.raises(InputError, match=r"checkpoint-10: .*/checkpoint-5/manifest.json is missing; choose another"):
        find(tmp_path, given=str(last), keeps_best=True)
    (last / "trainer_state.json").write_text(json.dumps({"global_step": 10, "best_global_step": 10}))
    save_manifest(last, run={})
    assert find(tmp_path, given=str(last), keeps_best=True) == str(last)


def describe(**changes: Any) -> dict[str, Any]:
    return {"config": {"lora_r": 8, "samples_per_step": 4}, "sharding": "no sharding", "processes": 2} | changes


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        (describe(), describe(), None),
        ({}, describe(), None),  # an earlier version recorded nothing
        (describe(), describe(processes=4), None),
        (describe(sharding="DeepSpeed"), describe(sharding="DeepSpeed"), None),
        (
            describe(), describe(config={"lora_r": 16, "samples_per_step": 4}),
            "{} holds a run with another configuration (lora_r: 8 -> 16): choose another folder, or delete this one",
        ),
        (
            describe(), describe(config={"lora_r": 8, "samples_per_step": 6}, processes=3),
            "{} holds a run with another configuration (samples_per_step: 4 -> 6): 4 samples per step need 1, 2 or 4 "
            "processes, or choose another folder, or delete this one",
        ),
        (
            describe(sharding="FSDP"), describe(),
            "{} was saved under FSDP, but this launch uses no sharding: use the same file of "
            "training/accelerate_configs",
        ),
        (
            describe(sharding="DeepSpeed"), describe(sharding="DeepSpeed", processes=4),
            "{} holds DeepSpeed shards for 2 processes: launch with the same number of processes",
        ),
    ],
)  # fmt: skip
def test_a_checkpoint_is_resumed_only_by_the_same_run_under_the_same_sharding(
    tmp_path: Path, before: dict[str, Any], now: dict[str, Any], message: str | None
) -> None:
    folder = write_checkpoint(tmp_path, 5)
    save_manifest(folder, run=before)
    for given in (None, str(folder)):
        if message is None:
            assert find_checkpoint(tmp_path, PartialState(cpu=True), run=now, given=given) == str(folder)
        else:
            with pytest.raises(InputError, match=f"^{re.escape(message.format(folder))}$"):
                find_checkpoint(tmp_path, PartialState(cpu=True), run=now, given=given)


# ---- Checkpoints of earlier versions -------------------------------------------------------------------------------


def write_early_checkpoint(output_dir: Path, step: int, *, processes: int = 1) -> Path:
    """A checkpoint of a version that wrote no manifest, in a run whose configuration has no `samples_per_step`."""
    folder = write_checkpoint(output_dir, step, complete=False)
    (output_dir / "sft_config.yaml").write_text("per_device_train_batch_size: 2\ngradient_accumulation_steps: 3\n")
    (folder / "adapter_model.safetensors").write_bytes(bytes([2, 0, 0, 0, 0, 0, 0, 0]) + b"{}")
    names = ["rng_state.pth"] if processes == 1 else [f"rng_state_{number}.pth" for number in range(processes)]
    for name in ["optimizer.pt", "scheduler.pt", *names]:
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("data.pkl", "1234")
    return folder


def shard(folder: Path, name: str) -> None:
    """Replace the optimizer's file by a folder, as DeepSpeed and FSDP save it."""
    (folder / "optimizer.pt").rename(folder / "state.pt")
    (folder / name).mkdir()
    (folder / "state.pt").rename(folder / name / "state.pt")


EARLY_DAMAGES: dict[str, Callable[[Path], Any]] = {
    "no optimizer": lambda folder: (folder / "optimizer.pt").unlink(),
    "no scheduler": lambda folder: (folder / "scheduler.pt").unlink(),
    "no random state": lambda folder: (folder / "rng_state.pth").unlink(),
    "no adapter": lambda folder: (folder / "adapter_model.safetensors").unlink(),
    "no state": lambda folder: (folder / "trainer_state.json").unlink(),
    "a state that is not JSON": lambda folder: (folder / "trainer_state.json").write_text("{"),
    "another step": lambda folder: (folder / "trainer_state.json").write_text('{"global_step": 3}'),
    "half an adapter": lambda folder: truncate(folder / "adapter_model.safetensors"),
    "half an optimizer": lambda folder: truncate(folder / "optimizer.pt"),
    "half a random state": lambda folder: truncate(folder / "rng_state.pth"),
    "half a shard": lambda folder: (shard(folder, "optimizer_0"), truncate(folder / "optimizer_0" / "state.pt")),
    "a garbled scheduler": lambda folder: (folder / "scheduler.pt").write_bytes(
        (folder / "scheduler.pt").read_bytes().replace(b"1234", b"1235")
    ),
    "a garbled .bin": lambda folder: (folder / "training_args.bin").write_text("no archive"),
}


@pytest.mark.parametrize("damage", EARLY_DAMAGES)
def test_a_damaged_checkpoint_of_an_earlier_version_is_removed(tmp_path: Path, damage: str) -> None:
    first, last = write_early_checkpoint(tmp_path, 2), write_early_checkpoint(tmp_path, 4)
    EARLY_DAMAGES[damage](last)
    assert find(tmp_path) == str(first)
    assert find_damage(first) is None, "it has a manifest now"
    assert json.loads((first / "manifest.json").read_text())["run"] == {}
    assert not last.exists()


@pytest.mark.parametrize("sharding", [None, "optimizer_0", "global_step4"])
def test_a_complete_checkpoint_of_an_earlier_version_is_resumed(tmp_path: Path, sharding: str | None) -> None:
    write_early_checkpoint(tmp_path / "run-of-june", 2)
    last = write_early_checkpoint(tmp_path / "run-of-june", 4)
    (last / "README.md").write_text("not an archive")
    if sharding:
        shard(last, sharding)
    if sharding == "global_step4":
        (last / "scheduler.pt").unlink()  # DeepSpeed keeps it in its own files
    assert find(tmp_path, given=str(last)) == str(last)
    assert not (last / "manifest.json").exists()
    assert find(tmp_path / "run-of-june") == str(last)
    assert read_state(last).global_step == 4


def test_a_run_that_writes_manifests_gets_none_afterwards(tmp_path: Path) -> None:
    first, last = write_early_checkpoint(tmp_path, 2), write_early_checkpoint(tmp_path, 4)
    (tmp_path / "sft_config.yaml").write_text("samples_per_step: 8\n")
    save_manifest(first, run={})
    with pytest.raises(InputError, match=r"checkpoint-4/manifest.json is missing; choose"):
        find(tmp_path, given=str(last))
    assert find(tmp_path) == str(first)


def test_a_checkpoint_of_an_earlier_version_gets_a_manifest_only_once(tmp_path: Path) -> None:
    first, last = write_early_checkpoint(tmp_path, 2), write_early_checkpoint(tmp_path, 4)
    assert find(tmp_path) == str(last)
    (last / "README.md").write_text("added later, so not in the manifest")
    with zipfile.ZipFile(last / "scheduler.pt", "w") as archive:
        archive.writestr("data.pkl", "another one")
    assert find(tmp_path) == str(first)


def test_a_checkpoint_without_a_manifest_is_none_where_no_configuration_says_who_wrote_it(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 2)
    last = write_early_checkpoint(tmp_path, 4)
    (tmp_path / "sft_config.yaml").unlink()
    assert find(tmp_path) == str(tmp_path / "checkpoint-2")
    assert not last.exists()


def test_a_given_checkpoint_of_an_earlier_version_may_have_another_name_that_ends_in_its_step(tmp_path: Path) -> None:
    folder = write_early_checkpoint(tmp_path, 2).rename(tmp_path / "best-checkpoint-2")
    assert find(tmp_path, given=str(folder)) == str(folder)


def test_the_samples_per_step_of_an_earlier_version_are_those_of_its_last_checkpoint(tmp_path: Path) -> None:
    config = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3, "samples_per_step": 12}
    recorded = {"dataset_sha256": "0123", "base_sha256": "4567"}
    write_early_checkpoint(tmp_path, 2, processes=5)
    check_same_run(tmp_path, config | {"samples_per_step": 30} | recorded, processes=5)
    write_early_checkpoint(tmp_path, 4, processes=2)
    write_early_checkpoint(tmp_path, 6, processes=0)  # killed before it wrote any
    check_same_run(tmp_path, config, processes=2)
    check_same_run(tmp_path, config | recorded, processes=2)
    with pytest.raises(
        InputError, match=rf"^`output_dir` {tmp_path} .*samples_per_step: 12 -> 8.* on 3 processes with"
    ):
        check_same_run(tmp_path, config | {"samples_per_step": 8}, processes=3)
    for step in (2, 4, 6):
        shutil.rmtree(tmp_path / f"checkpoint-{step}")
    check_same_run(tmp_path, config | {"samples_per_step": 8}, processes=3)  # nothing shows how many processes it had
    write_early_checkpoint(tmp_path, 2)
    (tmp_path / "sft_config.yaml").write_text("gradient_accumulation_steps: 3\n")  # and batches of eight, by default
    check_same_run(tmp_path, {"gradient_accumulation_steps": 3, "samples_per_step": 24}, processes=1)


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
    for text in (
        "", "- 1", "a: [", "\0", "samples_per_step: 0", "samples_per_step: null", "samples_per_step: 2.5",
        "samples_per_step: '8'", "samples_per_step: 1048577",
    ):  # fmt: skip
        (tmp_path / "sft_config.yaml").write_text(text)
        with pytest.raises(InputError, match=r"sft_config.yaml cannot be read"):
            check_same_run(tmp_path, {"samples_per_step": 8}, processes=1)


def test_a_step_has_one_to_a_million_samples(tmp_path: Path) -> None:
    for samples in (1, MAX_SAMPLES_PER_STEP):
        config = {"samples_per_step": samples}
        save_config(tmp_path, config)
        check_same_run(tmp_path, config, processes=1)
        with pytest.raises(InputError, match=f"samples_per_step: {samples} -> 3"):
            check_same_run(tmp_path, {"samples_per_step": 3}, processes=1)


def test_the_folders_of_the_base_model_of_the_dataset_and_of_other_models_are_refused(tmp_path: Path) -> None:
    for name in ("base", "data", "empty", "model", "adapter", "other", "run", "resumed"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("base")
    for file in ("model/config.json", "adapter/adapter_config.json", "run/config.json", "run/adapter_config.json"):
        (tmp_path / file).write_text("{}")
    (tmp_path / "run" / "sft_config.yaml").write_text("")
    write_checkpoint(tmp_path / "other", 500, complete=False)  # of a program that is not ours
    write_checkpoint(tmp_path / "resumed", 5)  # its sft_config.yaml was deleted
    write_checkpoint(tmp_path / "resumed", 10, complete=False)
    (tmp_path / "resumed" / "adapter_config.json").write_text("{}")

    local, remote = Location(str(tmp_path / "base")), Location("user/name", "0123")
    foreign = "that no run here has written: choose another"
    for base_model, dataset, folder, message in (
        (local, remote, "base", "is the folder of the base model: choose another"),
        (local, remote, "link", "is the folder of the base model: choose another"),
        (remote, Location(str(tmp_path / "data")), "data", "is the folder of the dataset: choose another"),
        (remote, remote, "model", f"holds a model (config.json) {foreign}"),
        (
            remote,
            remote,
            "adapter",
            "holds a model (adapter_config.json) that no run here has written: choose another",
        ),
        (remote, remote, "other", f"holds a model (checkpoint-500) {foreign}"),
    ):
        sources = Sources(base_model, dataset, base_model, dataset, base_license=None, schema=CHALLENGE)
        with pytest.raises(InputError) as refused:
            check_folder(tmp_path / folder, sources)
        assert str(refused.value) == f"`output_dir` {tmp_path / folder} {message}"
        for allowed in ("empty", "run", "resumed", "none"):
            check_folder(tmp_path / allowed, sources)


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
