"""The accuracy of a small PaliGemma: the share of correct answers to each pretraining task, on unseen images.

All numbers of several digits on these images are held out (see quickstart.rendering.printed_numbers). An answer is
correct if each of its tokens, including the end token, is the most likely one. That is when greedy generation gives
exactly this answer.
"""

import io
import random
from collections.abc import Sequence

import torch
from PIL import Image
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from product_vqa.modeling.collator import IGNORED
from quickstart.pretraining.tasks import KINDS, Question, ask
from quickstart.rendering.drawing import draw, encode
from quickstart.rendering.general_text import make_general_label
from quickstart.rendering.label_text import make_label
from quickstart.rendering.levels import Level


def measure_accuracy(
    model: PaliGemmaForConditionalGeneration,
    *,
    processor: PaliGemmaProcessor,
    rows: int,
    level: Level,
    seed: int = 0,
    kinds: Sequence[str] = KINDS,
) -> dict[str, float]:
    """The share of correct answers for each kind of question, over `rows` images each."""
    was_training = model.training
    model.eval()
    accuracy = {}
    for kind in kinds:
        questions = make_questions(kind, rows=rows, level=level, seed=seed)
        accuracy[kind] = count_correct(model, questions, processor=processor) / rows
    model.train(was_training)
    return accuracy


def make_questions(kind: str, *, rows: int, level: Level, seed: int) -> list[tuple[Image.Image, Question]]:
    """`rows` images with a question of this kind each. Their numbers of several digits never occur in pretraining."""
    questions: list[tuple[Image.Image, Question]] = []
    image_number = 0
    while len(questions) < rows:
        rng = random.Random(f"reading/{seed}/{kind}/{image_number}")
        image_number += 1
        make = make_general_label if kind == "value" else make_label
        label = make(rng, level=level, held_out=True)
        question = ask(kind, label, rng, held_out=True)
        if question is not None:
            image, _ = draw(label, rng, level=level)
            questions.append((Image.open(io.BytesIO(encode(image, rng, level=level))), question))
    return questions


def count_correct(
    model: PaliGemmaForConditionalGeneration,
    questions: list[tuple[Image.Image, Question]],
    *,
    processor: PaliGemmaProcessor,
    batch_size: int = 50,
) -> int:
    """How many of these questions the model answers correctly."""
    correct = 0
    for start in range(0, len(questions), batch_size):
        part = questions[start : start + batch_size]
        batch = processor(
            images=[image for image, _ in part],
            text=[f"<image>{question.prompt}" for _, question in part],
            suffix=[question.answer for _, question in part],
            return_tensors="pt",
            padding=True,
            padding_side="right",
        ).to(model.device)
        labels = batch.pop("labels").masked_fill(batch["attention_mask"] == 0, IGNORED)[:, 1:]
        batch["pixel_values"] = batch["pixel_values"].to(model.dtype)
        with torch.inference_mode():
            predicted = model(**batch, use_cache=False).logits[:, :-1].argmax(-1)
        correct += int(((predicted == labels) | (labels == IGNORED)).all(dim=1).sum())
    return correct
