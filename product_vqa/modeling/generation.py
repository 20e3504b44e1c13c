"""Answers, many at a time: decoded, constrained to valid ones, each with its confidence and its alternatives."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import DynamicCache, PaliGemmaForConditionalGeneration, PaliGemmaProcessor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from product_vqa.modeling.collator import Batch, normalize_images
from product_vqa.modeling.constrained_decoding import AnswerAutomaton, max_answer_tokens
from product_vqa.task.quantity import Quantity, format_number, format_quantity, parse_quantity
from product_vqa.task.schema import is_suitable

_NEVER = float("-inf")


@dataclass(frozen=True)
class Answer:
    """What the model said about one picture, and what of it can go out."""

    text: str  # as decoded
    quantity: Quantity | None  # None where the text is no `number unit` in a unit that suits the entity
    # Product over the tokens of the probability of each among those that were allowed at its place: 0..1. Times
    # `allowed_probability` it is the model's own probability of this answer.
    confidence: float
    number_confidence: float | None = (
        None  # of its number, whatever the unit; None where the answer was not constrained
    )
    unit_confidence: float | None = None  # of its unit, given the number
    # Product over the tokens of what the model gave to all allowed ones together, before the others were masked: low
    # where it wanted to say something else. None without constraint.
    allowed_probability: float | None = None
    alternatives: "tuple[Answer, ...]" = ()  # runners-up, the likeliest first; as many as there were beams beside

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


def parse_answer(text: str, *, entity_name: str) -> Quantity | None:
    """The quantity of an answer in a unit of the asked entity; None for any other answer, which goes out empty."""
    try:
        quantity = parse_quantity(text)
    except ValueError:
        return None
    return quantity if is_suitable(quantity.unit, entity_name) else None


@torch.inference_mode()
def generate_answers(
    model: PaliGemmaForConditionalGeneration,
    batch: Batch,
    *,
    entity_names: Sequence[str],
    processor: PaliGemmaProcessor,
    automaton: AnswerAutomaton | None,
    num_beams: int = 1,
    max_new_tokens: int | None = None,
    synced_gpus: bool = False,
) -> list[Answer]:
    """Answer each row of a batch that `make_generation_batch` made: greedily, or by beam search.

    With an automaton every answer is valid by construction and long enough to be complete, and each token's
    probability is renormalized over the tokens that are allowed there; with None the model says what it likes. At most
    `max_new_tokens` are decoded, by default as many as the longest valid answer has. An answer depends on its own row
    only, up to rounding: at float32 its probability moves by less than 1e-5 with the batch that it stands in.

    A row whose logits are not finite (float16 may overflow) is answered with "" and confidence 0.0, see
    `is_not_finite`; the others' answers are as they would be without it.

    Where a model's weights are spread over processes, each of them must answer a batch, with `synced_gpus`: none stops
    before all have their answers.
    """
    tokenizer = processor.tokenizer
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    batch["pixel_values"] = normalize_images(batch["pixel_values"], processor=processor, dtype=model.dtype)
    if automaton is not None:
        automaton = automaton.to(model.device)
    start = automaton.start_states(entity_names) if automaton else None
    if max_new_tokens is None:
        max_new_tokens = automaton.max_tokens if automaton else max_answer_tokens(tokenizer)
    beams = _decode(
        model, batch, automaton=automaton, start=start, num_beams=num_beams, tokenizer=tokenizer,
        max_new_tokens=max_new_tokens, synced_gpus=synced_gpus,
    )  # fmt: skip
    texts = tokenizer.batch_decode(beams.tokens, skip_special_tokens=True)
    failed = beams.failed.tolist()
    answers = []
    for place, (text, total, number, allowed) in enumerate(
        zip(texts, *(part.exp().tolist() for part in (beams.total, beams.number, beams.allowed)), strict=True)
    ):
        if failed[place // num_beams]:
            text, total, number, allowed = "", 0.0, 0.0, 0.0
        quantity = parse_answer(text, entity_name=entity_names[place // num_beams])
        parts = (number, min(1.0, total / number) if number else 0.0, allowed) if automaton else (None, None, None)
        answers.append(Answer(text, quantity, total, *parts))
    ranked = [answers[place : place + num_beams] for place in range(0, len(answers), num_beams)]
    return [replace(best, alternatives=tuple(o for o in others if o.confidence > 0)) for best, *others in ranked]


def is_not_finite(text: str, confidence: float) -> bool:
    """Whether this is what goes out for a row whose logits were not finite. No other answer has a confidence of 0."""
    return not text and confidence == 0.0


@dataclass
class _Beams:
    """Hypotheses, `num_beams` to a row and the likeliest first: (B * num_beams, ...)."""

    tokens: torch.Tensor  # (B * num_beams, T) int64
    states: torch.Tensor  # in the automaton
    total: torch.Tensor  # log probability
    number: torch.Tensor  # log probability of the number: of its digits, and that a unit follows
    allowed: torch.Tensor  # log probability that the model gave to the allowed tokens, before the others were masked
    in_number: torch.Tensor  # bool: the unit has not begun
    ended: torch.Tensor  # bool
    failed: torch.Tensor  # (B,) bool: logits of the row were not finite


def _decode(
    model: PaliGemmaForConditionalGeneration,
    batch: Batch,
    *,
    automaton: AnswerAutomaton | None,
    start: torch.Tensor | None,
    num_beams: int,
    tokenizer: Any,
    max_new_tokens: int,
    synced_gpus: bool,
) -> _Beams:
    """Beam search (greedy with one beam) in which a picture is encoded once, however many rows and beams ask for it.

    Not `generate`: it would copy each picture for each beam, and could not gather the few allowed logits; it is no
    faster either.
    """
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    mask = batch["attention_mask"]
    size, device = len(mask), mask.device
    cache = DynamicCache(config=model.config.get_text_config())
    # Positions count from 1, as PaliGemma's do, and pads have none.
    logits = model(
        input_ids=batch["input_ids"],
        token_type_ids=batch["token_type_ids"],
        attention_mask=mask,
        **_pictures(model, batch),
        position_ids=mask.cumsum(-1).clamp(min=1),
        cache=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]

    beams = _Beams(
        tokens=torch.empty(size, 0, dtype=torch.long, device=device),
        states=torch.zeros(size, dtype=torch.long, device=device) if start is None else start,
        total=torch.zeros(size, device=device),
        number=torch.zeros(size, device=device),
        allowed=torch.zeros(size, device=device),
        in_number=torch.ones(size, dtype=torch.bool, device=device),
        ended=torch.zeros(size, dtype=torch.bool, device=device),
        failed=torch.zeros(size, dtype=torch.bool, device=device),
    )
    for step in range(max_new_tokens):
        choices = _choose(logits, beams, automaton=automaton, pad=pad, num_choices=num_beams)
        beams, parents = _extend(beams, choices, size=size, num_beams=num_beams, eos=eos, pad=pad)
        if _all_ended(beams, synced_gpus=synced_gpus) or step == max_new_tokens - 1:
            break
        if step == 0 and num_beams > 1:  # every beam begins with a copy of its row's cache
            cache.batch_repeat_interleave(num_beams)
            mask = mask.repeat_interleave(num_beams, dim=0)
        elif num_beams > 1:
            cache.reorder_cache(parents)  # type: ignore[arg-type]  # asks for a LongTensor, which it is
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        logits = model(
            input_ids=beams.tokens[:, -1:],
            attention_mask=mask,
            position_ids=mask.sum(-1, keepdim=True),
            cache=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
    return beams


def _all_ended(beams: _Beams, *, synced_gpus: bool) -> bool:
    ended = beams.ended.all()
    if synced_gpus:
        ended = ended.float()
        torch.distributed.all_reduce(ended, op=torch.distributed.ReduceOp.MIN)
    return bool(ended)


def _pictures(model: PaliGemmaForConditionalGeneration, batch: Batch) -> dict[str, Any]:
    """What the first step takes in of the pictures."""
    pixel_values, image_index = batch["pixel_values"], batch["image_index"]
    if len(pixel_values) == len(image_index):  # in the rows' order; encoded within the model's forward, as FSDP needs
        return {"pixel_values": pixel_values}
    features = model.get_image_features(pixel_values).pooler_output[image_index]
    return {"mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=features)}}


@dataclass
class _Choices:
    """What may come next: (hypotheses, K), with log probabilities among just these (-inf where there is none)."""

    token_ids: torch.Tensor
    next_states: torch.Tensor
    begins_unit: torch.Tensor
    log_p: torch.Tensor
    unit_log_p: torch.Tensor  # (hypotheses,): that any unit begins now
    allowed_log_p: torch.Tensor  # (hypotheses,): of all of these together, before the others were masked
    is_finite: torch.Tensor  # (hypotheses,) bool; where it is False all are equally likely, so that no index is wrong


def _choose(
    logits: torch.Tensor, beams: _Beams, *, automaton: AnswerAutomaton | None, pad: int, num_choices: int
) -> _Choices:
    """The automaton's next tokens; without one the likeliest `num_choices`, and pads after the end."""
    if automaton is not None:
        token_ids = automaton.token_ids[beams.states]
        begins_unit = automaton.begins_unit[beams.states]
        is_choice = token_ids >= 0
        possible = logits.gather(1, token_ids.clamp(min=0)).float()
        is_finite = (possible.isfinite() | ~is_choice).all(-1)
        possible = possible.masked_fill(~is_finite[:, None], 0.0).masked_fill(~is_choice, _NEVER)
        log_p = possible.log_softmax(-1)
        unit_log_p = log_p.masked_fill(~begins_unit, _NEVER).logsumexp(-1)
        # In float32, which 64 rows at a time keep small: a vocabulary of 257k is 1 MB a row.
        of_all = torch.cat([rows.float().logsumexp(-1) for rows in logits.split(64)])
        allowed_log_p = (possible.logsumexp(-1) - of_all).nan_to_num(nan=_NEVER, neginf=_NEVER).clamp(max=0.0)
        allowed_log_p = allowed_log_p.masked_fill(beams.ended, 0.0)
        next_states = automaton.next_states[beams.states]
        return _Choices(token_ids, next_states, begins_unit, log_p, unit_log_p, allowed_log_p, is_finite)
    log_p, token_ids = logits.float().log_softmax(-1).topk(num_choices)
    is_finite = log_p[:, 0].isfinite()  # a single NaN or +inf makes all of them NaN
    ended = beams.ended[:, None] | ~is_finite[:, None]
    only_pad = torch.full_like(log_p, _NEVER)
    only_pad[:, 0] = 0.0
    log_p = torch.where(ended, only_pad, log_p)
    states = beams.states[:, None].expand_as(token_ids)
    nothing = torch.zeros_like(token_ids, dtype=torch.bool)
    allowed_log_p = torch.zeros_like(beams.total)
    return _Choices(token_ids.masked_fill(ended, pad), states, nothing, log_p, log_p[:, 0], allowed_log_p, is_finite)


def _extend(
    beams: _Beams, choices: _Choices, *, size: int, num_beams: int, eos: int, pad: int
) -> tuple[_Beams, torch.Tensor]:
    """The likeliest `num_beams` continuations of each row, and the hypothesis that each continues."""
    failed = beams.failed | (~choices.is_finite & ~beams.ended).view(size, -1).any(dim=1)
    best = (beams.total[:, None] + choices.log_p).view(size, -1).topk(num_beams)
    hypotheses, width = len(beams.total) // size, choices.log_p.shape[1]
    first = torch.arange(0, size * hypotheses, hypotheses, device=best.indices.device)[:, None]
    parents, picked = (first + best.indices // width).flatten(), (best.indices % width).flatten()
    total, log_p = best.values.flatten(), choices.log_p[parents, picked]
    tokens = choices.token_ids[parents, picked].masked_fill(log_p == _NEVER, pad)
    begins_unit, in_number = choices.begins_unit[parents, picked], beams.in_number[parents]
    # Up to the unit a number's probability is its answer's; then it counts that any unit begins; then it is fixed.
    number = beams.number[parents] + torch.where(begins_unit, choices.unit_log_p[parents], log_p) * in_number
    extended = _Beams(
        tokens=torch.cat([beams.tokens[parents], tokens[:, None]], dim=1),
        states=choices.next_states[parents, picked],
        total=total,
        number=torch.where(in_number, number, beams.number[parents]),
        allowed=beams.allowed[parents] + choices.allowed_log_p[parents],
        in_number=in_number & ~begins_unit,
        ended=beams.ended[parents] | (tokens == eos) | (total == _NEVER) | failed.repeat_interleave(num_beams),
        failed=failed,
    )
    return extended, parents
