"""Targets: the state of a run in a repo, and the lease on it, which anybody who may write to the repo wrote."""

import copy
import json
import math
import random
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from transformers import TrainerState

from product_vqa.errors import InputError
from tests.fuzz.documents import generate_json, random_value
from tests.fuzz.target import Target, assert_message, assert_one_line
from tests.training.states import export, write_checkpoint
from training.hub_lease import Holder, _parse, make_holder
from training.portable_checkpoint import STATE_FILE, _read_checked

_kept: list[tempfile.TemporaryDirectory[str]] = []


@cache
def _folder() -> Path:
    """An exported checkpoint, whose state.json the cases replace."""
    made = tempfile.TemporaryDirectory(prefix="fuzz-states-")
    _kept.append(made)
    folder = Path(made.name, "exported")
    export(write_checkpoint(Path(made.name), 6), folder)
    return folder


@cache
def _valid() -> bytes:
    return (_folder() / STATE_FILE).read_bytes()


def fuzz_run_state(data: bytes) -> None:
    """A state has all that the trainer reads of it, or is refused in one line that names the file."""
    _valid()
    (_folder() / STATE_FILE).write_bytes(data)
    try:
        state = _read_checked(_folder(), processes=1, name="user/adapter")
    except InputError as error:
        assert_one_line(error)
        assert_message(error, names=STATE_FILE)
        return
    assert state.step >= 1
    assert state.trainer_state["global_step"] == state.step
    assert state.best_step is None or 1 <= state.best_step <= state.step
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth"} <= state.files.keys()
    assert all(isinstance(entry["step"], int) for entry in state.trainer_state["log_history"])
    read = TrainerState(**json.loads(json.dumps(state.trainer_state, sort_keys=True)))  # as it is saved and loaded
    assert math.isfinite(read.train_batch_size // 1)


def fuzz_lease(data: bytes) -> None:
    """A lease is that of a session, known or unknown, or it was released."""
    holder = _parse(data)
    assert holder is None or isinstance(holder, Holder)
    if holder is not None:
        assert str(holder).isprintable() and len(str(holder)) < 500
        assert isinstance(holder.is_here and holder.is_running, bool)


_TAGS = ("$tensor", "$tuple", "$dict", "$float", "$uint32", "$x")


def _generate_state(rng: random.Random) -> bytes:
    """A valid state with other values in some places."""
    content = copy.deepcopy(json.loads(_valid()))
    for _ in range(rng.randrange(1, 4)):
        place: Any = content
        for _ in range(rng.randrange(1, 7)):
            keys: list[Any] = list(place) if isinstance(place, dict) else list(range(len(place)))
            inner = [key for key in keys if isinstance(place[key], dict | list) and place[key]]
            if not inner:
                break
            parent, key = place, rng.choice(inner)
            place = parent[key]
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        value = random_value(rng, depth=2)
        if rng.random() < 0.4:
            value = {rng.choice(_TAGS): value}
        if rng.random() < 0.2:
            del place[rng.choice(keys)]
        else:
            place[rng.choice(keys)] = value
    return json.dumps(content).encode()


def _generate_lease(rng: random.Random) -> bytes:
    values: dict[str, Any] = dict(vars(make_holder()))
    for _ in range(rng.randrange(3)):
        values[rng.choice([*values, "released"])] = random_value(rng, depth=1)
    return json.dumps(values).encode() if rng.random() < 0.8 else generate_json(rng)


TARGETS = [
    Target("run_state", fuzz_run_state, lambda: [_valid(), b"{}", b"[]"], generate=_generate_state, max_bytes=40_000),
    Target(
        "lease",
        fuzz_lease,
        lambda: [json.dumps(vars(make_holder())).encode(), b"", b'{"released": true}'],
        generate=_generate_lease,
        max_bytes=4000,
    ),
]
