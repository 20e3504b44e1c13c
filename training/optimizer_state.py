"""Errors of loading a checkpoint, and whether the optimizer and the schedule that it restored are those of this run.

torch takes almost anything for them: what does not fit would fail in the first step, or train with other settings.
"""

import copy
import math
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from product_vqa.errors import InputError, first_line

# Of Adam and its 8-bit forms, SGD, Lion: tensors of the shape of their parameter.
_LIKE_PARAMETER = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "state1", "state2"}
_OF_ADAM = {"step", "exp_avg", "exp_avg_sq"}


@contextmanager
def checkpoint_errors(checkpoint: str | None) -> Iterator[None]:
    """Convert what loading a checkpoint raises into an InputError.

    Its pickles are loaded with weights_only, so no code in them runs. A stranger's file may raise anything else.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)[:200]}"
        if isinstance(error, pickle.UnpicklingError):  # torch's message says how to run the code
            reason = "a file in it is damaged, or holds more than tensors"
        raise InputError(
            f"checkpoint {checkpoint} cannot be loaded ({reason}); choose another, or delete it to resume from the "
            "one before. If it came from the Hub, also set `resume_from_hub` false"
        ) from error


@contextmanager
def checked_restore(optimizer: Any, scheduler: Any, *, is_complete: bool = True) -> Iterator[None]:
    """Check what is restored in the block; raises ValueError if it does not fit the parameters or the settings.

    Not where the optimizer is sharded (`is_complete` is false): each process then has a part of the state.
    """
    if not is_complete:
        yield
        return
    fresh = _describe_settings(optimizer, scheduler)
    yield
    _check_settings(_describe_settings(optimizer, scheduler), fresh, scheduler=scheduler)
    _check_parameters(optimizer)


def _describe_settings(optimizer: Any, scheduler: Any) -> dict[str, Any]:
    """Return the settings of the optimizer and the schedule, without what belongs to parameters."""
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    return copy.deepcopy({"param_groups": groups, "scheduler": scheduler.state_dict()})


def _check_settings(restored: dict[str, Any], fresh: dict[str, Any], *, scheduler: Any) -> None:
    for name, settings in fresh.items():
        if problem := _find_difference(restored[name], settings, path=name):
            raise ValueError(problem)
    for key in restored["scheduler"].keys() - fresh["scheduler"].keys():
        if hasattr(type(getattr(scheduler, "scheduler", scheduler)), key):
            raise ValueError(f"scheduler/{key} is not a setting")


def _check_parameters(optimizer: Any) -> None:
    is_adam = isinstance(getattr(optimizer, "optimizer", optimizer), torch.optim.Adam)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states = [optimizer.state.get(parameter, {}) for parameter in parameters]
    if any(states) and not all(states):
        raise ValueError("the optimizer has no state for some of the parameters")
    for number, (parameter, state) in enumerate(zip(parameters, states, strict=True)):
        if is_adam and state and not state.keys() >= _OF_ADAM:
            raise ValueError(f"the optimizer's state of parameter {number} lacks {sorted(_OF_ADAM - state.keys())[0]}")
        for key, value in state.items():
            if key in _LIKE_PARAMETER and getattr(value, "shape", None) not in (None, parameter.shape):
                raise ValueError(
                    f"{key} of parameter {number} has the shape {tuple(value.shape)}, not {tuple(parameter.shape)}"
                )


def _find_difference(found: Any, expected: Any, *, path: str) -> str | None:
    """Describe where two settings differ in kind; numbers only have to be numbers."""
    if isinstance(expected, dict):
        if not isinstance(found, dict) or not expected.keys() <= found.keys():
            return f"{path} lacks a setting"
        pairs = [(f"{path}/{key}", found[key], value) for key, value in expected.items()]
    elif isinstance(expected, list | tuple):
        if not isinstance(found, list | tuple) or len(found) != len(expected):
            return f"{path} does not have {len(expected)} values"
        pairs = [(f"{path}/{index}", *both) for index, both in enumerate(zip(found, expected, strict=True))]
    elif isinstance(expected, int | float | None):
        is_right = found is None or (
            isinstance(found, int | float) and (math.isfinite(found) or not math.isfinite(expected or 0))
        )
        return None if is_right else f"{path} is {str(found)[:50]!r}"
    elif isinstance(expected, str):
        return None if found == expected else f"{path} is {str(found)[:50]!r}"
    else:
        return None if type(found) is type(expected) else f"{path} is of type {type(found).__name__}"
    return next((problem for key, one, other in pairs if (problem := _find_difference(one, other, path=key))), None)
