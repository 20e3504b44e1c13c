import random

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import PaliGemmaProcessor

from quickstart.pretraining.samples import draw_image, draw_level, to_pixels
from quickstart.pretraining.tasks import ask
from quickstart.rendering.drawing import SIZE
from quickstart.rendering.levels import HARD, PLAIN
from quickstart.rendering.printed_numbers import is_held_out, numbers_in


@pytest.mark.parametrize("progress", [0.0, 0.05, 0.22, 0.28, 0.32, 0.9])
def test_no_sample_contains_a_held_out_number(progress: float) -> None:
    rng = random.Random(progress)
    seen = 0
    for _ in range(60):
        label, _, _ = draw_image(rng, progress)
        texts = [line.text for line in label.lines]
        questions = [ask("expand", label, rng) for _ in range(4)]
        texts += [question.prompt for question in questions if question is not None]
        for number in (number for text in texts for number in numbers_in(text)):
            assert not is_held_out(number)
            seen += 1
    assert seen > 200


def test_pixels_are_those_of_the_processor(processor: PaliGemmaProcessor) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8))
    expected = processor.image_processor(images=[image], return_tensors="pt")["pixel_values"][0]
    pixels = torch.from_numpy(to_pixels(image, size=56).copy()).permute(2, 0, 1).float().div(127.5).sub(1)
    torch.testing.assert_close(pixels, expected, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("progress", "plain", "hard"),
    [(0.0, 1.0, 0.0), (0.025, 0.5, 0.0125), (0.25, 0.0, 0.25), (0.5, 0.0, 0.5), (1.0, 0.0, 0.5)],
)
def test_images_become_harder(progress: float, plain: float, hard: float) -> None:
    rng = random.Random(0)
    levels = [draw_level(rng, progress) for _ in range(2000)]
    assert levels.count(HARD) / 2000 == pytest.approx(hard, abs=0.04)
    assert sum(level.fonts == PLAIN.fonts for level in levels) / 2000 == pytest.approx(plain, abs=0.04)
