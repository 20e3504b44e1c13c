"""The samples of a pretraining step: images, patch targets and questions, easy at first and harder later.

What a step shows depends on the run's progress, from 0 to 1, so the curriculum fits a run of any length.
"""

import io
import random
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from quickstart.pretraining.options import PATCH_SIZE
from quickstart.pretraining.patch_targets import patch_targets
from quickstart.pretraining.tasks import Question, ask, ask_line, ask_several
from quickstart.rendering.drawing import Character, draw, encode
from quickstart.rendering.general_text import GeneralLabel, make_general_label
from quickstart.rendering.label_text import Label, make_label
from quickstart.rendering.levels import HARD, PLAIN, STANDARD, Level

# All of these are values of the run's progress.
ANSWERS_FROM = 0.13  # the model answers questions from here on; before, only the vision tower is trained
STANDARD_FROM = 0.05  # up to here the share of plain images falls linearly to 0
HARD_FROM = 0.5  # up to here the share of hard images grows linearly to HARD_SHARE; all others are standard
HARD_SHARE = 0.5
GENERAL_SHARE = 0.5  # of the images: those of labels with invented keys
LINES_UNTIL = ((0.17, 1), (0.22, 2), (0.28, 3))  # the number of lines per image up to each value

MAX_QUESTIONS = 6  # per image
# Of single questions; `value` has the weight of `get`.
_WEIGHTS_BY_KIND = {"get": 50, "line": 20, "after": 10, "all": 6, "expand": 10, "define": 4}


@dataclass(frozen=True)
class Batch:
    pixels: torch.Tensor  # (B, 3, H, W) float32 in [-1, 1]
    targets: torch.Tensor  # (heads, B, N) int64, see quickstart.pretraining.patch_targets
    questions: list[list[Question]]  # of each image


def draw_batch(
    rng: random.Random, progress: float, *, batch_size: int, image_size: int, is_packed: bool, device: torch.device
) -> Batch:
    """Draw images with several questions each if `is_packed`, otherwise with one."""
    images = []
    targets = []
    questions = []
    for _ in range(batch_size):
        label, image, characters = draw_image(rng, progress)
        images.append(to_pixels(image, size=image_size))
        targets.append(patch_targets(label, characters, grid=image_size // PATCH_SIZE))
        if is_packed:
            questions.append(ask_several(label, rng, count=MAX_QUESTIONS))
        else:
            (kind,) = rng.choices(list(_WEIGHTS_BY_KIND), list(_WEIGHTS_BY_KIND.values()))
            kind = "value" if kind == "get" and isinstance(label, GeneralLabel) else kind
            questions.append([ask(kind, label, rng) or ask_line(label, rng)])
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    return Batch(pixels.to(device), torch.from_numpy(np.stack(targets, axis=1)).to(device), questions)


def draw_image(rng: random.Random, progress: float) -> tuple[Label, Image.Image, tuple[Character, ...]]:
    """A label as difficult as the run's progress asks for, its image of 224 px, and the image's characters."""
    level = draw_level(rng, progress)
    line_count = _line_count(progress)
    if line_count is not None and rng.random() > 0.15:
        level = replace(level, line_counts=(line_count,), brand_words=(0, 1) if line_count > 1 else (0,))
    make = make_general_label if rng.random() < GENERAL_SHARE else make_label
    label = make(rng, level=level)
    image, characters = draw(label, rng, level=level)
    if rng.random() < 0.3:  # compression is hardly visible at this size, and encoding takes as long as drawing
        image = Image.open(io.BytesIO(encode(image, rng, level=level)))
    return label, image, characters


def draw_level(rng: random.Random, progress: float) -> Level:
    """A level of difficulty: plain ones at first, more and more hard ones later."""
    if rng.random() >= progress / STANDARD_FROM:
        return replace(PLAIN, line_counts=STANDARD.line_counts)
    return HARD if rng.random() < HARD_SHARE * min(1.0, progress / HARD_FROM) else STANDARD


def _line_count(progress: float) -> int | None:
    """The number of lines that most images have, or None where it is the level's."""
    if progress < ANSWERS_FROM:
        return None
    return next((count for until, count in LINES_UNTIL if progress < until), None)


def to_pixels(image: Image.Image, *, size: int) -> np.ndarray:
    """(size, size, 3) uint8: bit for bit what the processor computes, in a quarter of its time."""
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
