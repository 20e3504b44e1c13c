"""The next tokens of an answer: those of the automaton's table, with the probabilities of a softmax over them."""

import math

import pytest
import torch
from transformers import PaliGemmaProcessor

from product_vqa.modeling.constrained_decoding import AnswerAutomaton
from product_vqa.modeling.next_tokens import IMPOSSIBLE, find_likely_tokens, find_next_tokens
from product_vqa.task.schema import ENTITIES


def test_allowed_tokens_share_all_probability(processor: PaliGemmaProcessor, automaton: AnswerAutomaton) -> None:
    states = automaton.start_states([*ENTITIES])
    logits = torch.randn(len(states), len(processor.tokenizer), generator=torch.Generator().manual_seed(0))
    tokens = find_next_tokens(logits, states, automaton=automaton)
    assert tokens.log_p.exp().sum(-1).tolist() == pytest.approx([1.0] * len(states), abs=1e-5)
    for row, state in enumerate(states.tolist()):
        allowed = automaton.token_ids[state][automaton.token_ids[state] >= 0]
        softmax = logits[row].softmax(-1)[allowed]
        assert tokens.log_p[row, : len(allowed)].tolist() == pytest.approx(
            (softmax / softmax.sum()).log().tolist(), abs=1e-4
        )
        assert (tokens.log_p[row, len(allowed) :] == IMPOSSIBLE).all()
        assert tokens.allowed_log_p[row].item() == pytest.approx(math.log(softmax.sum()), abs=1e-4)


def test_after_the_end_there_is_padding_alone(processor: PaliGemmaProcessor, automaton: AnswerAutomaton) -> None:
    states = torch.tensor([automaton.end_state])
    tokens = find_next_tokens(torch.randn(1, len(processor.tokenizer)), states, automaton=automaton)
    assert tokens.token_ids[0, 0] == processor.tokenizer.pad_token_id
    assert (tokens.log_p[0, 0], tokens.allowed_log_p[0]) == (0.0, 0.0)


def test_logits_that_are_not_finite_are_marked(processor: PaliGemmaProcessor, automaton: AnswerAutomaton) -> None:
    states = automaton.start_states(["voltage", "voltage"])
    logits = torch.zeros(2, len(processor.tokenizer))
    logits[1] = float("nan")
    assert find_next_tokens(logits, states, automaton=automaton).is_finite.tolist() == [True, False]


def test_without_an_automaton_the_likeliest_of_all_tokens_follow() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [5.0, 0.0, 0.0]])
    states, ended = torch.zeros(2, dtype=torch.long), torch.tensor([False, True])
    tokens = find_likely_tokens(logits, states, ended, pad=2, num_candidates=2)
    assert tokens.token_ids.tolist() == [[1, 2], [2, 2]]
    assert tokens.log_p[0].tolist() == pytest.approx(logits[0].log_softmax(-1)[[1, 2]].tolist())
    assert tokens.log_p[1].tolist() == [0.0, IMPOSSIBLE]
