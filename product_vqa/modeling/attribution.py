"""Where in an image an answer was read: the gradient of the answer with respect to the pixels, per image token.

The score of an answer is the sum of its tokens' log odds, each against all other tokens. Unlike log probabilities,
they have a gradient where the model is sure. The heat of an image token is the length of the gradient of its patch's
pixels. The gradient goes through the vision tower, because a tower mixes patches: an image feature need not be about
the patch at its position. `benchmarks.attribution` compares this with other methods.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from product_vqa.modeling.collator import IGNORED, Batch, Row, make_training_batch, normalize_images
from product_vqa.task.attributes import Schema

if TYPE_CHECKING:
    from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

REGION_SHARE = 0.2  # of the highest heat; `benchmarks.attribution` measures how the region fits


@dataclass(frozen=True)
class AnswerRegion:
    """Which part of an image a prediction was read from.

    `heat_map` (rows, columns) float32 has a value for each image token, from the upper left: 16 x 16 at 224 px, 32 x
    32 at 448. Values are at least 0, and their sum is 1. `box` (left, top, right, bottom) is the region around the
    hottest one in pixels of the given image, upright; `right` and `bottom` are not part of it. Both are None for an
    empty prediction, which was read from nowhere, and if the gradients are not finite.
    """

    prediction: str
    heat_map: np.ndarray | None = None
    box: tuple[int, int, int, int] | None = None


def make_heat_map(
    model: PaliGemmaForConditionalGeneration, row: Row, *, processor: PaliGemmaProcessor, schema: Schema
) -> np.ndarray | None:
    """Return the heat map of a row's answer (`image`, `entity_name`, `entity_value`), see `AnswerRegion`.

    One forward and one backward pass. None if a gradient is not finite, or all are 0.
    """
    with torch.inference_mode(False), torch.enable_grad(), _frozen(model):
        batch, labels = make_answer_batch(model, row, processor=processor, schema=schema)
        pixel_values = batch["pixel_values"].requires_grad_()
        odds = answer_log_odds(model, batch, labels)
        (gradient,) = torch.autograd.grad(odds.sum(), pixel_values)
    heat = np.sqrt(sum_per_patch(gradient[0].double().square().sum(0), model))
    total = heat.sum()
    if not np.isfinite(total) or total == 0:  # float16 may overflow, and underflow
        return None
    return (heat / total).astype(np.float32)


def sum_per_patch(pixels: torch.Tensor, model: PaliGemmaForConditionalGeneration) -> np.ndarray:
    """Return the sums of (H, W) pixels within each patch of the model: (rows, columns)."""
    grid, patch = image_grid(model)
    pixels = pixels[: grid * patch, : grid * patch]
    summed: np.ndarray = pixels.double().reshape(grid, patch, grid, patch).sum((1, 3)).cpu().numpy()
    return summed


def find_box(heat_map: np.ndarray, *, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the box (left, top, right, bottom) around the hottest cell, in pixels of an image of `size` (w, h).

    It encloses the cells with at least `REGION_SHARE` of the highest heat that are connected with the hottest one,
    also across corners.
    """
    rows, columns = heat_map.shape
    is_hot = heat_map >= REGION_SHARE * heat_map.max()
    reached = np.zeros_like(is_hot)
    waiting = [divmod(int(heat_map.argmax()), columns)]
    while waiting:
        row, column = waiting.pop()
        if is_hot[row, column] and not reached[row, column]:
            reached[row, column] = True
            waiting += [
                (near_row, near_column)
                for near_row in range(max(0, row - 1), min(rows, row + 2))
                for near_column in range(max(0, column - 1), min(columns, column + 2))
            ]
    found_rows, found_columns = np.nonzero(reached)
    width, height = size
    return (
        int(found_columns.min()) * width // columns,
        int(found_rows.min()) * height // rows,
        math.ceil((int(found_columns.max()) + 1) * width / columns),
        math.ceil((int(found_rows.max()) + 1) * height / rows),
    )


def make_answer_batch(
    model: PaliGemmaForConditionalGeneration, row: Row, *, processor: PaliGemmaProcessor, schema: Schema
) -> tuple[Batch, torch.Tensor]:
    """Return the model's inputs for a row with its answer, and the labels (T,) of its tokens, with the end token."""
    batch = make_training_batch([row], processor=processor, schema=schema)
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    labels = batch.pop("labels")[0]
    batch["pixel_values"] = normalize_images(batch["pixel_values"], processor=processor, dtype=model.dtype)
    return batch, labels


def answer_log_odds(model: PaliGemmaForConditionalGeneration, inputs: Batch, labels: torch.Tensor) -> torch.Tensor:
    """Return the sum of the log odds of an answer's tokens, without the end token: (B,) float32.

    `inputs` are those of the model, for one or several images and the same question and answer.
    """
    positions = (labels != IGNORED).nonzero()[:-1, 0]
    logits = model(**inputs, logits_to_keep=positions - 1).logits.float()
    tokens = labels[positions].expand(len(logits), -1)[:, :, None]
    own = logits.gather(2, tokens)[:, :, 0]
    others = logits.scatter(2, tokens, float("-inf")).logsumexp(-1)
    return (own - others).sum(1)


def image_grid(model: PaliGemmaForConditionalGeneration) -> tuple[int, int]:
    """Return the number of image tokens in a row, and in a column, and the size of their patches in pixels."""
    config: Any = model.config.vision_config
    return config.image_size // config.patch_size, config.patch_size


@contextmanager
def _frozen(model: torch.nn.Module) -> Iterator[None]:
    """No gradients for the weights: what they need would be stored, and nobody asks for them."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_()
