"""Generate answers in batches: beam search over valid answers, with confidences and alternatives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers.modeling_outputs import BaseModelOutputWithPooling

from product_vqa.modeling.answer import Answer
from product_vqa.modeling.answer_scores import AnswerScores, score_answers
from product_vqa.modeling.collator import Batch, normalize_images
from product_vqa.modeling.constrained_decoding import AnswerAutomaton, max_answer_tokens
from product_vqa.modeling.next_tokens import IMPOSSIBLE, NextTokens, find_likely_tokens, find_next_tokens
from product_vqa.modeling.silence import find_shown
from product_vqa.task.attributes import Attribute, Schema
from product_vqa.task.kinds import IntegerKind, LabelError, QuantityKind

if TYPE_CHECKING:
    from transformers import Cache, PaliGemmaForConditionalGeneration, PaliGemmaProcessor


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
    candidates: Sequence[Mapping[str, float]] | None = None,
    searches_all: bool = False,
) -> list[Answer]:
    """Answer each row of a batch from `make_generation_batch`, by greedy or beam search.

    With an automaton (of the same schema), every answer is valid and complete, and the probabilities of the tokens are
    renormalized over the allowed ones. Without it, the model generates any text. `max_new_tokens` defaults to the
    length of the longest valid answer. An answer depends on its own row only, up to rounding: in float32, the other
    rows of the batch change its probability by less than 1e-5.

    With an automaton, the `candidates` of each row, canonical answers that something else suggests, are scored: their
    exact probabilities are among those of the answer and its alternatives. Each has the logarithm of the weight that
    the caller multiplies its probability by. With one beam, a row is not searched for other answers if none of them
    could be above the best weighted candidate, unless `searches_all`. Not with `synced_gpus`: the number of forwards
    would differ between processes.

    A row whose logits are not finite (float16 may overflow) is answered with "" and confidence 0.0, see
    `is_not_finite`. It does not affect the other rows.

    If the model's weights are sharded over processes, all of them must call this with `synced_gpus`: none stops before
    all have their answers.
    """
    assert candidates is None or not synced_gpus
    tokenizer = processor.tokenizer
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    batch["pixel_values"] = normalize_images(batch["pixel_values"], processor=processor, dtype=model.dtype)
    if max_new_tokens is None:
        max_new_tokens = automaton.max_tokens if automaton else max_answer_tokens(tokenizer, schema=schema)
    prompt = _read_prompt(model, batch)
    scores = [AnswerScores()] * len(entity_names)
    if automaton is not None and candidates is not None and any(candidates):
        scores = score_answers(
            model,
            [list(row) for row in candidates],
            entity_names=entity_names,
            logits=prompt.logits,
            cache=prompt.cache,
            mask=prompt.mask,
            tokenizer=tokenizer,
            automaton=automaton,
            schema=schema,
        )
    if automaton is not None:
        automaton = automaton.to(model.device)
    start = automaton.start_states(entity_names) if automaton else None
    shown: list[float | None] = [None] * len(entity_names)
    if automaton is not None and start is not None:
        found = find_shown(prompt.logits, start, automaton=automaton, eos=tokenizer.eos_token_id).tolist()
        shown = [value if schema[name].not_shown else None for name, value in zip(entity_names, found, strict=True)]
    searched = list(range(len(entity_names)))
    if num_beams == 1 and candidates is not None and not searches_all:
        searched = [row for row in searched if not _is_decided(scores[row], candidates[row])]
    answers: list[list[Answer]] = [[] for _ in entity_names]
    if searched:
        if len(searched) < len(entity_names):
            prompt, start = prompt.select(searched), start[searched] if start is not None else None
        beams = _search(
            model,
            prompt,
            automaton=automaton,
            start=start,
            num_beams=num_beams,
            tokenizer=tokenizer,
            max_new_tokens=max_new_tokens,
            synced_gpus=synced_gpus,
        )
        is_constrained = automaton is not None
        for row, values in zip(searched, _beam_values(beams, num_beams=num_beams, tokenizer=tokenizer), strict=True):
            attribute = schema[entity_names[row]]
            answers[row] = [
                _make_answer(*one, attribute=attribute, shown=shown[row], is_constrained=is_constrained)
                for one in values
            ]
    for row, (own, row_candidates) in enumerate(zip(scores, candidates or [{}] * len(scores), strict=True)):
        attribute = schema[entity_names[row]]
        for text, *log_p in zip(row_candidates, own.total, own.number, own.allowed, strict=False):
            if log_p[0] > IMPOSSIBLE and text not in {answer.prediction for answer in answers[row]}:
                total, number, allowed = map(math.exp, log_p)
                answers[row].append(
                    _make_answer(
                        text, total, number, allowed, attribute=attribute, shown=shown[row], is_constrained=True
                    )
                )
    return [_join(own) for own in answers]


def _is_decided(scores: AnswerScores, candidates: Mapping[str, float]) -> bool:
    """Whether no other answer can outweigh the best candidate: all of them together are less likely."""
    if not any(total > IMPOSSIBLE for total in scores.total):
        return False
    best = max(total + weight for total, weight in zip(scores.total, candidates.values(), strict=True))
    return math.exp(min(best, 0.0)) >= 1 - sum(map(math.exp, scores.total))


def _join(answers: Sequence[Answer]) -> Answer:
    """The most likely answer, with the others as its alternatives."""
    best, *others = sorted(answers, key=lambda answer: -answer.confidence)  # stable: beams are in order
    return replace(best, alternatives=tuple(other for other in others if other.confidence > 0))


def _beam_values(beams: _Beams, *, num_beams: int, tokenizer: Any) -> list[list[tuple[str, float, float, float]]]:
    """The text of each beam, row by row, with its probabilities: total, number and allowed; 0 of a failed row."""
    texts = tokenizer.batch_decode(beams.tokens, skip_special_tokens=True)
    failed = beams.failed.tolist()
    # Not in float32, which ends at 1e-45: an untrained model gives the valid tokens of an answer 1e-60.
    probabilities = (log_p.double().exp().tolist() for log_p in (beams.total, beams.number, beams.allowed))
    values = list(zip(texts, *probabilities, strict=True))
    return [
        [("", 0.0, 0.0, 0.0) if failed[row] else one for one in values[row * num_beams : (row + 1) * num_beams]]
        for row in range(len(failed))
    ]


def _make_answer(
    text: str,
    total: float,
    number: float,
    allowed: float,
    *,
    attribute: Attribute,
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
    answer = replace(answer, allowed_probability=allowed, shown=None if is_not_finite(text, total) else shown)
    if not isinstance(attribute.kind, QuantityKind):
        return answer
    return replace(answer, number_confidence=number, unit_confidence=min(1.0, total / number) if number else 0.0)


def is_not_finite(text: str, confidence: float) -> bool:
    """Return whether this is the answer for logits that were not finite. No other answer has a confidence of 0."""
    return not text and confidence == 0.0


def not_finite_remedy(dtype: torch.dtype | str) -> str:
    """Return what to do if logits are not finite."""
    if str(dtype) == "torch.float32":
        return "In float32, the cause is the weights: check those of the adapter"
    return f"Use `dtype` float32: {str(dtype).removeprefix('torch.')} overflows more easily"


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


@dataclass
class _Prompt:
    """What the model has read: images and questions."""

    logits: torch.Tensor  # (B, V), of the first token of an answer
    cache: Cache
    mask: torch.Tensor  # (B, T)

    def select(self, rows: Sequence[int]) -> _Prompt:
        """Some of the rows. Their part of the cache replaces it."""
        chosen = torch.tensor(rows, device=self.mask.device)
        self.cache.batch_select_indices(chosen)
        return _Prompt(self.logits[chosen], self.cache, self.mask[chosen])


def _read_prompt(model: PaliGemmaForConditionalGeneration, batch: Batch) -> _Prompt:
    """Run the model over the prompts. Each image is encoded once, whatever the number of its rows and beams."""
    mask = batch["attention_mask"]
    width = mask.shape[1]
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
    return _Prompt(logits, cache, mask)


def _search(
    model: PaliGemmaForConditionalGeneration,
    prompt: _Prompt,
    *,
    automaton: AnswerAutomaton | None,
    start: torch.Tensor | None,
    num_beams: int,
    tokenizer: Any,
    max_new_tokens: int,
    synced_gpus: bool,
) -> _Beams:
    """Run beam search (greedy with one beam) from the prompts.

    Unlike this, `generate` would copy each image for each beam and compute the softmax over the whole vocabulary
    instead of the few allowed tokens. Its speed is the same.
    """
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    logits, cache, mask = prompt.logits, prompt.cache, prompt.mask
    size = len(mask)
    beams = _Beams.empty(size, start=start, device=mask.device)
    for step in range(max_new_tokens):
        if automaton is None:
            candidates = find_likely_tokens(logits, beams.states, beams.ended, pad=pad, num_candidates=num_beams)
        else:
            candidates = find_next_tokens(logits, beams.states, automaton=automaton, num_candidates=num_beams)
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
    return beams


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


def _select_beams(
    beams: _Beams, candidates: NextTokens, *, size: int, num_beams: int, eos: int, pad: int
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
    tokens = candidates.token_ids[parents, picked].masked_fill(log_p == IMPOSSIBLE, pad)
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
        ended=beams.ended[parents] | (tokens == eos) | (total == IMPOSSIBLE) | failed.repeat_interleave(num_beams),
        failed=failed,
    )
    return selected, parents
