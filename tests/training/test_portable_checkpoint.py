"""A checkpoint survives the way to the Hub and back, to the bit; what nobody exported is refused with the file."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.trainer_pt_utils import safe_globals

from product_vqa.errors import InputError
from tests.training.states import RUN, SHAPES, export, write_checkpoint
from training.checkpoints import find_damage, newest_step, read_state, save_manifest
from training.portable_checkpoint import _decode, _Encoder, import_checkpoint


def check_same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype and found.equal(expected)
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype and (found == expected).all()
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            check_same(found[key], value)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            check_same(one, other)
    else:
        assert repr(found) == repr(expected)  # NaN too


def load(file: Path) -> Any:
    with safe_globals():
        return torch.load(file, weights_only=True)


# ---- Values --------------------------------------------------------------------------------------------------------

VALUES = [
    None, True, 3, -(10**30), "text", 0.1, 1 / 3, 5e-324, -0.0, float("nan"), float("inf"), -float("inf"), [], (), {},
    (1, [2.5, (None,)]), {0: "a", "0": "b"}, {"$tensor": "x"}, {"$": 1, "b": 2}, np.arange(3, dtype=np.uint32),
    torch.tensor(3.0), torch.arange(4, dtype=torch.uint8), torch.ones(2, 3).bfloat16().T, {"a": [torch.zeros(2)] * 2},
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: str(value)[:30].replace("\n", " "))
def test_a_value_is_the_same_after_json_and_safetensors(value: Any, tmp_path: Path) -> None:
    encoder = _Encoder()
    text = json.dumps(encoder.encode(value, "x"), allow_nan=False)
    save_file(encoder.tensors, tmp_path / "tensors")
    check_same(_decode(json.loads(text), load_file(tmp_path / "tensors")), value)


def test_tensors_that_share_memory_are_stored_once_if_they_are_equal_and_apart_if_not(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    encoder = _Encoder()
    encoded = encoder.encode({"a": shared, "b": shared, "c": shared[2:4], "d": shared.view(2, 3)}, "x")
    assert encoded["a"] == encoded["b"] and len(encoder.tensors) == 3
    save_file(encoder.tensors, tmp_path / "tensors")
    decoded = _decode(encoded, load_file(tmp_path / "tensors"))
    assert decoded["c"].tolist() == [2, 3] and decoded["d"].tolist() == [[0, 1, 2], [3, 4, 5]]


NOT_PLAIN = [object(), {(1, 2): 3}, {True: 1}, torch.float32, np.zeros(2), {"a": [1j]}]


@pytest.mark.parametrize("value", NOT_PLAIN, ids=range(len(NOT_PLAIN)))
def test_a_value_other_than_plain_data_is_not_exported(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^x.* is of type"):
        _Encoder().encode(value, "x")


UNKNOWN = [
    {"$object": "os.system"}, {"$tensor": "missing"}, {"$tensor": []}, {"$float": "1e5"}, {"$float": ["nan"]},
    {"$tuple": {}}, {"$tuple": [], "more": 1}, {"$uint32": [-1]}, {"$uint32": [2**32]}, {"$uint32": [True]},
    {"$uint32": "12"}, {"$dict": [[1]]}, {"$dict": [[[], 1]]}, {"$dict": [[None, 1]]}, {"$dict": 3},
    [{"a": {"$": 1}}],
]  # fmt: skip


@pytest.mark.parametrize("value", UNKNOWN, ids=str)
def test_a_value_that_was_not_exported_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="is not a value that this project writes"):
        _decode(value, {})


# ---- Checkpoints ---------------------------------------------------------------------------------------------------


def test_a_checkpoint_comes_back_with_all_that_resuming_needs_and_no_pickle_or_path_was_on_the_way(
    tmp_path: Path,
) -> None:
    original = write_checkpoint(tmp_path / "run", 6)
    torch.save({"scale": 65536.0, "_growth_tracker": 3}, original / "scaler.pt")
    names = export(original, tmp_path / "exported")
    assert names == ["adapter_model.safetensors", "manifest.json", "state.json", "state.safetensors"]
    text = "".join(file.read_text("latin-1") for file in (tmp_path / "exported").iterdir() if file.is_file())
    assert "/home/someone" not in text and str(tmp_path) not in text
    output_dir = tmp_path / "other"
    output_dir.mkdir()
    made = import_checkpoint(tmp_path / "exported", output_dir, adapter=SHAPES, name="user/x")
    assert made == output_dir / "checkpoint-6" and find_damage(made) is None and newest_step(output_dir) == 6
    for name in ("optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth"):
        check_same(load(made / name), load(original / name))
    assert (made / "adapter_model.safetensors").read_bytes() == (original / "adapter_model.safetensors").read_bytes()
    check_same(vars(read_state(made)), vars(read_state(original)))


def test_the_best_checkpoint_comes_along_with_its_adapter_and_nobody_resumes_from_it(tmp_path: Path) -> None:
    run, output_dir = tmp_path / "run", tmp_path / "other"
    best, last = write_checkpoint(run, 4, best_step=4), write_checkpoint(run, 6, best_step=4)
    assert "best/adapter_model.safetensors" in export(last, tmp_path / "exported", best=best)
    output_dir.mkdir()
    made = import_checkpoint(tmp_path / "exported", output_dir, adapter=SHAPES, name="user/x")
    assert read_state(made).best_model_checkpoint == str(output_dir / "checkpoint-4")
    kept = output_dir / "checkpoint-4"
    assert {file.name for file in kept.iterdir()} == {"adapter_model.safetensors", "manifest.json"}
    assert (kept / "adapter_model.safetensors").read_bytes() == (best / "adapter_model.safetensors").read_bytes()
    assert kept.stat().st_mtime_ns < made.stat().st_mtime_ns, "the older ones are removed first"
    assert newest_step(output_dir, keeps_best=True) == 6
    shutil.rmtree(made)
    assert newest_step(output_dir, keeps_best=True) == 0


def test_where_the_last_checkpoint_is_the_best_one_it_is_exported_once(tmp_path: Path) -> None:
    names = export(write_checkpoint(tmp_path / "run", 4, best_step=4), tmp_path / "e")
    assert not any("best" in name for name in names)
    made = import_checkpoint(tmp_path / "e", tmp_path, adapter=SHAPES, name="user/x")
    assert read_state(made).best_model_checkpoint == str(made)


def test_the_random_states_of_all_processes_are_needed(tmp_path: Path) -> None:
    run = RUN | {"processes": 2}
    checkpoint = write_checkpoint(tmp_path / "run", 4, run=run)
    (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_0.pth")
    with pytest.raises(InputError, match=r"random states of 1 of 2 processes; `output_dir` must be a folder that all"):
        export(checkpoint, tmp_path / "first", run=run)
    shutil.copy(checkpoint / "rng_state_0.pth", checkpoint / "rng_state_1.pth")
    export(checkpoint, tmp_path / "second", run=run)
    made = import_checkpoint(tmp_path / "second", tmp_path, adapter=SHAPES, name="user/x")
    assert {"rng_state_0.pth", "rng_state_1.pth"} < {file.name for file in made.iterdir()}


def test_what_nobody_could_resume_from_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="its log_history cannot be right"):
        export(write_checkpoint(tmp_path / "run", 4, loss="much"), tmp_path / "first")
    checkpoint = write_checkpoint(tmp_path / "run", 6)
    torch.save({"state": {0: {"step": torch.float32}}}, checkpoint / "optimizer.pt")
    with pytest.raises(InputError, match=r"optimizer\.pt/state/0/step is of type dtype, which is neither plain data"):
        export(checkpoint, tmp_path / "second")


def test_a_checkpoint_of_the_same_step_is_replaced_and_links_are_copied_where_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: Any) -> None:
        raise OSError

    monkeypatch.setattr(os, "link", no_links)
    export(write_checkpoint(tmp_path / "run", 6), tmp_path / "exported")
    (tmp_path / "checkpoint-6").mkdir()
    (tmp_path / "checkpoint-6" / "left").write_text("over")
    made = import_checkpoint(tmp_path / "exported", tmp_path, adapter=SHAPES, name="user/x")
    assert find_damage(made) is None and not (made / "left").exists()


# ---- Exported checkpoints of strangers -----------------------------------------------------------------------------


def change_state(**changes: Any) -> Callable[[Path], None]:
    """Change values of state.json: their paths are the names, with `__` in place of dots and slashes."""

    def change(folder: Path) -> None:
        content = json.loads((folder / "state.json").read_text())
        for path, value in changes.items():
            *parents, last = path.split("__")
            place: Any = content
            for parent in parents:
                place = place[int(parent) if isinstance(place, list) else parent.replace("_DOT_", ".")]
            place[last.replace("_DOT_", ".")] = value
        (folder / "state.json").write_text(json.dumps(content))

    return change


def change_random_state(**changes: Any) -> Callable[[Path], None]:
    return change_state(**{f"files__rng_state_DOT_pth__{key}": value for key, value in changes.items()})


def change_adapter(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        save_file(change(load_file(folder / "adapter_model.safetensors")), folder / "new")
        os.replace(folder / "new", folder / "adapter_model.safetensors")

    return save


def write(name: str, content: bytes) -> Callable[[Path], None]:
    def replace(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(content)

    return replace


A, B = SHAPES
NUMPY = {"$uint32": [1] * 624}
HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "no JSON": (write("state.json", b"no"), "state.json is not what a run writes"),
    "deep": (write("state.json", b"[" * 10_000), "state.json is not what a run writes"),
    "a list": (write("state.json", b"[1]"), "state.json is not what a run writes"),
    "nothing": (write("state.json", b"{}"), "state.json is not what a run writes .*'step'"),
    "a long number": (write("state.json", b'{"step": ' + b"9" * 5000 + b"}"), "5000 digits"),
    "a pickle": (write("state.safetensors", pickle.dumps({"a": 1})), "state.safetensors is damaged"),
    "no tensors": (write("state.safetensors", b""), "state.safetensors is damaged"),
    "another step": (change_state(step=8, trainer_state__global_step=8), "state.json is of step 8, but its manifest"),
    "steps that differ": (change_state(step=8), "its step cannot be right"),
    "a step of text": (change_state(step="6"), "its step cannot be right"),
    "a step of floats": (change_state(trainer_state__global_step=6.0), "its step cannot be right"),
    "a best one": (change_state(best_step=4, trainer_state__best_global_step=4), "best_step 4 and the files do not"),
    "a best path": (change_state(best_step="../../x"), "its best_step cannot be right"),
    "a log of text": (change_state(trainer_state__log_history=["x"]), "its log_history cannot be right"),
    "minutes of text": (
        change_state(trainer_state__log_history=[{"step": 1, "minutes": "x"}]), "its log_history cannot be right",
    ),
    "an epoch of text": (change_state(trainer_state__epoch="x"), "its epoch cannot be right"),
    "callbacks": (change_state(trainer_state__stateful_callbacks=[1]), "state.json is not what a run writes"),
    "control": (
        change_state(trainer_state__stateful_callbacks={"TrainerControl": {"args": 1}}), "its callbacks cannot be",
    ),
    "control's methods": (
        change_state(
            trainer_state__stateful_callbacks={"TrainerControl": {"args": {}, "attributes": {"state": 1}}}
        ), "its callbacks cannot be right",
    ),
    "another callback": (
        change_state(trainer_state__stateful_callbacks={"EarlyStoppingCallback": {}}), "its callbacks cannot be right",
    ),
    "a field more": (change_state(trainer_state__more=1), "its trainer_state cannot be right"),
    "a field that is not text": (
        change_state(trainer_state={"$dict": [["global_step", 6], [1, 2]]}), "its trainer_state cannot be right",
    ),
    "a field that is a tensor": (
        change_state(trainer_state__total_flos={"$tensor": "optimizer.pt/state/0/exp_avg"}), "its total_flos ",
    ),
    "no total": (change_state(trainer_state__num_input_tokens_seen=None), "its num_input_tokens_seen cannot be right"),
    "no batch size": (change_state(trainer_state__train_batch_size=None), "its train_batch_size cannot be right"),
    "a path as trial": (change_state(trainer_state__trial_name="../x"), "its trial_name cannot be right"),
    "a number that no float holds": (change_state(trainer_state__total_flos=10**400), "its total_flos cannot be"),
    "a best step of text": (change_state(trainer_state__best_global_step="../x"), "its best_step cannot be"),
    "a log with many columns": (
        change_state(trainer_state__log_history=[{"step": 1} | {f"x{number}": 1 for number in range(2000)}]),
        "its log_history cannot be right",
    ),
    "a log that controls terminals": (
        change_state(trainer_state__log_history=[{"step": 1, "\x1b[2J": 1}]), "its log_history cannot be right",
    ),
    "a path": (change_state(files={"../../evil.pth": 1}), "its files cannot be right"),
    "a file more": (change_state(**{"files__training_args_DOT_bin": 1}), "its files cannot be right"),
    "a tensor that is not there": (change_state(files__optimizer_DOT_pt={"$tensor": "x"}), "is not a value that"),
    "no random state": (change_state(files__rng_state_DOT_pth=None), "state.json is not what a run writes"),
    "random states": (change_random_state(xpu=1), "its random states cannot be right"),
    "python's": (change_random_state(python={"$tuple": [3, {"$tuple": [1] * 9}, None]}), "state.json is not what a"),
    "python's index": (
        change_random_state(python={"$tuple": [3, {"$tuple": [1] * 624 + [10**6]}, None]}), "state.json is not what",
    ),
    "numpy's": (change_random_state(numpy={"$tuple": ["PCG64", NUMPY, 1, 0, 0.0]}), "random states cannot be right"),
    "numpy's position": (
        change_random_state(numpy={"$tuple": ["MT19937", NUMPY, 10**6, 0, 0.0]}), "random states cannot be right",
    ),
    "torch's": (change_random_state(cpu={"$tensor": "optimizer.pt/state/0/exp_avg"}), "random states cannot be right"),
    "a GPU's": (change_random_state(cuda=[3]), "state.json is not what a run writes"),
    "an adapter of others": (change_adapter(lambda had: {"x": had[A]}), r"its tensor model\.q\.lora_A.* is missing"),
    "another shape": (change_adapter(lambda had: had | {A: torch.zeros(3, 2)}), "lora_A.* not one of this run's"),
    "another dtype": (change_adapter(lambda had: had | {B: had[B].half()}), "lora_B.* not one of this run's adapter"),
    "one more": (change_adapter(lambda had: had | {"z": torch.zeros(1)}), "its tensor z is missing, or not one of"),
    "NaN": (change_adapter(lambda had: had | {A: had[A] / 0}), "lora_A.weight has values that are not finite"),
    "a pickle as adapter": (write("adapter_model.safetensors", pickle.dumps(1)), "adapter_model.safetensors is damag"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_what_no_run_exported_is_one_line_with_the_file_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    change, message = HOSTILE[case]
    folder, output_dir = tmp_path / "exported", tmp_path / "run"
    export(write_checkpoint(tmp_path / "original", 6), folder)
    change(folder)
    save_manifest(folder, run=RUN | {"step": 6})  # whoever wrote the files wrote the hashes too
    output_dir.mkdir()
    with pytest.raises(InputError, match=message) as raised:
        import_checkpoint(folder, output_dir, adapter=SHAPES, name="user/x: last-checkpoint")
    assert "\n" not in str(raised.value) and "user/x: last-checkpoint" in str(raised.value)
    assert not list(output_dir.iterdir())
