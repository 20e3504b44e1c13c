"""Ways to find where an answer was read, which `benchmarks.attribution` compares with the one of the reader.

Each returns a heat map (rows, columns) with a value for each image token, from the upper left.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import PaliGemmaForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from product_vqa.modeling.attribute_reader import AttributeReader
from product_vqa.modeling.attribution import (
    answer_log_odds,
    image_grid,
    make_answer_batch,
    make_heat_map,
    sum_per_patch,
)
from product_vqa.modeling.collator import IGNORED, Batch, Row

BATCH_SIZE = 32  # of occluded images


def pixel_gradient(reader: AttributeReader, row: Row) -> np.ndarray:
    """The reader's own: the length of the gradient of the answer's log odds, over the pixels of a patch."""
    heat = make_heat_map(reader.model, row, processor=reader.processor, schema=reader.schema)
    assert heat is not None
    return heat


def pixel_gradient_times_input(reader: AttributeReader, row: Row) -> np.ndarray:
    """The gradient times the pixel's distance from the image's mean colour: absolute values, summed per patch."""
    batch, labels = _inputs(reader, row)
    pixels = batch["pixel_values"].requires_grad_()
    (gradient,) = torch.autograd.grad(answer_log_odds(reader.model, batch, labels).sum(), pixels)
    product = gradient * (pixels - pixels.mean((2, 3), keepdim=True)).detach()
    return sum_per_patch(product[0].abs().sum(0), reader.model)


def feature_gradient(reader: AttributeReader, row: Row) -> np.ndarray:
    """The length of the gradient of each image token, after the projector."""
    _, gradient = _feature_gradient(reader, row)
    return _grid(gradient.norm(dim=-1), reader.model)


def feature_gradient_times_input(reader: AttributeReader, row: Row) -> np.ndarray:
    """The absolute inner product of each image token, after the projector, with its gradient."""
    features, gradient = _feature_gradient(reader, row)
    return _grid((gradient * features).sum(-1).abs(), reader.model)


def attention(reader: AttributeReader, row: Row) -> np.ndarray:
    """The attention of the answer's tokens to each image token: the mean over tokens, layers and heads."""
    weights, positions = _attentions(reader, row)
    return _grid(weights.mean((0, 1))[positions].mean(0), reader.model)


def attention_rollout(reader: AttributeReader, row: Row) -> np.ndarray:
    """The product of the layers' attention, each half an identity for the residual connection (Abnar and Zuidema)."""
    weights, positions = _attentions(reader, row)
    identity = torch.eye(weights.shape[-1])
    rolled = identity
    for layer in weights.mean(1):
        rolled = (layer + identity) / 2 @ rolled
    return _grid(rolled[positions].mean(0), reader.model)


@torch.no_grad()
def occlusion(reader: AttributeReader, row: Row) -> np.ndarray:
    """How much the log odds fall if a square of twice the size around a patch has the image's mean colour."""
    batch, labels = _inputs(reader, row)
    image = batch.pop("pixel_values")
    (grid, patch), size = image_grid(reader.model), image.shape[-1]
    mean = image.mean((2, 3), keepdim=True)
    occluded = []
    for cell in range(grid * grid):
        top, left = (number * patch - patch // 2 for number in divmod(cell, grid))
        copy = image.clone()
        copy[:, :, max(0, top) : min(size, top + 2 * patch), max(0, left) : min(size, left + 2 * patch)] = mean
        occluded.append(copy)
    odds = [
        answer_log_odds(reader.model, _repeat(batch, len(images)) | {"pixel_values": torch.cat(images)}, labels)
        for images in (occluded[start : start + BATCH_SIZE] for start in range(0, len(occluded), BATCH_SIZE))
    ]
    return -torch.cat(odds).view(grid, grid).numpy()


METHODS: dict[str, Callable[[AttributeReader, Row], np.ndarray]] = {
    function.__name__: function
    for function in (
        pixel_gradient,
        pixel_gradient_times_input,
        feature_gradient,
        feature_gradient_times_input,
        attention,
        attention_rollout,
        occlusion,
    )
}


def _inputs(reader: AttributeReader, row: Row) -> tuple[Batch, torch.Tensor]:
    return make_answer_batch(reader.model, row, processor=reader.processor, schema=reader.schema)


def _repeat(batch: Batch, number: int) -> Batch:
    return {name: tensor.expand(number, -1) for name, tensor in batch.items()}


def _grid(values: torch.Tensor, model: PaliGemmaForConditionalGeneration) -> np.ndarray:
    """The values of the image tokens, which are the first ones, as a grid."""
    grid, _ = image_grid(model)
    heat: np.ndarray = values.flatten()[: grid * grid].view(grid, grid).detach().float().numpy()
    return heat


def _feature_gradient(reader: AttributeReader, row: Row) -> tuple[torch.Tensor, torch.Tensor]:
    """The image tokens after the projector, and their gradients: (N, D)."""
    batch, labels = _inputs(reader, row)
    features = reader.model.get_image_features(batch.pop("pixel_values")).pooler_output.detach().requires_grad_()
    inputs: Any = batch | {"mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=features)}}
    odds = answer_log_odds(reader.model, inputs, labels)
    (gradient,) = torch.autograd.grad(odds.sum(), features)
    return features[0].detach(), gradient[0]


@torch.no_grad()
def _attentions(reader: AttributeReader, row: Row) -> tuple[torch.Tensor, torch.Tensor]:
    """The attention weights (layers, heads, T, T), and the positions whose logits are those of the answer's tokens."""
    batch, labels = _inputs(reader, row)
    before = reader.model.config._attn_implementation
    reader.model.set_attn_implementation("eager")  # others do not return the weights
    try:
        weights = reader.model(**batch, output_attentions=True).attentions
    finally:
        reader.model.set_attn_implementation(before)
    return torch.cat(weights).float(), (labels != IGNORED).nonzero()[:-1, 0] - 1
