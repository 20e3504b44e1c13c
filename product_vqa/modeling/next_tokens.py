"""The tokens that may follow the beginning of an answer, and how likely each of them is."""

from dataclasses import dataclass

import torch
from torch.nn import functional

from product_vqa.modeling.constrained_decoding import AnswerAutomaton, TextStates

IMPOSSIBLE = float("-inf")  # the log probability of what is not allowed


@dataclass
class NextTokens:
    """The possible next tokens of N beginnings: (N, K). Unused entries have log probability -inf."""

    token_ids: torch.Tensor
    next_states: torch.Tensor
    begins_unit: torch.Tensor
    log_p: torch.Tensor  # normalized over these tokens
    unit_log_p: torch.Tensor  # (N,): that any unit begins now
    allowed_log_p: torch.Tensor  # (N,): of all these tokens, before the others were masked
    is_finite: torch.Tensor  # (N,) bool; if False, all tokens are equally likely, so that no index is invalid


def find_next_tokens(
    logits: torch.Tensor, states: torch.Tensor, *, automaton: AnswerAutomaton, num_candidates: int = 1
) -> NextTokens:
    """Return the tokens that the automaton allows in some states (N,), given the logits (N, V) there.

    Of a free text, the `num_candidates` most likely ones.
    """
    token_ids = automaton.token_ids[states]
    next_states = automaton.next_states[states]
    begins_unit = automaton.begins_unit[states]
    if (missing := num_candidates - token_ids.shape[1]) > 0:  # no state has as many tokens as there are beams
        token_ids = functional.pad(token_ids, (0, missing), value=-1)
        next_states = torch.cat([next_states, states[:, None].repeat(1, missing)], dim=1)
        begins_unit = functional.pad(begins_unit, (0, missing))
    is_candidate = token_ids >= 0
    allowed = logits.gather(1, token_ids.clamp(min=0)).float()
    is_finite = (allowed.isfinite() | ~is_candidate).all(-1)
    allowed = allowed.masked_fill(~is_finite[:, None], 0.0).masked_fill(~is_candidate, IMPOSSIBLE)
    log_p = allowed.log_softmax(-1)
    # 64 rows at a time: in float32, a vocabulary of 257k takes 1 MB per row.
    all_tokens = torch.cat([rows.float().logsumexp(-1) for rows in torch.split(logits, 64)])
    allowed_log_p = (allowed.logsumexp(-1) - all_tokens).nan_to_num(nan=IMPOSSIBLE, neginf=IMPOSSIBLE).clamp(max=0.0)
    candidates = NextTokens(
        token_ids=token_ids,
        next_states=next_states,
        begins_unit=begins_unit,
        log_p=log_p,
        unit_log_p=log_p.masked_fill(~begins_unit, IMPOSSIBLE).logsumexp(-1),
        allowed_log_p=allowed_log_p.masked_fill(states == automaton.end_state, 0.0),
        is_finite=is_finite,
    )
    if automaton.text is not None:
        _find_text(
            candidates, logits, states, text=automaton.text, all_tokens=all_tokens, num_candidates=num_candidates
        )
    return candidates


def _find_text(
    candidates: NextTokens,
    logits: torch.Tensor,
    states: torch.Tensor,
    *,
    text: TextStates,
    all_tokens: torch.Tensor,
    num_candidates: int,
) -> None:
    """Fill in the `num_candidates` most likely tokens of the states within a free text."""
    in_text = text.is_text[states].nonzero()[:, 0]
    for rows in torch.split(in_text, 64):
        own = states[rows]
        is_allowed = text.is_allowed(own)
        allowed = logits[rows, : is_allowed.shape[1]].float()
        is_finite = (allowed.isfinite() | ~is_allowed).all(-1)
        allowed = allowed.masked_fill(~is_finite[:, None], 0.0).masked_fill(~is_allowed, IMPOSSIBLE)
        all_allowed = allowed.logsumexp(-1)
        best, tokens = allowed.topk(num_candidates)
        candidates.token_ids[rows], candidates.log_p[rows] = -1, IMPOSSIBLE
        candidates.token_ids[rows, :num_candidates] = tokens
        following = torch.where(best == IMPOSSIBLE, own[:, None], text.follow(own, tokens))
        candidates.next_states[rows, :num_candidates] = following
        candidates.log_p[rows, :num_candidates] = best - all_allowed[:, None]
        allowed_log_p = (all_allowed - all_tokens[rows]).nan_to_num(nan=IMPOSSIBLE, neginf=IMPOSSIBLE)
        candidates.allowed_log_p[rows] = allowed_log_p.clamp(max=0.0)
        candidates.is_finite[rows] = is_finite


def find_likely_tokens(
    logits: torch.Tensor, states: torch.Tensor, ended: torch.Tensor, *, pad: int, num_candidates: int
) -> NextTokens:
    """Return the `num_candidates` most likely of all tokens; of an answer that has `ended` (N,), padding."""
    log_p, token_ids = logits.float().log_softmax(-1).topk(num_candidates)
    is_finite = log_p[:, 0].isfinite()  # a single NaN or +inf makes all of them NaN
    is_padded = ended[:, None] | ~is_finite[:, None]
    only_pad = torch.full_like(log_p, IMPOSSIBLE)
    only_pad[:, 0] = 0.0
    log_p = torch.where(is_padded, only_pad, log_p)
    return NextTokens(
        token_ids=token_ids.masked_fill(is_padded, pad),
        next_states=states[:, None].expand_as(token_ids),
        begins_unit=torch.zeros_like(token_ids, dtype=torch.bool),
        log_p=log_p,
        unit_log_p=log_p[:, 0],
        allowed_log_p=torch.zeros_like(log_p[:, 0]),
        is_finite=is_finite,
    )
