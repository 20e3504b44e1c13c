"""An optimizer and a schedule are restored if they fit the run's parameters and settings."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

from product_vqa.errors import InputError
from training.optimizer_state import _find_difference, checked_restore, checkpoint_errors


def make_optimizer(kind: Any = torch.optim.AdamW, *, steps: int = 0) -> tuple[Any, Any]:
    parameters = [torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(4))]
    optimizer = kind(parameters, lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda number: 1 / (number + 3))
    for _ in range(steps):
        sum(parameter.square().sum() for parameter in parameters).backward()
        optimizer.step()
        scheduler.step()
    return optimizer, scheduler


def restore(
    change: Callable[[dict[str, Any], dict[str, Any]], Any] = lambda *_: None, kind: Any = torch.optim.AdamW
) -> None:
    """Restore what two steps left, after a change of it."""
    states = [copy.deepcopy(one.state_dict()) for one in make_optimizer(kind, steps=2)]
    change(*states)
    optimizer, scheduler = make_optimizer(kind)
    with checked_restore(optimizer, scheduler):
        optimizer.load_state_dict(states[0])
        scheduler.load_state_dict(states[1])


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Adafactor, torch.optim.NAdam])
def test_what_a_run_saved_is_restored(kind: Any) -> None:
    restore(kind=kind)


def test_before_the_first_step_there_is_no_state() -> None:
    optimizer, scheduler = make_optimizer()
    with checked_restore(optimizer, scheduler):
        optimizer.load_state_dict(make_optimizer()[0].state_dict())


def test_a_metric_that_is_infinite_at_the_start_may_be_so_later() -> None:
    optimizer, _ = make_optimizer()
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    for metric in (float("inf"), 0.5):
        with checked_restore(optimizer, scheduler):
            scheduler.step(metric)


WRONG: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "a shape": (lambda o, s: o["state"][0].update(exp_avg=torch.ones(6)), r"exp_avg of parameter 0 has .*\(6,\), not"),
    "a tensor less": (lambda o, s: o["state"][1].pop("exp_avg_sq"), "state of parameter 1 lacks exp_avg_sq"),
    "a parameter less": (lambda o, s: o["state"].pop(1), "no state for some of the parameters"),
    "a rate": (lambda o, s: o["param_groups"][0].update(lr="fast"), "param_groups/0/lr is 'fast'"),
    "NaN": (lambda o, s: o["param_groups"][0].update(lr=float("nan")), "param_groups/0/lr is 'nan'"),
    "betas": (lambda o, s: o["param_groups"][0].update(betas=(0.9,)), "param_groups/0/betas does not have 2 values"),
    "betas of text": (lambda o, s: o["param_groups"][0].update(betas="ab"), "betas does not have 2 values"),
    "a setting": (lambda o, s: o["param_groups"][0].update(foreach=[1]), r"foreach is '\[1\]'"),
    "a method": (lambda o, s: s.update(step=3), "scheduler/step is not a setting"),
    "a counter": (lambda o, s: s.update(last_epoch="2"), "scheduler/last_epoch is '2'"),
    "rates": (lambda o, s: s.update(base_lrs={}), "scheduler/base_lrs does not have 1 values"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_named(case: str) -> None:
    change, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        restore(change)


def test_a_sharded_optimizer_is_not_checked() -> None:
    optimizer, scheduler = make_optimizer()
    with checked_restore(optimizer, scheduler, is_complete=False):
        optimizer.param_groups[0]["lr"] = "fast"


@pytest.mark.parametrize(
    ("found", "expected", "problem"),
    [
        (torch.tensor(2.0), torch.tensor(1.0), None), (2.0, torch.tensor(1.0), "x is of type float"),
        ("a", "a", None), ("b", "a", "x is 'b'"), ({"a": 1, "b": 2}, {"a": 3}, None), ({"b": 2}, {"a": 3}, "x lacks"),
        (None, 3, None), (True, None, None), ("on", None, "x is 'on'"), ([1], (2,), None),
    ],
)  # fmt: skip
def test_settings_are_compared_by_kind(found: Any, expected: Any, problem: str | None) -> None:
    difference = _find_difference(found, expected, path="x")
    assert difference is None if problem is None else difference is not None and difference.startswith(problem)


def test_what_loading_raises_is_one_line_with_the_remedy_also_for_a_state_from_the_hub() -> None:
    for error, reason in (
        (KeyError("x\ny"), r"KeyError: .*"),
        (pickle.UnpicklingError("run torch.load with weights_only=False"), "a file in it is damaged, or holds more"),
    ):
        with (
            pytest.raises(InputError, match=rf"checkpoint c cannot be loaded \({reason}") as raised,
            checkpoint_errors("c"),
        ):
            raise error
        assert "\n" not in str(raised.value) and "from the Hub, also set `resume_from_hub` false" in str(raised.value)
