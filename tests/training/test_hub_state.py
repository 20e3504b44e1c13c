"""The state of a run in its repo: what is found, downloaded and replaced, and what is refused."""

import json
import pickle
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import CommitOperationDelete, HfApi, hf_hub_download
from peft import get_peft_model
from safetensors.torch import load_file

from local_hub import LocalHub
from product_vqa.errors import InputError
from product_vqa.hub import Location
from product_vqa.modeling.loading import load_base_model, load_config
from tests.training.states import RUN, SHAPES, export, write_checkpoint
from training import hub_lease
from training.checkpoints import find_damage, read_state, save_manifest
from training.hub_state import STATE_FOLDER, HubState, StateRepo, adapter_shapes, hold_repo
from training.loading import make_lora
from training.options import ModelOptions, TrainingOptions

FILES = {"adapter_model.safetensors", "manifest.json", "session.json", "state.json", "state.safetensors"}


@pytest.fixture
def repo(repo_id: str) -> StateRepo:
    return StateRepo(repo_id, revision=None)


@pytest.fixture(autouse=True)
def lease_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_lease, "STOP_S", 0.3)


def make_options(folder: Path, **changes: Any) -> TrainingOptions:
    settings: dict[str, Any] = {"push_to_hub": True, "hub_strategy": "checkpoint", "bf16": False, "report_to": "none"}
    return TrainingOptions(output_dir=str(folder), **(settings | changes))


def find(repo: StateRepo, output_dir: Path, run: dict[str, Any] = RUN, **changes: Any) -> HubState | None:
    output_dir.mkdir(exist_ok=True)
    options = make_options(output_dir, **changes)
    return repo.find(output_dir, run=run, get_shapes=lambda: SHAPES, options=options)


def push(
    repo: StateRepo,
    folder: Path,
    step: int,
    *,
    best_step: int | None = None,
    change: Callable[[Path], None] | None = None,
) -> None:
    """Push the state of a step; `change` is done to its folder before its manifest is written."""
    checkpoint = write_checkpoint(folder / "run", step, best_step=best_step)
    best = write_checkpoint(folder / "run", best_step) if best_step else None
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text(f'{{"step": {step}}}')
    names = export(checkpoint, folder / "adapter" / STATE_FOLDER, best=best)
    if change is not None:
        change(folder / "adapter" / STATE_FOLDER)
        save_manifest(folder / "adapter" / STATE_FOLDER, run=RUN | {"step": step})
    files = ["adapter_config.json", *(f"{STATE_FOLDER}/{name}" for name in names)]
    repo.push(folder / "adapter", files=files, step=step)
    shutil.rmtree(folder)


def in_state_folder(repo_id: str) -> set[str]:
    names = HfApi().list_repo_files(repo_id)
    return {name.removeprefix(f"{STATE_FOLDER}/") for name in names if name.startswith(f"{STATE_FOLDER}/")}


# ---- To keep it and to resume from it ------------------------------------------------------------------------------


def test_a_state_replaces_the_one_before_in_the_commit_of_its_adapter(
    repo: StateRepo, repo_id: str, tmp_path: Path
) -> None:
    api = HfApi()
    push(repo, tmp_path / "first", 6, best_step=4)
    assert in_state_folder(repo_id) == FILES | {"best/adapter_model.safetensors"}
    for name in ("notes.txt", f"{STATE_FOLDER}/optimizer.pt"):  # somebody's own file, and one of transformers
        api.upload_file(repo_id=repo_id, path_in_repo=name, path_or_fileobj=pickle.dumps(name))
    before = len(api.list_repo_commits(repo_id))
    push(repo, tmp_path / "second", 9)
    assert in_state_folder(repo_id) == FILES and api.file_exists(repo_id, "notes.txt")
    assert len(api.list_repo_commits(repo_id)) == before + 1
    assert json.loads(Path(hf_hub_download(repo_id, "adapter_config.json")).read_text()) == {"step": 9}
    state = find(repo, tmp_path / "run")
    assert state is not None and state.step == 9 and str(state).startswith(f"the state of step 9 in {repo_id}@")
    assert "state of the run" in str(state.plan(tmp_path)) and state.plan(tmp_path).downloaded > 1000


def test_a_state_becomes_a_complete_checkpoint(repo: StateRepo, tmp_path: Path) -> None:
    output_dir = tmp_path / "run"
    assert find(repo, output_dir) is None, "an empty repo"
    push(repo, tmp_path / "first", 6, best_step=4)
    state = find(repo, output_dir)
    assert state is not None
    state.fetch(output_dir)
    assert sorted(file.name for file in output_dir.iterdir()) == ["checkpoint-4", "checkpoint-6"]
    assert find_damage(output_dir / "checkpoint-6") is None
    assert read_state(output_dir / "checkpoint-6").best_model_checkpoint == str(output_dir / "checkpoint-4")
    assert find(repo, output_dir) is None, "the local one is as new"


@pytest.mark.parametrize(
    ("local_step", "is_damaged", "expected"), [(3, False, 6), (6, False, None), (9, False, None), (9, True, 6)]
)
def test_the_newer_one_is_taken(
    repo: StateRepo, tmp_path: Path, local_step: int, is_damaged: bool, expected: int | None
) -> None:
    push(repo, tmp_path / "first", 6)
    local = write_checkpoint(tmp_path / "run", local_step)
    if is_damaged:
        (local / "optimizer.pt").write_bytes(b"")
    state = find(repo, tmp_path / "run")
    assert (state and state.step) == expected


def test_a_state_that_is_not_wanted_is_named(repo: StateRepo, tmp_path: Path, caplog: Any) -> None:
    caplog.set_level("INFO")
    assert find(repo, tmp_path / "run", resume_from_hub=False) is None and "not used" not in caplog.text
    assert find(repo, tmp_path / "run", resume_from_hub=True) is None
    assert f"{repo.repo_id} holds no state of a run" in caplog.text
    push(repo, tmp_path / "first", 6)
    for changes in ({"resume_from_hub": False}, {"resume_from_checkpoint": "checkpoint-3"}):
        caplog.clear()
        assert find(repo, tmp_path / "run", **changes) is None
        assert f"the state in {repo.repo_id} is not used; that of the next checkpoint replaces it" in caplog.text


def test_a_state_of_another_run_is_refused_with_what_differs(repo: StateRepo, tmp_path: Path) -> None:
    push(repo, tmp_path / "first", 6)
    other = RUN | {"config": RUN["config"] | {"dataset_name": "e"}}
    remedy = "choose another repo, or set `resume_from_hub` false to start over, which replaces it"
    with pytest.raises(InputError, match=rf"`hub_model_id` local/.*\(dataset_name: d -> e\): {remedy}"):
        find(repo, tmp_path / "run", run=other)
    with pytest.raises(InputError, match=r"samples_per_step: 4 -> 8.*resume it on 1 process with"):
        find(repo, tmp_path / "run", run=RUN | {"config": RUN["config"] | {"samples_per_step": 8}})


def test_the_names_and_shapes_of_an_adapter_are_those_that_are_saved(tiny_base: Path, tmp_path: Path) -> None:
    base = Location(str(tiny_base))
    options = ModelOptions(use_dora=True, lora_r=3)
    model = get_peft_model(load_base_model(base, dtype=torch.float32), make_lora(options))
    model.save_pretrained(str(tmp_path), save_embedding_layers=False)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    saved = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert adapter_shapes(load_config(base), options) == saved and len(saved) > 20


# ---- What is refused -----------------------------------------------------------------------------------------------


def upload(name: str, content: bytes) -> Callable[[str], None]:
    def change(repo_id: str) -> None:
        HfApi().upload_file(repo_id=repo_id, path_in_repo=f"{STATE_FOLDER}/{name}", path_or_fileobj=content)

    return change


def delete(name: str) -> Callable[[str], None]:
    def change(repo_id: str) -> None:
        operations = [CommitOperationDelete(f"{STATE_FOLDER}/{name}")]
        HfApi().create_commit(repo_id, operations, commit_message="Delete")

    return change


DAMAGED: dict[str, tuple[Callable[[str], None], str]] = {
    "no manifest": (delete("manifest.json"), "its last-checkpoint has no manifest.json"),
    "no tensors": (delete("state.safetensors"), "its last-checkpoint has no state.safetensors"),
    "an adapter less": (delete("best/adapter_model.safetensors"), "its last-checkpoint/manifest.json is damaged"),
    "another manifest": (upload("manifest.json", b"{}"), "its last-checkpoint/manifest.json is damaged"),
    "a large manifest": (upload("manifest.json", b" " * 2**21), "manifest.json has 2097152 bytes, more than 1048576"),
    "a truncated state": (upload("state.json", b'{"step": 6'), "its last-checkpoint/manifest.json is damaged"),
    "a large adapter": (
        upload("adapter_model.safetensors", bytes(9 * 2**20)),
        "adapter_model.safetensors has 9437184",
    ),
}


@pytest.mark.parametrize(
    "case", ["no manifest", *(pytest.param(case, marks=pytest.mark.faults) for case in list(DAMAGED)[1:])]
)
def test_a_damaged_state_is_one_line_with_the_file_and_the_remedy(repo: StateRepo, case: str, tmp_path: Path) -> None:
    change, message = DAMAGED[case]
    push(repo, tmp_path / "first", 6, best_step=4)
    change(repo.repo_id)
    with pytest.raises(InputError) as raised:
        find(repo, tmp_path / "run")
    text = str(raised.value)
    assert text.startswith(f"`hub_model_id` {repo.repo_id}@") and message in text and "\n" not in text
    assert "restore it with an earlier commit, or set `resume_from_hub` false to start over" in text
    assert find(repo, tmp_path / "run", resume_from_hub=False) is None, "the remedy"


@pytest.mark.faults
def test_a_file_that_changed_and_one_that_no_run_writes_leave_no_checkpoint(repo: StateRepo, tmp_path: Path) -> None:
    output_dir = tmp_path / "run"

    def garble(folder: Path) -> None:
        (folder / "state.json").write_text("{}")

    def assert_refused(message: str) -> None:
        state = find(repo, output_dir)
        assert state is not None
        with pytest.raises(InputError, match=message):
            state.fetch(output_dir)
        assert not list(output_dir.iterdir())

    push(repo, tmp_path / "first", 6, change=garble)
    assert_refused(r"@.{7}: last-checkpoint/state\.json is not what a run writes .*; restore it")

    push(repo, tmp_path / "second", 9)
    content = bytearray(Path(hf_hub_download(repo.repo_id, f"{STATE_FOLDER}/state.safetensors")).read_bytes())
    content[-1] ^= 1
    upload("state.safetensors", bytes(content))(repo.repo_id)
    assert_refused(r"@.{7}: last-checkpoint/state\.safetensors has changed since it was written")


@pytest.mark.faults
@pytest.mark.parametrize(
    "run", [{}, {"step": 0}, {"step": "6"}, {"step": True}, {"step": 6, "processes": 10**9},
            {"step": 6, "sharding": "FSDP"}],
)  # fmt: skip
def test_a_manifest_that_no_run_writes_is_refused(repo: StateRepo, tmp_path: Path, run: dict[str, Any]) -> None:
    folder = tmp_path / "state"
    push(repo, tmp_path / "first", 6)
    HfApi().snapshot_download(repo.repo_id, local_dir=folder, allow_patterns=f"{STATE_FOLDER}/*")
    (folder / STATE_FOLDER / "session.json").unlink()
    save_manifest(folder / STATE_FOLDER, run=(RUN | run) if run else {})
    upload("manifest.json", (folder / STATE_FOLDER / "manifest.json").read_bytes())(repo.repo_id)
    with pytest.raises(InputError, match=r"last-checkpoint/manifest\.json is damaged; restore it"):
        find(repo, tmp_path / "run")


# ---- One session at a time -----------------------------------------------------------------------------------------


def test_a_session_that_was_taken_over_replaces_nothing(repo_id: str, tmp_path: Path) -> None:
    options = make_options(tmp_path)
    lost: list[bool] = []
    with hold_repo(repo_id, options) as first:
        assert first is not None
        first.lease.call_on_loss(lambda: lost.append(True))
        push(first, tmp_path / "first", 6)
        with pytest.raises(InputError, match="is used by session"), hold_repo(repo_id, options):
            pass
        options.hub_take_over = True
        with hold_repo(repo_id, options) as second:
            assert second is not None
            commit = HfApi().model_info(repo_id).sha
            with pytest.raises(InputError, match=f"taken over by session {second.lease.me.id[:8]}"):
                push(first, tmp_path / "second", 9)
            assert lost == [True] and HfApi().model_info(repo_id).sha == commit
            with pytest.raises(InputError, match="taken over by"):
                first.check_held()
            state = find(second, tmp_path / "run")
            assert state is not None and state.step == 6
            push(second, tmp_path / "third", 9)
    assert HfApi().list_repo_refs(repo_id).branches[0].name == "main"
    assert len(HfApi().list_repo_refs(repo_id).branches) == 1


def test_a_session_that_wakes_up_after_the_other_one_has_ended_learns_of_it_from_its_push(
    repo_id: str, tmp_path: Path
) -> None:
    options = make_options(tmp_path)
    with hold_repo(repo_id, options) as first:
        assert first is not None
        push(first, tmp_path / "first", 6)
        options.hub_take_over = True
        with hold_repo(repo_id, options) as second:
            assert second is not None
            push(second, tmp_path / "second", 9)
        first.lease._renew()
        with pytest.raises(InputError, match=f"was taken over by session {second.lease.me.id[:8]}: this session"):
            push(first, tmp_path / "third", 12)
    assert [branch.name for branch in HfApi().list_repo_refs(repo_id).branches] == ["main"]


def test_a_session_file_that_no_session_writes_names_none(repo: StateRepo) -> None:
    for content in (b"no", b"[]", b"{}", b" " * 2**20):
        upload("session.json", content)(repo.repo_id)
        assert repo._read_session(None) is None


def test_the_lease_is_held_until_the_last_push_has_ended_also_after_an_error(repo_id: str, tmp_path: Path) -> None:
    pushed: list[Future[None]] = []

    def push_slowly(repo: StateRepo) -> None:
        time.sleep(0.5)
        push(repo, tmp_path / "first", 6)

    def fail() -> None:
        with hold_repo(repo_id, make_options(tmp_path)) as repo:
            assert repo is not None
            pushed.append(repo.pushes.submit(push_slowly, repo))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    pushed[0].result(timeout=0)
    assert in_state_folder(repo_id) == FILES
    assert [branch.name for branch in HfApi().list_repo_refs(repo_id).branches] == ["main"]


def test_the_next_session_after_one_that_ended_in_order_needs_no_commit_of_its_own(
    repo_id: str, tmp_path: Path
) -> None:
    options = make_options(tmp_path)
    with hold_repo(repo_id, options) as first:
        assert first is not None
        push(first, tmp_path / "first", 6)
    commit = HfApi().model_info(repo_id).sha
    with hold_repo(repo_id, options) as second:
        assert second is not None and HfApi().model_info(repo_id).sha == commit
        push(second, tmp_path / "second", 9)


def test_a_run_with_another_strategy_holds_no_lease(repo_id: str, tmp_path: Path) -> None:
    with hold_repo(repo_id, make_options(tmp_path, hub_strategy="every_save")) as repo:
        assert repo is None
    with hold_repo(None, make_options(tmp_path)) as repo:
        assert repo is None


@pytest.mark.faults
def test_a_hub_that_is_away_or_has_no_such_branch_is_one_line(
    hub: LocalHub, repo: StateRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="has no revision 'missing'"):
        find(StateRepo(repo.repo_id, revision="missing"), tmp_path / "run")
    hub.stop()
    try:
        with pytest.raises(InputError, match=r"`hub_model_id` local/.*: no Hub answers"):
            find(repo, tmp_path / "run")
    finally:
        hub.start()
