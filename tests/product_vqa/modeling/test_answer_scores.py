"""Probabilities of given answers, in one forward: those of a step at a time, whatever else is in the batch."""

import math
from typing import Any

import pytest
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from product_vqa.errors import InputError
from product_vqa.modeling.constrained_decoding import AnswerAutomaton
from tests.product_vqa.modeling.brute_force import ALL_WATTAGES, FEW_ANSWERS, log_probability
from tests.product_vqa.modeling.challenge import generate_answers, make_generation_batch
from tests.tiny import make_image, make_rows

CANDIDATES = {
    "item_weight": ["500.0 gram", "500.0 kilogram", "50.0 gram", "1.25 pound"],
    "wattage": ["60.0 watt"],
    "maximum_weight_recommendation": [],
    "height": ["12.5 centimetre", "12.5 inch"],
}


def ask(model: PaliGemmaForConditionalGeneration, rows: list[dict[str, Any]], **options: Any) -> list[Any]:
    processor = options["processor"]
    names = [row["entity_name"] for row in rows]
    return generate_answers(model, make_generation_batch(rows, processor=processor), entity_names=names, **options)


def answers_of(answer: Any) -> dict[str, Any]:
    return {one.prediction: one for one in (answer, *answer.alternatives)}


@pytest.mark.parametrize("num_beams", [1, 2])
def test_scores_are_those_worked_out_step_by_step(
    processor: PaliGemmaProcessor, model: PaliGemmaForConditionalGeneration, automaton: AnswerAutomaton, num_beams: int
) -> None:
    """Questions of different lengths and different numbers of candidates, in one batch."""
    rows = [{"image": make_image(seed), "entity_name": name} for seed, name in enumerate(CANDIDATES)]
    given = [dict.fromkeys(candidates, 0.0) for candidates in CANDIDATES.values()]
    options = {"processor": processor, "automaton": automaton, "num_beams": num_beams}
    plain = ask(model, rows, **options)
    for row, candidates, answer, other in zip(
        rows, given, ask(model, rows, candidates=given, **options), plain, strict=True
    ):
        found, before = answers_of(answer), answers_of(other)
        assert {*found} == {*candidates, *before}  # the search found what it finds without candidates
        for text in candidates:
            total, number, own = log_probability(model, processor, automaton, row, text)
            assert found[text].confidence == pytest.approx(math.exp(total), rel=1e-3)
            assert found[text].number_confidence == pytest.approx(math.exp(number), rel=1e-3)
            assert found[text].confidence * found[text].allowed_probability == pytest.approx(math.exp(own), rel=1e-3)
        for text, one in before.items():
            assert found[text].confidence == pytest.approx(one.confidence, rel=1e-3)


def test_all_answers_together_are_certain(
    processor: PaliGemmaProcessor, model: PaliGemmaForConditionalGeneration
) -> None:
    """200 answers in one tree, which has ten, a hundred and more branches."""
    small = AnswerAutomaton.from_tokenizer(processor.tokenizer, schema=FEW_ANSWERS)
    row = make_rows(1)[0] | {"entity_name": "wattage"}
    (answer,) = ask(model, [row], processor=processor, automaton=small, candidates=[dict.fromkeys(ALL_WATTAGES, 0.0)])
    found = answers_of(answer)
    assert {*found} == {*ALL_WATTAGES}
    assert sum(one.confidence for one in found.values()) == pytest.approx(1.0, abs=1e-4)
    text = ALL_WATTAGES[77]
    assert found[text].confidence == pytest.approx(
        math.exp(log_probability(model, processor, small, row, text)[0]), rel=1e-3
    )


def test_a_row_is_not_searched_where_no_other_answer_can_be_above_the_best_candidate(
    processor: PaliGemmaProcessor, model: PaliGemmaForConditionalGeneration, automaton: AnswerAutomaton
) -> None:
    rows = [{"image": make_image(seed), "entity_name": name} for seed, name in enumerate(CANDIDATES)]
    given = [dict.fromkeys(candidates, 40.0) for candidates in CANDIDATES.values()]
    options = {"processor": processor, "automaton": automaton}
    answers, plain = ask(model, rows, candidates=given, **options), ask(model, rows, **options)
    for row, candidates in enumerate(given):
        if candidates:
            assert {*answers_of(answers[row])} == {*candidates}
    # The row without candidates was searched alone, with its own part of the cache.
    assert answers[2].prediction == plain[2].prediction
    assert answers[2].confidence == pytest.approx(plain[2].confidence, rel=1e-3)


def test_an_answer_that_is_not_valid_has_no_score(
    processor: PaliGemmaProcessor, model: PaliGemmaForConditionalGeneration, automaton: AnswerAutomaton
) -> None:
    row = make_rows(1)[0] | {"entity_name": "wattage"}
    given = {"5.0 gram": 0.0, "5 watt": 0.0, "5.0 watt or so": 0.0, "5.0": 0.0, "": 0.0, "5.0 watt": 0.0}
    (answer,) = ask(model, [row], processor=processor, automaton=automaton, candidates=[given])
    assert {*answers_of(answer)} & {*given} == {"5.0 watt"}


def test_logits_that_are_not_finite_give_no_score(
    processor: PaliGemmaProcessor, model: PaliGemmaForConditionalGeneration, automaton: AnswerAutomaton
) -> None:
    """In the second row; the first one has its answers as ever."""
    rows = [{"image": make_image(seed), "entity_name": "item_weight"} for seed in range(2)]
    given = [dict.fromkeys(CANDIDATES["item_weight"], 0.0)] * 2
    options = {"processor": processor, "automaton": automaton, "candidates": given}
    expected = ask(model, rows, **options)

    def spoil(module: Any, inputs: Any, output: Any) -> Any:
        output.logits[1, :, :] = float("nan")
        return output

    hook = model.register_forward_hook(spoil)  # of the prompt, and of each step of the search
    try:
        first, second = ask(model, rows, **options)
    finally:
        hook.remove()
    assert first == expected[0]
    assert (second.prediction, second.confidence, second.alternatives) == ("", 0.0, ())


def test_a_prompt_beyond_the_sliding_window_is_refused(
    processor: PaliGemmaProcessor, model: PaliGemmaForConditionalGeneration, automaton: AnswerAutomaton
) -> None:
    text_config = model.config.get_text_config()
    if getattr(text_config, "sliding_window", None) is None:
        pytest.skip("PaliGemma has no sliding window; PaliGemma 2 has one")
    row = make_rows(1)[0] | {"entity_name": "wattage"}
    window, text_config.sliding_window = text_config.sliding_window, 4
    try:
        with pytest.raises(InputError, match="too long for the sliding window of 4 tokens"):
            ask(model, [row], processor=processor, automaton=automaton, candidates=[{"5.0 watt": 0.0}])
    finally:
        text_config.sliding_window = window
