"""A checkpoint without pickles: its tensors as safetensors, everything else as JSON; and back, equal to the bit.

The trainer saves its optimizer, schedule and random states with torch, as pickles. `export_checkpoint` converts them
for the Hub. `import_checkpoint` reads what is on the Hub, which anyone may have written, and makes the trainer's own
files of it.
"""

import json
import math
import os
import random
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import TrainerControl, TrainerState
from transformers.trainer_pt_utils import safe_globals

from product_vqa.documents import DocumentError, parse_json, read_bytes
from product_vqa.errors import InputError, first_line
from product_vqa.hub import Location
from product_vqa.modeling.model_files import is_integer, read_header
from product_vqa.provenance import ADAPTER_WEIGHTS
from training.checkpoints import STATE_FILE as TRAINER_STATE
from training.checkpoints import load_manifest, remove_checkpoint, save_manifest

STATE_FILE = "state.json"
TENSORS_FILE = "state.safetensors"
BEST_ADAPTER = f"best/{ADAPTER_WEIGHTS}"
MAX_STATE_BYTES = 32 * 1024**2  # of state.json: a log of 140,000 entries
MAX_STEP = 10**9
MAX_COLUMNS = 1000  # of the log; a run has some dozens
MAX_RNG_BYTES = 2**16  # of one generator
TENSOR_TYPES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
_PICKLED = re.compile(r"optimizer\.pt|scheduler\.pt|scaler\.pt|rng_state(_[0-9]{1,6})?\.pth")
_NEEDED = {"optimizer.pt", "scheduler.pt"}


# ---- Values of Python as JSON and tensors --------------------------------------------------------------------------


class _Encoder:
    """Converts nested values to what JSON holds exactly; tensors go to `tensors`, under their path in the value."""

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._names: dict[tuple[Any, ...], str] = {}  # by memory: the maps of 8-bit optimizers occur many times
        self._storages: set[int] = set()

    def encode(self, value: Any, path: str) -> Any:
        """Raises TypeError for a value that is neither plain nor a tensor."""
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:  # JSON has no NaN; of every other float, Python writes enough digits
            return value if math.isfinite(value) else {"$float": str(value)}
        if isinstance(value, torch.Tensor):
            return {"$tensor": self._add(value.detach(), path)}
        if isinstance(value, list):
            return [self.encode(one, f"{path}/{index}") for index, one in enumerate(value)]
        if isinstance(value, tuple):
            return {"$tuple": self.encode(list(value), path)}
        if isinstance(value, dict) and all(type(key) in (int, str) for key in value):
            pairs = {key: self.encode(one, f"{path}/{key}") for key, one in value.items()}
            is_object = all(type(key) is str and not key.startswith("$") for key in pairs)
            return pairs if is_object else {"$dict": [[key, one] for key, one in pairs.items()]}
        if isinstance(value, np.ndarray) and value.dtype == np.uint32 and value.ndim == 1:
            return {"$uint32": value.tolist()}
        raise TypeError(f"{path} is of type {type(value).__name__}")

    def _add(self, tensor: torch.Tensor, path: str) -> str:
        key = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if tensor.numel() and key in self._names:
            return self._names[key]
        storage = tensor.untyped_storage()
        is_alone = storage.data_ptr() not in self._storages and storage.nbytes() == tensor.nbytes
        is_alone = is_alone and tensor.is_contiguous()
        self.tensors[path] = tensor if is_alone else tensor.clone(memory_format=torch.contiguous_format)
        self._storages.add(storage.data_ptr())
        self._names[key] = path
        return path


def _decode(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The inverse of `_Encoder.encode`. Raises DocumentError for what it does not write."""
    if isinstance(value, list):
        return [_decode(one, tensors) for one in value]
    if not isinstance(value, dict):
        return value
    tags = [key for key in value if key.startswith("$")]
    if not tags:
        return {key: _decode(one, tensors) for key, one in value.items()}
    if len(value) == 1:
        content = value[tags[0]]
        if tags[0] == "$tensor" and isinstance(content, str) and content in tensors:
            return tensors[content]
        if tags[0] == "$float" and content in ("nan", "inf", "-inf"):
            return float(content)
        if tags[0] == "$tuple" and isinstance(content, list):
            return tuple(_decode(content, tensors))
        if (
            tags[0] == "$uint32"
            and isinstance(content, list)
            and all(is_integer(one, 0, 2**32 - 1) for one in content)
        ):
            return np.array(content, dtype=np.uint32)
        if tags[0] == "$dict" and isinstance(content, list) and all(map(_is_pair, content)):
            return {key: _decode(one, tensors) for key, one in content}
    raise DocumentError(f"{json.dumps(value)[:100]} is not a value that this project writes")


def _is_uint32(value: Any) -> bool:
    return is_integer(value, 0, 2**32 - 1)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and type(value[0]) in (int, str)


# ---- From the trainer's files --------------------------------------------------------------------------------------


def link_checkpoint(checkpoint: Path, folder: Path, *, best: Path | None) -> None:
    """Put what `export_checkpoint` reads into `folder`, as hard links: the checkpoint itself may be removed then.

    `best` is the checkpoint with the best scores; None if it is the same one, or if none is kept.
    """
    (folder / "best").mkdir(parents=True)
    names = [file.name for file in checkpoint.iterdir() if _PICKLED.fullmatch(file.name)]
    for name in (*names, ADAPTER_WEIGHTS, TRAINER_STATE):
        _link(checkpoint / name, folder / name)
    if best is not None:
        _link(best / ADAPTER_WEIGHTS, folder / BEST_ADAPTER)


def _link(source: Path, target: Path) -> None:
    """Checkpoints are never written to again, so a link is as good as a copy."""
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def export_checkpoint(linked: Path, folder: Path, *, run: dict[str, Any]) -> list[str]:
    """Convert what `link_checkpoint` put into `linked`, and write it to `folder` with a manifest, which is last.

    `run` describes the run (`training.run_config.describe_run`). Returns the names of the files. Raises InputError if
    the checkpoint holds something that is neither plain data nor a tensor, or lacks the random state of a process.
    """
    encoder = _Encoder()
    names = sorted(file.name for file in linked.iterdir() if _PICKLED.fullmatch(file.name))
    num_random_states = sum(name.startswith("rng_state") for name in names)
    if num_random_states != run["processes"]:
        raise InputError(
            f"the checkpoint has the random states of {num_random_states} of {run['processes']} processes; "
            "`output_dir` must be a folder that all machines share"
        )
    try:
        pickled = {name: encoder.encode(_load(linked / name), name) for name in names}
        trainer_state = json.loads((linked / TRAINER_STATE).read_bytes())
        trainer_state["best_model_checkpoint"] = None  # a path of this machine
        step, best_step = trainer_state["global_step"], trainer_state["best_global_step"]
        has_best = best_step == step or (linked / BEST_ADAPTER).exists()
        content = {
            "step": step,
            "best_step": best_step if has_best else None,
            "trainer_state": encoder.encode(trainer_state, TRAINER_STATE),
            "files": pickled,
        }
    except TypeError as error:
        raise InputError(f"{error}, which is neither plain data nor a tensor") from error
    text = json.dumps(content, allow_nan=False)
    if len(text) > MAX_STATE_BYTES:
        raise InputError(f"its log is too long ({len(text)} bytes): raise `logging_steps`")
    (folder / "best").mkdir(parents=True)
    save_file(encoder.tensors, folder / TENSORS_FILE)
    (folder / STATE_FILE).write_text(text)
    _link(linked / ADAPTER_WEIGHTS, folder / ADAPTER_WEIGHTS)
    if (linked / BEST_ADAPTER).exists():
        _link(linked / BEST_ADAPTER, folder / BEST_ADAPTER)
    save_manifest(folder, run={**run, "step": step})
    _read_checked(folder, processes=run["processes"], name="the checkpoint")  # or nobody could resume from it
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def _load(file: Path) -> Any:
    """Load a file of the trainer's own checkpoint."""
    with safe_globals():
        return torch.load(file, map_location="cpu", weights_only=True)


# ---- From the files of the Hub -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _State:
    step: int
    best_step: int | None
    trainer_state: dict[str, Any]
    files: dict[str, Any]  # name -> what torch saves under it


def import_checkpoint(folder: Path, output_dir: Path, *, adapter: Mapping[str, tuple[int, ...]], name: str) -> Path:
    """Make a checkpoint of the trainer in `output_dir` of exported files whose manifest has been verified.

    `adapter` has the shapes of the run's adapter, `name` names the files in errors. A checkpoint of the same step is
    replaced. With a best checkpoint of another step, that one is made too, with its adapter only. Raises InputError,
    naming the file, for what no run with this adapter has exported; nothing is left in `output_dir` then.
    """
    manifest = load_manifest(folder)
    assert isinstance(manifest, dict), "verified before"
    run = manifest["run"]
    _check_adapter(folder, ADAPTER_WEIGHTS, adapter=adapter, name=name)
    has_best = (folder / BEST_ADAPTER).exists()
    if has_best:
        _check_adapter(folder, BEST_ADAPTER, adapter=adapter, name=name)
    state = _read_checked(folder, processes=run["processes"], name=name)
    if state.step != run["step"]:
        raise InputError(f"{name}/{STATE_FILE} is of step {state.step}, but its manifest of step {run['step']}")
    if has_best != (state.best_step not in (None, state.step)):
        raise InputError(f"{name}/{STATE_FILE}: its best_step {state.best_step} and the files do not fit")
    run = {key: value for key, value in run.items() if key != "step"}
    checkpoint = output_dir / f"checkpoint-{state.step}"
    made = folder / "made"
    shutil.rmtree(made, ignore_errors=True)
    if has_best:  # first: checkpoints are removed by age
        best = output_dir / f"checkpoint-{state.best_step}"
        _make_folder(made, best, adapter=folder / BEST_ADAPTER, run=run)
    trainer_state = state.trainer_state
    if state.best_step is not None:
        trainer_state |= {"best_model_checkpoint": str(output_dir / f"checkpoint-{state.best_step}")}
    _make_folder(made, checkpoint, adapter=folder / ADAPTER_WEIGHTS, run=run, files=state.files, state=trainer_state)
    return checkpoint


def _make_folder(
    made: Path,
    final: Path,
    *,
    adapter: Path,
    run: dict[str, Any],
    files: Mapping[str, Any] | None = None,
    state: dict[str, Any] | None = None,
) -> None:
    """Make a checkpoint in the folder `made`, and rename it when it is complete."""
    made.mkdir()
    _link(adapter, made / ADAPTER_WEIGHTS)
    for name, content in (files or {}).items():
        torch.save(content, made / name)
    if state is not None:
        (made / TRAINER_STATE).write_text(json.dumps(state, indent=2, sort_keys=True) + "\n")
    save_manifest(made, run=run)
    remove_checkpoint(final)
    made.rename(final)


def _check_adapter(folder: Path, file: str, *, adapter: Mapping[str, tuple[int, ...]], name: str) -> None:
    """Raise InputError unless the file has exactly the tensors of the run's adapter, in float32 and finite."""
    found = read_header(Location(name), folder / file, file)
    wrong = [
        key
        for key in sorted(adapter.keys() | found.keys())
        if key not in found or found[key].shape != adapter.get(key) or found[key].dtype != "F32"
    ]
    if wrong:
        raise InputError(f"{name}/{file}: its tensor {wrong[0][:200]} is missing, or not one of this run's adapter")
    with safe_open(folder / file, framework="pt") as tensors:
        for key in tensors.keys():  # noqa: SIM118  # not a mapping
            if not tensors.get_tensor(key).isfinite().all():
                raise InputError(f"{name}/{file}: its tensor {key} has values that are not finite")


def _read_checked(folder: Path, *, processes: int, name: str) -> _State:
    """Read state.json and its tensors; raises InputError, naming the file, for what is not a state."""
    try:
        return _read_state(folder, processes=processes, name=name)
    except InputError:
        raise
    except (
        ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, SafetensorError, TypeError, ValueError,
    ) as error:  # fmt: skip
        raise InputError(f"{name}/{STATE_FILE} is not what a run writes ({first_line(error)[:200]})") from error


def _read_state(folder: Path, *, processes: int, name: str) -> _State:
    content = parse_json(read_bytes(folder / STATE_FILE, max_bytes=MAX_STATE_BYTES), max_bytes=MAX_STATE_BYTES)
    read_header(Location(name), folder / TENSORS_FILE, TENSORS_FILE, dtypes=TENSOR_TYPES)
    with safe_open(folder / TENSORS_FILE, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a mapping
    step, best_step = content["step"], content["best_step"]
    trainer_state, files = _decode(content["trainer_state"], tensors), _decode(content["files"], tensors)
    _require(is_integer(step, 1, MAX_STEP) and trainer_state["global_step"] == step, "step")
    _check_trainer_state(trainer_state)
    _require(best_step is None or is_integer(best_step, 1, step), "best_step")
    _require(best_step in (None, trainer_state["best_global_step"]), "best_step")
    random_states = {"rng_state.pth"} if processes == 1 else {f"rng_state_{rank}.pth" for rank in range(processes)}
    _require(_NEEDED | random_states <= files.keys() <= _NEEDED | random_states | {"scaler.pt"}, "files")
    for random_state in random_states:
        _check_random_state(files[random_state])
    return _State(step, best_step, trainer_state, files)


def _require(is_right: bool, what: str) -> None:
    if not is_right:
        raise DocumentError(f"its {what} cannot be right")


def _check_trainer_state(state: dict[str, Any]) -> None:
    """Check that it is what `TrainerState` saves: the trainer and its callbacks calculate with its values."""
    defaults = {field.name: field.default for field in fields(TrainerState)}
    _require(state.keys() <= defaults.keys(), "trainer_state")
    step = state["global_step"]
    _require(is_integer(step, 1, MAX_STEP), "step")
    _require(is_integer(state.get("train_batch_size"), 1, MAX_STEP), "train_batch_size")
    _require(state.get("best_global_step") is None or is_integer(state["best_global_step"], 0, step), "best_step")
    for key in state.keys() - {"log_history", "stateful_callbacks"}:
        _require(_is_number(state[key]) or (state[key] is None and defaults[key] is None), key)
    keys: set[str] = set()
    for entry in state["log_history"]:
        _require(isinstance(entry, dict) and is_integer(entry.get("step"), 0, MAX_STEP), "log_history")
        _require(all(map(_is_number, entry.values())), "log_history")
        keys |= entry.keys()
        _require(len(keys) <= MAX_COLUMNS, "log_history")
    _require(all(key.isprintable() and len(key) <= 200 for key in keys), "log_history")
    callbacks = state.get("stateful_callbacks", {})
    _require(callbacks.keys() <= {"TrainerControl"}, "callbacks")
    control = callbacks.get("TrainerControl", {"args": {}, "attributes": {}})
    _require(control.keys() == {"args", "attributes"} and control["attributes"] == {}, "callbacks")
    _require(control["args"].keys() <= {field.name for field in fields(TrainerControl)}, "callbacks")
    _require(all(isinstance(value, bool) for value in control["args"].values()), "callbacks")


def _is_number(value: Any) -> bool:
    """Whether it is a float, or an integer that fits into one."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)


def _check_random_state(state: dict[str, Any]) -> None:
    """Try the states on generators that nobody uses: each library checks its own."""
    _require({"python", "numpy", "cpu"} <= state.keys() <= {"python", "numpy", "cpu", "cuda"}, "random states")
    random.Random().setstate(state["python"])
    generator, keys, position, has_gauss, _ = state["numpy"]
    # NumPy itself would read behind the keys.
    _require(generator == "MT19937" and len(keys) == 624 and is_integer(position, 0, 624), "random states")
    _require(is_integer(has_gauss, 0, 1), "random states")
    np.random.RandomState().set_state(state["numpy"])
    on_gpus = state.get("cuda", [])
    for one in (state["cpu"], *(on_gpus if isinstance(on_gpus, list) else [on_gpus])):
        _require(one.dtype == torch.uint8 and one.ndim == 1 and one.nbytes <= MAX_RNG_BYTES, "random states")
    torch.Generator().set_state(state["cpu"])
