"""Batches for pretraining: several questions share a picture, as long as the picture does not see them.

PaliGemma's mask lets image and question see each other, so each question needs the picture encoded anew. Packed, the
image's tokens see only themselves and each question sees the image and itself: six questions for the price of 1.3.
The rest of the batches ask one question, under PaliGemma's own mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PaliGemmaProcessor

from product_vqa.modeling.collator import IGNORED
from quickstart.reading_tasks import Question


@dataclass(frozen=True)
class TextBatch:
    input_ids: torch.Tensor  # (B, T) int64: image tokens, then each question and its answer
    position_ids: torch.Tensor  # (B, T), from 1; every question stands directly behind the image
    attention_mask: torch.Tensor  # (B, 1, T, T) float: 0 where a token sees another, else the lowest float
    labels: torch.Tensor  # (B, T), -100 but on answers and their end tokens

    def to(self, device: torch.device) -> "TextBatch":
        return TextBatch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def pack(questions: Sequence[Sequence[Question]], *, processor: PaliGemmaProcessor) -> TextBatch:
    """One row for each picture's questions; a picture with a single one sees it, as PaliGemma does."""
    tokenizer, image_tokens = processor.tokenizer, processor.image_seq_length
    flat = [question for row in questions for question in row]
    prompts = tokenizer([f"{question.prompt}\n" for question in flat], add_special_tokens=False).input_ids
    answers = tokenizer([question.answer for question in flat], add_special_tokens=False).input_ids
    encoded = iter(zip(prompts, answers, strict=True))

    rows = []
    for row in questions:
        ids, labels = [processor.image_token_id] * image_tokens, [IGNORED] * image_tokens
        positions, segments = list(range(1, image_tokens + 1)), [0] * image_tokens
        for segment in range(1, len(row) + 1):
            prompt, answer = next(encoded)
            prompt, answer = [tokenizer.bos_token_id, *prompt], [*answer, tokenizer.eos_token_id]
            ids += prompt + answer
            labels += [IGNORED] * len(prompt) + answer
            length = len(prompt) + len(answer)
            positions += range(image_tokens + 1, image_tokens + 1 + length)
            segments += [segment] * length
        rows.append((ids, positions, labels, segments))

    length = max(len(ids) for ids, *_ in rows)
    fills = (tokenizer.pad_token_id, 1, IGNORED, -1)
    ids, positions, labels, segments = (
        torch.tensor([row[part] + [fill] * (length - len(row[part])) for row in rows])
        for part, fill in enumerate(fills)
    )
    is_answer = labels != IGNORED
    order = torch.arange(length)
    # [row, token, seen token]
    same = segments[:, :, None] == segments[:, None, :]
    earlier = order[:, None] >= order[None, :]
    sees = same & (~is_answer[:, None, :] | (is_answer[:, :, None] & earlier))
    sees |= (segments == 0)[:, None, :]
    single = torch.tensor([len(row) == 1 for row in questions])[:, None, None]
    sees |= single & (segments == 0)[:, :, None] & ((segments == 1) & ~is_answer)[:, None, :]
    mask = torch.zeros(sees.shape).masked_fill(~sees, torch.finfo(torch.float32).min)
    return TextBatch(ids, positions, mask[:, None], labels)
