"""Packed batches for pretraining: several questions share an image that does not attend to them.

With PaliGemma's own mask the image attends to the question, so each question needs the image to be encoded again. In a
packed row the image tokens attend to themselves only, and each question attends to the image and itself: six questions
cost 1.3 times as much as one. The other batches have one question per image, with PaliGemma's own mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PaliGemmaProcessor

from product_vqa.modeling.collator import IGNORED
from quickstart.pretraining.tasks import Question


@dataclass(frozen=True)
class TextBatch:
    input_ids: torch.Tensor  # (B, T) int64: image tokens, then each question and its answer
    position_ids: torch.Tensor  # (B, T), from 1; every question follows the image directly
    attention_mask: torch.Tensor  # (B, 1, T, T) float: 0 where a token attends to another, else the lowest float
    labels: torch.Tensor  # (B, T): IGNORED except on the answers and their end tokens

    def to(self, device: torch.device) -> "TextBatch":
        return TextBatch(
            input_ids=self.input_ids.to(device),
            position_ids=self.position_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            labels=self.labels.to(device),
        )


_IMAGE, _PADDING = 0, -1  # segments of a row; its questions are 1, 2, ...


def pack(questions: Sequence[Sequence[Question]], *, processor: PaliGemmaProcessor) -> TextBatch:
    """Make one row of each image's questions. An image with a single question attends to it, as in PaliGemma."""
    tokenizer = processor.tokenizer
    flat = [question for image_questions in questions for question in image_questions]
    prompts = tokenizer([f"{question.prompt}\n" for question in flat], add_special_tokens=False).input_ids
    answers = tokenizer([question.answer for question in flat], add_special_tokens=False).input_ids
    encoded = iter(zip(prompts, answers, strict=True))
    rows = [_make_row([next(encoded) for _ in image_questions], processor) for image_questions in questions]

    length = max(len(row.input_ids) for row in rows)
    labels = _pad([row.labels for row in rows], length, IGNORED)
    segments = _pad([row.segments for row in rows], length, _PADDING)
    return TextBatch(
        input_ids=_pad([row.input_ids for row in rows], length, tokenizer.pad_token_id),
        position_ids=_pad([row.position_ids for row in rows], length, 1),
        attention_mask=_attention_mask(segments, is_answer=labels != IGNORED),
        labels=labels,
    )


@dataclass
class _Row:
    """An image and its questions; every list has one entry per token."""

    input_ids: list[int]
    position_ids: list[int]
    labels: list[int]
    segments: list[int]


def _make_row(encoded: Sequence[tuple[list[int], list[int]]], processor: PaliGemmaProcessor) -> _Row:
    """`encoded` has the tokens of (prompt, answer) for each question, without special tokens."""
    image_length = processor.image_seq_length
    row = _Row(
        input_ids=[processor.image_token_id] * image_length,
        position_ids=list(range(1, image_length + 1)),
        labels=[IGNORED] * image_length,
        segments=[_IMAGE] * image_length,
    )
    for segment, (prompt, answer) in enumerate(encoded, start=1):
        prompt = [processor.tokenizer.bos_token_id, *prompt]
        answer = [*answer, processor.tokenizer.eos_token_id]
        length = len(prompt) + len(answer)
        row.input_ids += prompt + answer
        row.position_ids += range(image_length + 1, image_length + 1 + length)
        row.labels += [IGNORED] * len(prompt) + answer
        row.segments += [segment] * length
    return row


def _pad(rows: list[list[int]], length: int, value: int) -> torch.Tensor:
    return torch.tensor([row + [value] * (length - len(row)) for row in rows])


def _attention_mask(segments: torch.Tensor, *, is_answer: torch.Tensor) -> torch.Tensor:
    """(B, 1, T, T): everything attends to the image, a prompt to itself, an answer to its prompt and what precedes."""
    order = torch.arange(segments.shape[1])
    is_image = segments == _IMAGE
    is_prompt = (segments > _IMAGE) & ~is_answer
    is_single = segments.max(dim=1).values == 1
    # [row, token, attended token]
    is_same_segment = segments[:, :, None] == segments[:, None, :]
    is_earlier = order[:, None] >= order[None, :]
    attends = is_same_segment & (~is_answer[:, None, :] | (is_answer[:, :, None] & is_earlier))
    attends |= is_image[:, None, :]
    attends |= is_single[:, None, None] & is_image[:, :, None] & is_prompt[:, None, :]
    mask = torch.zeros(attends.shape).masked_fill(~attends, torch.finfo(torch.float32).min)
    return mask[:, None]
