"""Answers, many at a time: generated, parsed, put into the canonical form, each with its probability."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from product_vqa.entities import is_suitable
from product_vqa.paligemma import Row, make_generation_batch
from product_vqa.quantity import Quantity, format_number, format_quantity, parse_quantity

# One token a digit: `12345.678 ` and `imperial gallon` fit.
MAX_NEW_TOKENS = 16


@dataclass(frozen=True)
class Answer:
    """What the model said about one picture, and what of it can go out."""

    text: str  # as generated
    quantity: Quantity | None  # None where the text is no `number unit` in a unit that suits the entity
    confidence: float  # probability of the generated tokens, the end token included: 0..1

    @property
    def prediction(self) -> str:
        """As in a submission: `500.0 gram`, or "" for an answer that is not valid."""
        return format_quantity(self.quantity) if self.quantity else ""

    @property
    def value(self) -> str:
        return format_number(self.quantity.number) if self.quantity else ""

    @property
    def unit(self) -> str:
        return self.quantity.unit if self.quantity else ""


def parse_answer(text: str, *, entity_name: str, confidence: float) -> Answer:
    """An answer that parses to a unit of the asked entity keeps its quantity; any other goes out empty."""
    try:
        quantity = parse_quantity(text)
    except ValueError:
        quantity = None
    if quantity is not None and not is_suitable(quantity.unit, entity_name):
        quantity = None
    return Answer(text=text, quantity=quantity, confidence=confidence)


@torch.inference_mode()
def generate_answers(
    model: PaliGemmaForConditionalGeneration, rows: Sequence[Row], *, processor: PaliGemmaProcessor
) -> list[Answer]:
    """Answer each row (`image`, `entity_name`) greedily, all in one batch.

    An answer depends on its own row only, up to rounding: at float32 its probability moves by less than 1e-5 with the
    batch that it stands in.
    """
    batch = make_generation_batch(rows, processor=processor)
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    batch["pixel_values"] = batch["pixel_values"].to(model.dtype)
    output = model.generate(
        **batch, max_new_tokens=MAX_NEW_TOKENS, do_sample=False, return_dict_in_generate=True, output_logits=True
    )
    new_tokens = output.sequences[:, batch["input_ids"].shape[1] :]
    texts = processor.tokenizer.batch_decode(new_tokens, skip_special_tokens=True)
    # (new tokens, batch, vocabulary) -> the probability of what was chosen; pads after the end count as certain.
    log_probabilities = torch.stack(
        [
            logits.float().log_softmax(-1).gather(-1, chosen[:, None]).squeeze(-1)
            for logits, chosen in zip(output.logits, new_tokens.T, strict=True)
        ],
        dim=1,
    ).masked_fill(new_tokens == processor.tokenizer.pad_token_id, 0.0)
    confidences = log_probabilities.sum(dim=1).exp().tolist()
    return [
        parse_answer(text, entity_name=row["entity_name"], confidence=confidence)
        for text, row, confidence in zip(texts, rows, confidences, strict=True)
    ]
