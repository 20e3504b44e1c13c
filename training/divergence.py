"""Detect divergence: losses, gradients or weights that are not finite, and losses that explode, stop a run."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.distributed.tensor import DTensor

from product_vqa.errors import InputError


class DivergenceError(InputError):
    """Raised if a loss, a gradient or a weight is not finite, or a loss explodes."""


@dataclass(frozen=True)
class _MicroBatch:
    step: int
    loss: torch.Tensor  # per token
    row_index: torch.Tensor | None  # the `index` of its rows


class DivergenceDetector:
    """Collects what each step computed and checks it later, because reading a value would make a GPU wait."""

    def __init__(self, *, vocab_size: int) -> None:
        self._max_loss = 3 * math.log(vocab_size)  # three times the loss of guessing at random
        self._micro_batches: list[_MicroBatch] = []
        self._gradient_norms: dict[int, torch.Tensor | float] = {}  # by step
        self._checked_step = 0

    def add_loss(self, loss: torch.Tensor, *, step: int, row_index: torch.Tensor | None) -> None:
        """Add the loss per token of a micro-batch."""
        self._micro_batches.append(_MicroBatch(step, loss, row_index))

    def add_gradient_norm(self, norm: torch.Tensor | float, *, step: int) -> None:
        """Add the norm of a step's gradient. At the end of an epoch the trainer adds the last one a second time."""
        if step > self._checked_step:
            self._gradient_norms[step] = norm

    def check(self) -> None:
        """Check all that was added since the last call.

        Raises DivergenceError, naming the rows, if a loss or a gradient is not finite or a loss has exploded. The
        first failure is reported: it is the cause of all later ones.
        """
        batches, self._micro_batches = self._micro_batches, []
        norms, self._gradient_norms = self._gradient_norms, {}
        self._checked_step = max(norms, default=self._checked_step)
        losses = torch.stack([batch.loss for batch in batches]).tolist() if batches else []
        for step in sorted({batch.step for batch in batches} | norms.keys()):
            for batch, loss in zip(batches, losses, strict=True):
                if batch.step == step and not loss <= self._max_loss:  # NaN is never <=
                    raise DivergenceError(
                        f"the loss is {loss:.4g} per token at step {step}, in the batch of the rows with index "
                        f"{_format_rows([batch])}. Training stopped; the checkpoints are unaffected. Check these "
                        "rows, or lower `learning_rate` or `max_grad_norm`; rerun to resume from the last checkpoint"
                    )
            norm = _to_float(norms.get(step, 0.0))
            if not math.isfinite(norm):
                rows = _format_rows([batch for batch in batches if batch.step == step])
                raise DivergenceError(
                    f"the gradient norm is {norm:.4g} at step {step}, though the loss is finite, in the batches of "
                    f"the rows with index {rows}. Training stopped; the checkpoints are unaffected. Try `dtype` "
                    "float32 with `bf16` false, or lower `learning_rate`; rerun to resume from the last checkpoint"
                )


def check_weights(model: torch.nn.Module, *, step: int, gather: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Raises DivergenceError, on all processes, if a trained weight is not finite on one of them (`gather`)."""
    weights = [
        parameter.to_local() if isinstance(parameter, DTensor) else parameter.detach()
        for parameter in model.parameters()
        if parameter.requires_grad
    ]
    are_finite = torch.stack([weight.isfinite().all() for weight in weights]).all()
    if not gather(are_finite.float()).bool().all():
        raise DivergenceError(
            f"the adapter has weights that are not finite after step {step}. Training stopped before they were "
            "saved. Lower `learning_rate`; rerun to resume from the last checkpoint"
        )


def _to_float(norm: torch.Tensor | float) -> float:
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def _format_rows(batches: list[_MicroBatch]) -> str:
    indexes = [index for batch in batches if batch.row_index is not None for index in batch.row_index.tolist()]
    return ", ".join(map(str, indexes)) or "unknown"
