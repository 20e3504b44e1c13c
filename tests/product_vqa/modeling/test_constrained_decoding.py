"""The automaton accepts canonical answers in the entity's units, and nothing else."""

import re

import pytest
from transformers import PaliGemmaProcessor, PreTrainedTokenizerBase

from product_vqa.errors import InputError
from product_vqa.modeling.constrained_decoding import (
    MAX_DECIMALS,
    MAX_INTEGER_DIGITS,
    NUMBER_PATTERN,
    AnswerAutomaton,
    max_answer_tokens,
)
from product_vqa.task.schema import ENTITIES, UNITS_BY_ENTITY


def accepts(automaton: AnswerAutomaton, tokenizer: PreTrainedTokenizerBase, entity_name: str, text: str) -> bool:
    """Return whether the automaton accepts the text as the tokenizer splits it."""
    state = automaton.start_by_entity[entity_name]
    for token in [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]:
        columns = (automaton.token_ids[state] == token).nonzero()
        if len(columns) != 1:
            return False
        state = int(automaton.next_states[state, columns[0, 0]])
    return state == automaton.end_state


@pytest.mark.parametrize("entity_name", ENTITIES)
def test_the_automaton_accepts_canonical_answers_in_the_entitys_units_and_nothing_else(
    automaton: AnswerAutomaton, processor, entity_name: str
) -> None:
    good = ("0.0", "34.0", "12.5", "0.25", "100.0", "999999.9999", "0.0001", "10.01")
    bad = ("", "34", "034.0", "34.50", "34.", ".5", "1234567.0", "1.23456", "3.4.0", "-1.0")
    for unit in UNITS_BY_ENTITY[entity_name]:
        for number in good:
            assert accepts(automaton, processor.tokenizer, entity_name, f"{number} {unit}")
            assert re.fullmatch(NUMBER_PATTERN, number)
        for number in bad:
            assert not accepts(automaton, processor.tokenizer, entity_name, f"{number} {unit}")
    other = "volt" if entity_name != "voltage" else "gram"
    assert not accepts(automaton, processor.tokenizer, entity_name, f"34.0 {other}")
    assert not accepts(automaton, processor.tokenizer, entity_name, "")


def test_the_automaton_knows_the_length_of_its_longest_answer(
    processor: PaliGemmaProcessor, automaton: AnswerAutomaton
) -> None:
    number = "9" * MAX_INTEGER_DIGITS + "." + "9" * MAX_DECIMALS
    lengths = [
        len(processor.tokenizer.encode(f"{number} {unit}", add_special_tokens=False)) + 1
        for units in UNITS_BY_ENTITY.values()
        for unit in units
    ]
    assert automaton.max_tokens == max(lengths) == max_answer_tokens(processor.tokenizer)


def test_an_answer_may_be_empty_if_it_is_allowed(processor: PaliGemmaProcessor) -> None:
    allowed = AnswerAutomaton.from_tokenizer(processor.tokenizer, allow_empty=True)
    assert accepts(allowed, processor.tokenizer, "width", "")
    assert accepts(allowed, processor.tokenizer, "width", "3.0 inch")


def test_a_tokenizer_that_joins_digits_is_refused_with_a_remedy(processor: PaliGemmaProcessor) -> None:
    class JoinedDigits:
        """The tokenizer, but `12` is one token."""

        eos_token_id, pad_token_id = 1, 0

        def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
            return processor.tokenizer.encode(text.replace("12", "1"), add_special_tokens=False)

        def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
            return processor.tokenizer.convert_ids_to_tokens(ids)

    with pytest.raises(InputError, match=r"not into one token per digit. .*`constrain` off"):
        AnswerAutomaton.from_tokenizer(JoinedDigits())
