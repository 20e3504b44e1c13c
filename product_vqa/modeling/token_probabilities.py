"""The model's own probabilities of tokens, over its whole vocabulary: what other engines call log probabilities.

The confidence of an answer is another thing: it is renormalized over the tokens that a valid answer may have.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from product_vqa.modeling.collator import IGNORED, Batch, Row, make_training_batch, normalize_images
from product_vqa.task.attributes import Schema


@dataclass(frozen=True)
class TokenProbability:
    """A token, as text, and the log of its probability."""

    token: str
    log_p: float


@dataclass(frozen=True)
class AnswerToken:
    """A token of an answer with its log probability, and the most likely tokens at its position, most likely first."""

    token: str
    log_p: float
    most_likely: tuple[TokenProbability, ...]


@torch.inference_mode()
def first_token_log_p(
    model: PaliGemmaForConditionalGeneration, batch: Batch, *, processor: PaliGemmaProcessor
) -> torch.Tensor:
    """Return the log probability of each token as the first one of each row's answer: (B, V) float32, on the CPU.

    `batch` is one of `make_generation_batch`.
    """
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    mask = batch["attention_mask"]
    pixel_values = normalize_images(batch["pixel_values"], processor=processor, dtype=model.dtype)
    logits = model(
        input_ids=batch["input_ids"],
        token_type_ids=batch["token_type_ids"],
        attention_mask=mask,
        pixel_values=pixel_values[batch["image_index"]],
        position_ids=mask.cumsum(-1).clamp(min=1),  # as in `generate_answers`
        logits_to_keep=1,
    ).logits[:, -1]
    return logits.float().log_softmax(-1).cpu()


@torch.inference_mode()
def answer_token_log_p(
    model: PaliGemmaForConditionalGeneration,
    row: Row,
    *,
    processor: PaliGemmaProcessor,
    schema: Schema,
    num_most_likely: int,
) -> list[AnswerToken]:
    """Return the log probabilities of the tokens of a row's answer (`entity_value`), with its end token.

    `row` has what `make_training_batch` needs. Each token is given those before it, as in training.
    """
    batch = make_training_batch([row], processor=processor, schema=schema)
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    labels = batch.pop("labels")[0]
    positions = (labels != IGNORED).nonzero()[:, 0]
    batch["pixel_values"] = normalize_images(batch["pixel_values"], processor=processor, dtype=model.dtype)
    log_p = model(**batch, logits_to_keep=positions - 1).logits[0].float().log_softmax(-1)
    best, tokens = log_p.topk(num_most_likely) if num_most_likely else (log_p[:, :0], log_p[:, :0].long())
    answer = labels[positions]
    return [
        AnswerToken(
            token_text(processor.tokenizer, token),
            own,
            tuple(
                TokenProbability(token_text(processor.tokenizer, other), other_log_p)
                for other, other_log_p in zip(others, others_log_p, strict=True)
            ),
        )
        for token, own, others, others_log_p in zip(
            answer.tolist(),
            log_p.gather(1, answer[:, None])[:, 0].tolist(),
            tokens.tolist(),
            best.tolist(),
            strict=True,
        )
    ]


def token_text(tokenizer: Any, token: int) -> str:
    """The text of a token; a space that belongs to it is a space, and a special token has its name."""
    return str(tokenizer.convert_ids_to_tokens(token)).replace("▁", " ")


def token_texts(tokenizer: Any, vocabulary: int) -> Sequence[str]:
    """The texts of the first `vocabulary` tokens; "" for those that the tokenizer does not have."""
    return [str(token or "").replace("▁", " ") for token in tokenizer.convert_ids_to_tokens(list(range(vocabulary)))]
