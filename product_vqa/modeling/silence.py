"""How likely an image shows an attribute, from the logits of the first token of an answer."""

import torch

from product_vqa.modeling.constrained_decoding import AnswerAutomaton

_IMPOSSIBLE = float("-inf")


def find_shown(logits: torch.Tensor, start: torch.Tensor, *, automaton: AnswerAutomaton, eos: int) -> torch.Tensor:
    """1 - P(empty answer), among the allowed tokens of the first step: (B,) float64.

    `logits` (B, V) are those of the first token and `start` (B,) the states before it. An answer is empty if the end
    token is its first one, so this is exact: no beam can miss it. 1 where no answer may be empty, and NaN for logits
    that are not finite.
    """
    token_ids = automaton.token_ids[start]
    allowed = logits.gather(1, token_ids.clamp(min=0)).float()
    is_end = token_ids == eos
    others = allowed.masked_fill((token_ids < 0) | is_end, _IMPOSSIBLE).logsumexp(-1)
    empty = allowed.masked_fill(~is_end, _IMPOSSIBLE).logsumexp(-1)
    if automaton.text is not None:
        for rows in torch.split(automaton.text.is_text[start].nonzero()[:, 0], 64):  # 1 MB per row, as when decoding
            is_allowed = automaton.text.is_allowed(start[rows])
            is_allowed[:, eos] = False
            others[rows] = (
                logits[rows, : is_allowed.shape[1]].float().masked_fill(~is_allowed, _IMPOSSIBLE).logsumexp(-1)
            )
    # The difference of the two sums is exact where one of them is nearly everything, and 1 - P would be 0.
    return (others.double() - empty.double()).sigmoid()
