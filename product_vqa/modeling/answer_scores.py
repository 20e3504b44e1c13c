"""The exact probabilities of given answers, of all rows of a batch in one forward.

The answers of a row share their beginnings, so they are a tree of tokens. Each token attends to the prompt, whose keys
and values are in the cache, and to those before it in its own answers. The answers of the automaton are few tokens
each: for eight of them, a row takes 20 to 50 tokens more than its prompt of 256 image tokens and a question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from product_vqa.errors import InputError
from product_vqa.modeling.answer_tokens import spell_answer
from product_vqa.modeling.constrained_decoding import AnswerAutomaton
from product_vqa.modeling.next_tokens import IMPOSSIBLE, find_next_tokens
from product_vqa.task.attributes import Schema

if TYPE_CHECKING:
    from transformers import Cache, PaliGemmaForConditionalGeneration

_PROMPT = -1  # as the parent of a token: the first one of an answer
_CHUNK = 64  # tokens whose logits are computed at a time: in float32, a vocabulary of 257k takes 1 MB each


@dataclass(frozen=True)
class AnswerScores:
    """Log probabilities of the answers of a row, float64; -inf for one that the automaton does not allow.

    `total` is that of the answer among all valid ones, `number` that of its number with any unit, and `allowed` what
    the model gave to all allowed tokens before the others were masked.
    """

    total: tuple[float, ...] = ()
    number: tuple[float, ...] = ()
    allowed: tuple[float, ...] = ()


@dataclass
class _Step:
    """A token of an answer: what it follows, and its column in the automaton's table of the state there."""

    parent: int
    column: int
    begins_unit: bool
    in_number: bool  # it is before the unit


@dataclass
class _Tree:
    """The tokens of the answers of one row, each beginning once."""

    start: int  # the automaton's state before the first token
    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    states: list[int] = field(default_factory=list)  # after the token
    paths: list[list[_Step] | None] = field(default_factory=list)  # of each answer; None if it is not allowed
    _known: dict[tuple[int, int], int] = field(default_factory=dict)

    def add(self, tokens: Sequence[int], automaton: AnswerAutomaton) -> None:
        """Add an answer, given by its tokens and the end token."""
        steps = _follow(tokens, self.start, automaton)
        self.paths.append(None if steps is None else [step for step, _ in steps])
        parent, depth = _PROMPT, 0
        for token, (step, state) in zip(tokens[:-1], steps or [], strict=False):
            step.parent, depth = parent, depth + 1
            parent = self._known.get((parent, token), len(self.tokens))
            if parent == len(self.tokens):
                self._known[step.parent, token] = parent
                self.tokens.append(token)
                self.parents.append(step.parent)
                self.depths.append(depth)
                self.states.append(state)
        if steps:
            steps[-1][0].parent = parent


def _follow(tokens: Sequence[int], state: int, automaton: AnswerAutomaton) -> list[tuple[_Step, int]] | None:
    """The steps along the tokens, with the state after each; None if one of them is not allowed."""
    steps = []
    in_number = True
    for token in tokens:
        if automaton.text is not None and bool(automaton.text.is_text[state]):
            return None
        columns = (automaton.token_ids[state] == token).nonzero()
        if not len(columns):
            return None
        column = int(columns[0])
        begins_unit = bool(automaton.begins_unit[state, column])
        state = int(automaton.next_states[state, column])
        steps.append((_Step(_PROMPT, column, begins_unit, in_number), state))
        in_number = in_number and not begins_unit
    return steps if state == automaton.end_state else None


def score_answers(
    model: PaliGemmaForConditionalGeneration,
    answers: Sequence[Sequence[str]],
    *,
    entity_names: Sequence[str],
    logits: torch.Tensor,
    cache: Cache,
    mask: torch.Tensor,
    tokenizer: Any,
    automaton: AnswerAutomaton,
    schema: Schema,
) -> list[AnswerScores]:
    """Return the probabilities of the answers of each row, canonical ones, given its image and question.

    `logits` (B, V) are those of the first token of an answer, and `cache` has the prompts, whose attention mask is
    `mask` (B, T); afterwards it is as it was before. `automaton` is on the CPU. Raises InputError if the prompt is
    longer than the sliding window of the model's attention.
    """
    trees = []
    for name, row in zip(entity_names, answers, strict=True):
        tree = _Tree(automaton.start_by_entity[name])
        for answer in row:
            tokens = spell_answer(tokenizer, answer, schema[name])
            if tokens is None:
                tokens = tokenizer.encode(answer, add_special_tokens=False)
            tree.add([*tokens, tokenizer.eos_token_id], automaton)
        trees.append(tree)
    columns = _find_columns(model, trees, logits=logits, cache=cache, mask=mask, pad=tokenizer.pad_token_id,
                            automaton=automaton.to(mask.device))  # fmt: skip
    return [_sum_steps(tree, own) for tree, own in zip(trees, columns, strict=True)]


@dataclass
class _Columns:
    """What is known about the tokens that follow the prompt (the last row) and each token of a tree."""

    log_p: list[np.ndarray]  # (K,): of each column of the automaton's table
    unit_log_p: list[float]
    allowed_log_p: list[float]
    is_finite: list[bool]


def _sum_steps(tree: _Tree, columns: _Columns) -> AnswerScores:
    totals, numbers, alloweds = [], [], []
    for path in tree.paths:
        total = number = allowed = 0.0
        for step in path or []:
            if not columns.is_finite[step.parent]:
                path = None
                break
            log_p = float(columns.log_p[step.parent][step.column])
            total += log_p
            allowed += columns.allowed_log_p[step.parent]
            if step.in_number:
                number += columns.unit_log_p[step.parent] if step.begins_unit else log_p
        totals.append(IMPOSSIBLE if path is None else total)
        numbers.append(IMPOSSIBLE if path is None else number)
        alloweds.append(IMPOSSIBLE if path is None else allowed)
    return AnswerScores(tuple(totals), tuple(numbers), tuple(alloweds))


def _find_columns(
    model: PaliGemmaForConditionalGeneration,
    trees: Sequence[_Tree],
    *,
    logits: torch.Tensor,
    cache: Cache,
    mask: torch.Tensor,
    pad: int,
    automaton: AnswerAutomaton,
) -> list[_Columns]:
    """Compute the logits after each token of the trees, and what they say about the next ones."""
    device = mask.device
    chosen = [row for row, tree in enumerate(trees) if tree.tokens]
    width = max((len(trees[row].tokens) for row in chosen), default=0)
    found = [_Columns([], [], [], []) for _ in trees]
    if width:
        hidden = _run_trees(model, trees, width=width, cache=cache, mask=mask, pad=pad)
        places = [(row, node) for row in chosen for node in range(len(trees[row].tokens))]
        for start in range(0, len(places), _CHUNK):
            chunk = places[start : start + _CHUNK]
            rows, nodes = (torch.tensor(values, device=device) for values in zip(*chunk, strict=True))
            states = torch.tensor([trees[row].states[node] for row, node in chunk], device=device)
            _append(found, [row for row, _ in chunk], _logits_of(model, hidden[rows, nodes]), states, automaton)
    states = torch.tensor([tree.start for tree in trees], device=device)
    _append(found, range(len(trees)), logits, states, automaton)
    return found


def _append(
    found: Sequence[_Columns],
    rows: Sequence[int],
    logits: torch.Tensor,
    states: torch.Tensor,
    automaton: AnswerAutomaton,
) -> None:
    tokens = find_next_tokens(logits, states, automaton=automaton)
    values = zip(
        rows,
        tokens.log_p.double().cpu().numpy(),
        tokens.unit_log_p.double().tolist(),
        tokens.allowed_log_p.double().tolist(),
        tokens.is_finite.tolist(),
        strict=True,
    )
    for row, log_p, unit_log_p, allowed_log_p, is_finite in values:
        found[row].log_p.append(log_p)
        found[row].unit_log_p.append(unit_log_p)
        found[row].allowed_log_p.append(allowed_log_p)
        found[row].is_finite.append(is_finite)


def _run_trees(
    model: PaliGemmaForConditionalGeneration,
    trees: Sequence[_Tree],
    *,
    width: int,
    cache: Cache,
    mask: torch.Tensor,
    pad: int,
) -> torch.Tensor:
    """The hidden states after each token of the trees: (B, width, H)."""
    size, prompt_length = mask.shape
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    if window is not None and prompt_length + width >= window:
        raise InputError(
            f"the prompt of {prompt_length} tokens is too long for the sliding window of {window} tokens of this base "
            "model, so that OCR candidates cannot be scored: turn `ground` off"
        )
    tokens = torch.full((size, width), pad)
    depths = torch.ones(size, width, dtype=torch.long)
    attends = torch.eye(width, dtype=torch.bool).repeat(size, 1, 1)  # padding attends to itself, and nothing to it
    for row, tree in enumerate(trees):
        count = len(tree.tokens)
        tokens[row, :count] = torch.tensor(tree.tokens, dtype=torch.long)
        depths[row, :count] = torch.tensor(tree.depths, dtype=torch.long)
        for node, parent in enumerate(tree.parents):
            if parent != _PROMPT:  # what the one before attends to, and itself
                attends[row, node] |= attends[row, parent]
    attends = torch.cat([mask.bool()[:, None].expand(-1, width, -1), attends.to(mask.device)], dim=2)
    bias = torch.zeros(attends.shape, dtype=model.dtype, device=mask.device)
    bias.masked_fill_(~attends, torch.finfo(model.dtype).min)
    outputs = model.model(
        input_ids=tokens.to(mask.device),
        attention_mask=bias[:, None],
        position_ids=mask.sum(-1, keepdim=True) + depths.to(mask.device),
        cache=cache,
        use_cache=True,
    )
    cache.crop(-width)
    return outputs.last_hidden_state


def _logits_of(model: PaliGemmaForConditionalGeneration, hidden: torch.Tensor) -> torch.Tensor:
    """As the model's forward computes them; there, those of padding would be computed too."""
    logits = model.lm_head(hidden)
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap
