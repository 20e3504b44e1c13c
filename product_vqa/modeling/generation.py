"""Generate answers in batches: beam search over valid answers, with confidences and alternatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch.nn import functional
from transformers.modeling_outputs import BaseModelOutputWithPooling

from product_vqa.modeling.answer import Answer
from product_vqa.modeling.collator import Batch, normalize_images
from product_vqa.modeling.constrained_decoding import AnswerAutomaton, TextStates, max_answer_tokens
from product_vqa.modeling.silence import find_shown
from product_vqa.task.attributes import Attribute, Schema
from product_vqa.task.kinds import IntegerKind, LabelError, QuantityKind

if TYPE_CHECKING:
    from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

_IMPOSSIBLE = float("-inf")  # the log probability of what is not allowed


def normalize_answer(text: str, attribute: Attribute) -> str:
    """The canonical form of an answer; "" for one that is not valid."""
    try:
        return attribute.normalize(text)
    except LabelError:
        return ""


@torch.inference_mode()
def generate_answers(
    model: PaliGemmaForConditionalGeneration,
    batch: Batch,
    *,
    entity_names: Sequence[str],
    processor: PaliGemmaProcessor,
    automaton: AnswerAutomaton | None,
    schema: Schema,
    num_beams: int = 1,
    max_new_tokens: int | None = None,
    synced_gpus: bool = False,
) -> list[Answer]:
    """Answer each row of a batch from `make_generation_batch`, by greedy or beam search.

    With an automaton (of the same schema), every answer is valid and complete, and the probabilities of the tokens are
    renormalized over the allowed ones. Without it, the model generates any text. `max_new_tokens` defaults to the
    length of the longest valid answer. An answer depends on its own row only, up to rounding: in float32, the other
    rows of the batch change its probability by less than 1e-5.

    A row whose logits are not finite (float16 may overflow) is answered with "" and confidence 0.0, see
    `is_not_finite`. It does not affect the other rows.

    If the model's weights are sharded over processes, all of them must call this with `synced_gpus`: none stops before
    all have their answers.
    """
    tokenizer = processor.tokenizer
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    batch["pixel_values"] = normalize_images(batch["pixel_values"], processor=processor, dtype=model.dtype)
    if automaton is not None:
        automaton = automaton.to(model.device)
    if max_new_tokens is None:
        max_new_tokens = automaton.max_tokens if automaton else max_answer_tokens(tokenizer, schema=schema)
    beams = _decode(
        model,
        batch,
        automaton=automaton,
        start=automaton.start_states(entity_names) if automaton else None,
        num_beams=num_beams,
        tokenizer=tokenizer,
        max_new_tokens=max_new_tokens,
        synced_gpus=synced_gpus,
    )
    texts = tokenizer.batch_decode(beams.tokens, skip_special_tokens=True)
    failed = beams.failed.tolist()
    # Not in float32, which ends at 1e-45: an untrained model gives the valid tokens of an answer 1e-60.
    totals, numbers, alloweds = (log_p.double().exp().tolist() for log_p in (beams.total, beams.number, beams.allowed))
    shown = [None] * len(entity_names) if beams.shown is None else beams.shown.tolist()
    answers = []
    for row, entity_name in enumerate(entity_names):
        candidates = [
            _make_answer(
                "" if failed[row] else texts[beam],
                schema[entity_name],
                total=0.0 if failed[row] else totals[beam],
                number=0.0 if failed[row] else numbers[beam],
                allowed=0.0 if failed[row] else alloweds[beam],
                shown=None if failed[row] or not schema[entity_name].not_shown else shown[row],
                is_constrained=automaton is not None,
            )
            for beam in range(row * num_beams, (row + 1) * num_beams)
        ]
        best, *others = candidates
        possible = tuple(other for other in others if other.confidence > 0)
        answers.append(replace(best, alternatives=possible))
    return answers


def _make_answer(
    text: str,
    attribute: Attribute,
    *,
    total: float,
    number: float,
    allowed: float,
    shown: float | None,
    is_constrained: bool,
) -> Answer:
    prediction = normalize_answer(text, attribute)
    value, unit = attribute.kind.split(prediction)
    answer = Answer(text, prediction, total, value=value, unit=unit, entity_name=attribute.name)
    if value and isinstance(attribute.kind, QuantityKind | IntegerKind):
        answer = replace(answer, number=float(value))
    if not is_constrained:
        return answer
    answer = replace(answer, allowed_probability=allowed, shown=shown)
    if not isinstance(attribute.kind, QuantityKind):
        return answer
    return replace(answer, number_confidence=number, unit_confidence=min(1.0, total / number) if number else 0.0)


def is_not_finite(text: str, confidence: float) -> bool:
    """Return whether this is the answer for logits that were not finite. No other answer has a confidence of 0."""
    return not text and confidence == 0.0


@dataclass
class _Beams:
    """The beams of all rows, `num_beams` per row, most likely first; N = B * num_beams."""

    tokens: torch.Tensor  # (N, T) int64
    states: torch.Tensor  # (N,) int64, of the automaton
    total: torch.Tensor  # (N,) log probability of the tokens
    number: torch.Tensor  # (N,) log probability of the number: of its digits, and that a unit follows
    allowed: torch.Tensor  # (N,) log probability that the model gave to the allowed tokens before masking
    in_number: torch.Tensor  # (N,) bool: the unit has not begun
    ended: torch.Tensor  # (N,) bool
    failed: torch.Tensor  # (B,) bool: logits of the row were not finite
    shown: torch.Tensor | None = None  # (B,): that the answer is not empty; None if answers are not constrained

    @classmethod
    def empty(cls, size: int, *, start: torch.Tensor | None, device: torch.device) -> _Beams:
        """One beam without tokens per row."""
        return cls(
            tokens=torch.empty(size, 0, dtype=torch.long, device=device),
            states=torch.zeros(size, dtype=torch.long, device=device) if start is None else start,
            total=torch.zeros(size, device=device),
            number=torch.zeros(size, device=device),
            allowed=torch.zeros(size, device=device),
            in_number=torch.ones(size, dtype=torch.bool, device=device),
            ended=torch.zeros(size, dtype=torch.bool, device=device),
            failed=torch.zeros(size, dtype=torch.bool, device=device),
        )


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
    """Run beam search (greedy with one beam). Each image is encoded once, whatever the number of its rows and beams.

    Unlike this, `generate` would copy each image for each beam and compute the softmax over the whole vocabulary
    instead of the few allowed tokens. Its speed is the same.
    """
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    mask = batch["attention_mask"]
    size, width = mask.shape
    cache = transformers.DynamicCache(config=model.config.get_text_config())
    logits = model(
        input_ids=batch["input_ids"],
        token_type_ids=batch["token_type_ids"],
        attention_mask=mask,
        **_image_inputs(model, batch),
        position_ids=mask.cumsum(-1).clamp(min=1),  # count from 1, as PaliGemma's do; padding has none
        cache=cache,
        use_cache=True,
        # The last position, as a tensor. The number 1 would select a strided slice, for which a CPU copies the
        # matrix of lm_head once per row.
        logits_to_keep=torch.arange(width - 1, width, device=mask.device),
    ).logits[:, -1]

    beams = _Beams.empty(size, start=start, device=mask.device)
    shown = None if automaton is None else find_shown(logits, beams.states, automaton=automaton, eos=eos)
    for step in range(max_new_tokens):
        candidates = _find_candidates(logits, beams, automaton=automaton, pad=pad, num_candidates=num_beams)
        beams, parents = _select_beams(beams, candidates, size=size, num_beams=num_beams, eos=eos, pad=pad)
        if _all_ended(beams, synced_gpus=synced_gpus) or step == max_new_tokens - 1:
            break
        if step == 0 and num_beams > 1:  # every beam starts with a copy of its row's cache
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
    return replace(beams, shown=shown)


def _all_ended(beams: _Beams, *, synced_gpus: bool) -> bool:
    ended = beams.ended.all()
    if synced_gpus:
        ended = ended.float()
        torch.distributed.all_reduce(ended, op=torch.distributed.ReduceOp.MIN)
    return bool(ended)


def _image_inputs(model: PaliGemmaForConditionalGeneration, batch: Batch) -> dict[str, Any]:
    """Return the images, or their features, as arguments of the model's forward."""
    pixel_values, image_index = batch["pixel_values"], batch["image_index"]
    if len(pixel_values) == len(image_index):  # one per row, in order: encoded in the forward, as FSDP requires
        return {"pixel_values": pixel_values}
    features = model.get_image_features(pixel_values).pooler_output[image_index]
    return {"mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=features)}}


@dataclass
class _Candidates:
    """The possible next tokens of each beam: (N, K). Unused entries have log probability -inf."""

    token_ids: torch.Tensor
    next_states: torch.Tensor
    begins_unit: torch.Tensor
    log_p: torch.Tensor  # normalized over these tokens
    unit_log_p: torch.Tensor  # (N,): that any unit begins now
    allowed_log_p: torch.Tensor  # (N,): of all these tokens, before the others were masked
    is_finite: torch.Tensor  # (N,) bool; if False, all tokens are equally likely, so that no index is invalid


def _find_candidates(
    logits: torch.Tensor, beams: _Beams, *, automaton: AnswerAutomaton | None, pad: int, num_candidates: int
) -> _Candidates:
    """Return the automaton's next tokens; without one, the `num_candidates` most likely ones."""
    if automaton is None:
        return _find_unconstrained(logits, beams, pad=pad, num_candidates=num_candidates)
    token_ids = automaton.token_ids[beams.states]
    next_states = automaton.next_states[beams.states]
    begins_unit = automaton.begins_unit[beams.states]
    if (missing := num_candidates - token_ids.shape[1]) > 0:  # no state has as many tokens as there are beams
        token_ids = functional.pad(token_ids, (0, missing), value=-1)
        next_states = torch.cat([next_states, beams.states[:, None].repeat(1, missing)], dim=1)
        begins_unit = functional.pad(begins_unit, (0, missing))
    is_candidate = token_ids >= 0
    allowed = logits.gather(1, token_ids.clamp(min=0)).float()
    is_finite = (allowed.isfinite() | ~is_candidate).all(-1)
    allowed = allowed.masked_fill(~is_finite[:, None], 0.0).masked_fill(~is_candidate, _IMPOSSIBLE)
    log_p = allowed.log_softmax(-1)
    # 64 rows at a time: in float32, a vocabulary of 257k takes 1 MB per row.
    all_tokens = torch.cat([rows.float().logsumexp(-1) for rows in torch.split(logits, 64)])
    allowed_log_p = (allowed.logsumexp(-1) - all_tokens).nan_to_num(nan=_IMPOSSIBLE, neginf=_IMPOSSIBLE).clamp(max=0.0)
    candidates = _Candidates(
        token_ids=token_ids,
        next_states=next_states,
        begins_unit=begins_unit,
        log_p=log_p,
        unit_log_p=log_p.masked_fill(~begins_unit, _IMPOSSIBLE).logsumexp(-1),
        allowed_log_p=allowed_log_p.masked_fill(beams.ended, 0.0),
        is_finite=is_finite,
    )
    if automaton.text is not None:
        _find_text(
            candidates, logits, beams, text=automaton.text, all_tokens=all_tokens, num_candidates=num_candidates
        )
    return candidates


def _find_text(
    candidates: _Candidates,
    logits: torch.Tensor,
    beams: _Beams,
    *,
    text: TextStates,
    all_tokens: torch.Tensor,
    num_candidates: int,
) -> None:
    """Fill in the `num_candidates` most likely tokens of the beams that are within a free text."""
    in_text = (text.is_text[beams.states] & ~beams.ended).nonzero()[:, 0]
    for rows in torch.split(in_text, 64):
        states = beams.states[rows]
        is_allowed = text.is_allowed(states)
        allowed = logits[rows, : is_allowed.shape[1]].float()
        is_finite = (allowed.isfinite() | ~is_allowed).all(-1)
        allowed = allowed.masked_fill(~is_finite[:, None], 0.0).masked_fill(~is_allowed, _IMPOSSIBLE)
        all_allowed = allowed.logsumexp(-1)
        best, tokens = allowed.topk(num_candidates)
        candidates.token_ids[rows], candidates.log_p[rows] = -1, _IMPOSSIBLE
        candidates.token_ids[rows, :num_candidates] = tokens
        following = torch.where(best == _IMPOSSIBLE, states[:, None], text.follow(states, tokens))
        candidates.next_states[rows, :num_candidates] = following
        candidates.log_p[rows, :num_candidates] = best - all_allowed[:, None]
        allowed_log_p = (all_allowed - all_tokens[rows]).nan_to_num(nan=_IMPOSSIBLE, neginf=_IMPOSSIBLE)
        candidates.allowed_log_p[rows] = allowed_log_p.clamp(max=0.0)
        candidates.is_finite[rows] = is_finite


def _find_unconstrained(logits: torch.Tensor, beams: _Beams, *, pad: int, num_candidates: int) -> _Candidates:
    log_p, token_ids = logits.float().log_softmax(-1).topk(num_candidates)
    is_finite = log_p[:, 0].isfinite()  # a single NaN or +inf makes all of them NaN
    ended = beams.ended[:, None] | ~is_finite[:, None]
    only_pad = torch.full_like(log_p, _IMPOSSIBLE)
    only_pad[:, 0] = 0.0
    log_p = torch.where(ended, only_pad, log_p)
    return _Candidates(
        token_ids=token_ids.masked_fill(ended, pad),
        next_states=beams.states[:, None].expand_as(token_ids),
        begins_unit=torch.zeros_like(token_ids, dtype=torch.bool),
        log_p=log_p,
        unit_log_p=log_p[:, 0],
        allowed_log_p=torch.zeros_like(beams.total),
        is_finite=is_finite,
    )


def _select_beams(
    beams: _Beams, candidates: _Candidates, *, size: int, num_beams: int, eos: int, pad: int
) -> tuple[_Beams, torch.Tensor]:
    """Return the `num_beams` most likely continuations of each row, and which beam each of them continues."""
    failed = beams.failed | (~candidates.is_finite & ~beams.ended).view(size, -1).any(dim=1)
    best = (beams.total[:, None] + candidates.log_p).view(size, -1).topk(num_beams)
    beams_per_row = len(beams.total) // size  # 1 at the first step
    num_candidates = candidates.log_p.shape[1]
    first_beam = torch.arange(0, len(beams.total), beams_per_row, device=best.indices.device)[:, None]
    parents = (first_beam + best.indices // num_candidates).flatten()
    picked = (best.indices % num_candidates).flatten()
    total = best.values.flatten()
    log_p = candidates.log_p[parents, picked]
    tokens = candidates.token_ids[parents, picked].masked_fill(log_p == _IMPOSSIBLE, pad)
    begins_unit = candidates.begins_unit[parents, picked]
    in_number = beams.in_number[parents]
    # Before the unit, the number's log probability is the answer's. When the unit begins, that of any unit is added.
    # After that, it does not change.
    number = beams.number[parents] + torch.where(begins_unit, candidates.unit_log_p[parents], log_p) * in_number
    selected = _Beams(
        tokens=torch.cat([beams.tokens[parents], tokens[:, None]], dim=1),
        states=candidates.next_states[parents, picked],
        total=total,
        number=torch.where(in_number, number, beams.number[parents]),
        allowed=beams.allowed[parents] + candidates.allowed_log_p[parents],
        in_number=in_number & ~begins_unit,
        ended=beams.ended[parents] | (tokens == eos) | (total == _IMPOSSIBLE) | failed.repeat_interleave(num_beams),
        failed=failed,
    )
    return selected, parents
