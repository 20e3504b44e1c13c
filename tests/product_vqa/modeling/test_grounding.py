"""Grounded answers: their probabilities are those of brute force over all answers, and no more than one."""

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from product_vqa.modeling.answer import Answer
from product_vqa.modeling.calibration import Calibration, Grounding, Scaling
from product_vqa.modeling.constrained_decoding import AnswerAutomaton
from product_vqa.modeling.grounding import (
    FEATURES,
    MAX_SCORED,
    calibrate_answers,
    find_features,
    ground_answer,
    weigh_candidates,
)
from product_vqa.ocr.candidate import Candidate, Evidence
from tests.product_vqa.modeling.brute_force import ALL_WATTAGES, FEW_ANSWERS, log_probability
from tests.product_vqa.modeling.challenge import generate_answers, make_generation_batch
from tests.tiny import make_rows

WEIGHTS = {"value": 2.0, "joined": 1.0, "number": -1.5, "is_first": 3.0, "share": 1.0, "doubt": -4.0, "empty": 2.5}


def candidate(
    answer: str, *, evidence: Evidence = Evidence.VALUE, score: float = 1.0, points: float = 0.0
) -> Candidate:
    return Candidate(answer, evidence, (0.1, 0.2, 0.3, 0.4), score, points)


CANDIDATES = [
    candidate("7.5 watt", points=3.0),
    candidate("7.5 kilowatt", evidence=Evidence.NUMBER, score=0.9, points=1.0),
    candidate("2.0 watt", evidence=Evidence.JOINED, score=0.7),
]


def tilt(probabilities: Mapping[str, float], log_weights: Mapping[str, float]) -> dict[str, float]:
    """By the definition, over all answers."""
    weighted = {text: p * math.exp(log_weights.get(text, 0.0)) for text, p in probabilities.items()}
    return {text: p / sum(weighted.values()) for text, p in weighted.items()}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.faults) for seed in (1, 2))])
def test_probabilities_are_those_of_brute_force(
    processor: PaliGemmaProcessor, model: PaliGemmaForConditionalGeneration, seed: int
) -> None:
    """All 200 answers, each worked out a step at a time, then weighted and normalized."""
    small = AnswerAutomaton.from_tokenizer(processor.tokenizer, schema=FEW_ANSWERS)
    row = make_rows(3)[seed] | {"entity_name": "wattage"}
    exact = {text: log_probability(model, processor, small, row, text) for text in ALL_WATTAGES}
    log_weights = weigh_candidates(CANDIDATES, WEIGHTS, may_be_empty=False)
    expected = tilt({text: math.exp(total) for text, (total, _, _) in exact.items()}, log_weights)
    numbers: dict[str, float] = {}
    for text, probability in expected.items():
        numbers[text.split()[0]] = numbers.get(text.split()[0], 0.0) + probability
    batch = make_generation_batch([row], processor=processor)
    for num_beams in (1, 8):
        (answer,) = generate_answers(
            model, batch, entity_names=["wattage"], processor=processor, automaton=small, num_beams=num_beams,
            candidates=[log_weights],
        )  # fmt: skip
        grounded = ground_answer(answer, CANDIDATES, Grounding(WEIGHTS))
        found = {one.prediction: one for one in (grounded, *grounded.alternatives)}
        assert {*log_weights} <= {*found}
        for text, one in found.items():
            assert one.confidence == pytest.approx(expected[text], rel=2e-3)
            assert one.number_confidence == pytest.approx(numbers[text.split()[0]], rel=2e-3)
            assert one.unit_confidence == pytest.approx(expected[text] / numbers[text.split()[0]], rel=2e-3)
            assert one.box == ((0.1, 0.2, 0.3, 0.4) if text in log_weights else None)
        assert grounded.prediction == max(expected, key=lambda text: expected[text])


@settings(max_examples=100, deadline=None)
@given(
    probabilities=st.lists(st.floats(0, 1), min_size=3, max_size=6),
    weights=st.fixed_dictionaries({name: st.floats(-15, 15) for name in FEATURES}),
    shown=st.none() | st.floats(0, 1),
)
def test_whatever_the_weights_probabilities_are_probabilities(
    probabilities: list[float], weights: dict[str, float], shown: float | None
) -> None:
    total = sum(probabilities) or 1.0
    scale = 1.0 if shown is None else shown
    texts = [*(one.answer for one in CANDIDATES), "1.0 watt", "1.0 kilowatt", "9.9 watt"][: len(probabilities)]
    best, *others = [
        Answer(
            text, text, p / total * scale, number_confidence=min(1.0, p / total * scale), unit_confidence=1.0,
            allowed_probability=0.5, value=text.split()[0], unit=text.split()[1], shown=shown,
        )
        for text, p in zip(texts, probabilities, strict=True)
    ]  # fmt: skip
    answer = replace(best, alternatives=tuple(others))
    grounded = ground_answer(answer, CANDIDATES, Grounding(weights))
    everything = [grounded, *grounded.alternatives]
    for one in everything:
        for value in (one.confidence, one.number_confidence, one.unit_confidence):
            assert value is not None and 0 <= value <= 1
        assert one.shown is None or 0 <= one.shown <= 1
    assert sum(one.confidence for one in everything) <= 1 + 1e-6
    assert [one.confidence for one in everything] == sorted((one.confidence for one in everything), reverse=True)


def make_answer(text: str, confidence: float, **changes: object) -> Answer:
    value, _, unit = text.partition(" ")
    return replace(
        Answer(text, text, confidence, value=value, unit=unit, allowed_probability=1.0, number_confidence=confidence,
               unit_confidence=1.0),
        **changes,  # type: ignore[arg-type]
    )  # fmt: skip


def test_without_candidates_an_answer_keeps_its_probability() -> None:
    answer = make_answer("5.0 watt", 0.75, alternatives=(make_answer("6.0 watt", 0.5 / 4),))
    grounded = ground_answer(answer, [], Grounding(WEIGHTS))
    assert (grounded.prediction, grounded.confidence, grounded.box) == ("5.0 watt", pytest.approx(0.75), None)
    assert grounded.alternatives[0].confidence == pytest.approx(0.125)


def test_where_neither_reads_anything_the_empty_answer_gains() -> None:
    empty = Answer("", "", 0.5, 0.5, 1.0, 1.0, shown=0.5)
    answer = make_answer("5.0 watt", 0.4, shown=0.5, alternatives=(empty,))
    grounded = ground_answer(answer, [], Grounding({"empty": math.log(3)}))
    assert (grounded.prediction, grounded.confidence) == ("", pytest.approx(0.75))  # 0.5 : 0.5 becomes 1.5 : 0.5
    assert grounded.shown == pytest.approx(0.25)
    assert grounded.alternatives[0].confidence == pytest.approx(0.2)
    kept = ground_answer(answer, CANDIDATES, Grounding({"empty": math.log(3)}))
    assert kept.shown == pytest.approx(0.5) and kept.prediction == ""


def test_a_row_that_nobody_read_keeps_its_answer_and_its_own_calibration() -> None:
    answers = [
        make_answer("5.0 watt", 0.5),
        make_answer("7.5 watt", 0.5),
        Answer("", "", 0.0, allowed_probability=0.0),
    ]
    grounding = Grounding({"value": 1.0}, scalings=Calibration(answer=Scaling(bias=2.0)))
    calibration = Calibration(answer=Scaling(bias=1.0), grounding=grounding)
    unread, read, failed = calibrate_answers(answers, [None, CANDIDATES[:1], CANDIDATES], calibration)
    assert unread.confidence == pytest.approx(1 / (1 + math.exp(-1.0)))
    odds = math.exp(1.0)  # of 0.5, with the weight of the candidate
    assert read.confidence == pytest.approx(1 / (1 + math.exp(-2.0) / odds))
    assert failed == answers[2]
    plain = calibrate_answers(answers[:1], None, calibration)
    assert plain == [unread]


@pytest.mark.parametrize("excess", [0.0, 2e-6])
def test_a_model_that_is_sure_is_not_turned_around_by_rounding(excess: float) -> None:
    """The candidates together may have more than 1 in float32. A weight below 1 does not make that nothing."""
    answer = make_answer(
        "7.5 watt", 1.0, alternatives=(make_answer("5.0 watt", 1e-7), make_answer("2.0 watt", excess))
    )
    grounded = ground_answer(answer, [CANDIDATES[0], CANDIDATES[2]], Grounding({"is_first": -5.0}))
    assert grounded.prediction == "7.5 watt" and grounded.confidence > 0.99
    assert sum(one.confidence for one in (grounded, *grounded.alternatives)) <= 1 + 1e-9
    # At -15, the model's 1e-7 for all other answers is as likely.
    turned = ground_answer(answer, [CANDIDATES[0]], Grounding({"is_first": -15.0}))
    found = {one.prediction: one.confidence for one in (turned, *turned.alternatives)}
    assert found["7.5 watt"] == pytest.approx(math.exp(-15) / (math.exp(-15) + 1e-7 + excess), rel=1e-3)


def test_a_candidate_with_a_large_weight_overrules_the_model_and_the_model_a_small_one() -> None:
    answer = make_answer("5.0 watt", 0.9, alternatives=(make_answer("7.5 watt", 0.01),))
    grounded = ground_answer(answer, CANDIDATES[:1], Grounding({"is_first": math.log(1000)}))
    assert grounded.prediction == "7.5 watt" and grounded.box == CANDIDATES[0].box
    assert grounded.confidence == pytest.approx(10 / 10.99, rel=1e-6)
    assert grounded.alternatives[0].confidence == pytest.approx(0.9 / 10.99, rel=1e-6)
    kept = ground_answer(answer, CANDIDATES[:1], Grounding({"is_first": math.log(10)}))
    assert (kept.prediction, kept.box) == ("5.0 watt", None)


def test_grounded_confidences_have_their_own_scalings() -> None:
    answer = make_answer("7.5 watt", 0.5)
    grounding = Grounding({}, scalings=Calibration(answer=Scaling(bias=1.0)))
    assert ground_answer(answer, CANDIDATES, grounding).confidence == pytest.approx(1 / (1 + math.exp(-1)))


def test_features_by_hand() -> None:
    first, second, third = find_features(CANDIDATES)
    total = 1 + math.exp(-2) + math.exp(-3)
    assert first == pytest.approx({"value": 1.0, "is_first": 1.0, "share": 1 / total, "doubt": 0.0})
    assert second == pytest.approx({"number": 1.0, "is_first": 0.0, "share": math.exp(-2) / total, "doubt": 0.1})
    assert third == pytest.approx({"joined": 1.0, "is_first": 0.0, "share": math.exp(-3) / total, "doubt": 0.3})
    assert {name for own in (first, second, third) for name in own} < {*FEATURES}


def test_the_best_candidates_are_scored_and_no_others() -> None:
    many = [candidate(f"{number}.0 watt", points=-number) for number in range(MAX_SCORED + 4)]
    assert [*weigh_candidates(many, WEIGHTS, may_be_empty=False)] == [one.answer for one in many[:MAX_SCORED]]
    assert weigh_candidates([], WEIGHTS, may_be_empty=False) == {}
    assert weigh_candidates(None, WEIGHTS, may_be_empty=True) == {}
    assert weigh_candidates([], WEIGHTS, may_be_empty=True) == {"": 2.5}
    assert weigh_candidates(many[:1], WEIGHTS, may_be_empty=True)[""] == 0.0
