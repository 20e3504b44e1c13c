"""The rule that ranks labels. Expected scores are computed by hand from the module's constants."""

import math

import pytest

from dataset_builder.label_ranking import Opinion, is_same, judge, of_candidates, of_predictions
from product_vqa.ocr.candidate import Candidate, Evidence
from product_vqa.task.attributes import Attribute
from product_vqa.task.kinds import ChoiceKind, TextKind
from product_vqa.task.schema import CHALLENGE

WEIGHT = CHALLENGE["item_weight"]
BOX = (0.0, 0.0, 0.5, 0.5)


def candidate(
    answer: str, points: float = 4.0, *, evidence: Evidence = Evidence.VALUE, score: float = 1.0
) -> Candidate:
    return Candidate(answer, evidence, BOX, score, points)


def score(opinion: Opinion | None) -> float:
    assert opinion is not None
    return opinion.score


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        # The label has 0.96; the rest, 0.04, is not listed, and half of it goes to the best other answer.
        ({"500.0 gram": 0.96}, math.log((0.02 + 0.01) / (0.96 + 0.01))),
        # The same amount in another unit is the label.
        ({"0.5 kilogram": 0.96}, math.log((0.02 + 0.01) / (0.96 + 0.01))),
        # Another answer; a tenth of what is not listed goes to the label.
        ({"5.0 gram": 0.9}, math.log((0.9 + 0.01) / (0.01 + 0.01))),
        # The label is an alternative.
        ({"5.0 gram": 0.6, "500.0 gram": 0.4}, math.log((0.6 + 0.01) / (0.4 + 0.01))),
        # Equal amounts are one answer.
        ({"5.0 gram": 0.3, "0.005 kilogram": 0.3, "500.0 gram": 0.4}, math.log((0.6 + 0.01) / (0.4 + 0.01))),
        # An answer that is not canonical is another one.
        ({"500 g": 1.0}, math.log((1.0 + 0.01) / (0.0 + 0.01))),
        # "The image does not show it" is another answer, but no suggestion.
        ({"": 0.8, "500.0 gram": 0.2}, math.log((0.8 + 0.01) / (0.2 + 0.01))),
    ],
)
def test_a_prediction_scores_the_log_odds_of_the_best_other_answer(answers: dict[str, float], expected: float) -> None:
    assert score(of_predictions("500.0 gram", [answers], WEIGHT)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answers", "other", "answer"),
    [
        # Half of the 0.58 that is not listed is more than the other answer has, and no answer is known to have it.
        ({"500.0 gram": 0.4, "7.0 gram": 0.02}, 0.29, ""),
        ({"500.0 gram": 0.4, "7.0 gram": 0.5}, 0.5, "7.0 gram"),
        ({"500.0 gram": 0.4}, 0.3, ""),
    ],
)
def test_no_answer_is_suggested_that_is_less_likely_than_one_that_is_not_listed(
    answers: dict[str, float], other: float, answer: str
) -> None:
    opinion = of_predictions("500.0 gram", [answers], WEIGHT)
    assert opinion is not None and (opinion.other, opinion.answer) == (pytest.approx(other), answer)
    assert judge(WEIGHT, opinion, None).suggestion == answer


def test_several_predictions_count_by_their_mean() -> None:
    opinion = of_predictions("500.0 gram", [{"500.0 gram": 1.0}, {"5.0 gram": 0.8, "500.0 gram": 0.2}], WEIGHT)
    assert opinion is not None
    assert (opinion.label, opinion.other, opinion.answer) == (pytest.approx(0.6), pytest.approx(0.4), "5.0 gram")
    assert of_predictions("500.0 gram", [], WEIGHT) is None


@pytest.mark.parametrize(
    ("candidates", "expected", "answer"),
    [
        # The label is printed, and nothing else is.
        ([candidate("500.0 gram")], math.log((0 + 0.05) / (0.9 + 0.05)), ""),
        ([candidate("0.5 kilogram")], math.log((0 + 0.05) / (0.9 + 0.05)), ""),
        # Something else is printed, by its evidence and the engine's score.
        ([candidate("5.0 gram")], math.log((0.9 + 0.05) / 0.05), "5.0 gram"),
        ([candidate("5.0 gram", score=0.5)], math.log((0.45 + 0.05) / 0.05), "5.0 gram"),
        ([candidate("5.0 gram", evidence=Evidence.NUMBER)], math.log((0.3 + 0.05) / 0.05), "5.0 gram"),
        # Both are printed, with the same points: the other one is as likely, so half of what is printed.
        ([candidate("5.0 gram"), candidate("500.0 gram")], math.log((0.45 + 0.05) / (0.9 + 0.05)), "5.0 gram"),
        # Two points are odds of e^2.
        (
            [candidate("5.0 gram", 4.0), candidate("500.0 gram", 2.0)],
            math.log((0.9 / (1 + math.exp(-2)) + 0.05) / (0.9 + 0.05)),
            "5.0 gram",
        ),
        # Of two others, the one that the rules prefer is the answer, though another one was read better.
        (
            [candidate("5.0 gram", 4.0, score=0.8), candidate("6.0 gram", 2.0)],
            math.log((0.9 + 0.05) / 0.05),
            "5.0 gram",
        ),
        # No answer is found: the label may not be printed at all.
        ([], math.log((0.15 + 0.05) / 0.05), ""),
    ],
)
def test_ocr_scores_the_log_odds_of_what_is_printed(candidates: list[Candidate], expected: float, answer: str) -> None:
    opinion = of_candidates("500.0 gram", candidates, WEIGHT)
    assert score(opinion) == pytest.approx(expected)
    assert opinion is not None and opinion.answer == answer


def test_ocr_has_no_opinion_about_what_its_rules_do_not_look_for() -> None:
    text = Attribute("brand", "Which brand?", TextKind())
    yes_no = Attribute("organic", "Organic?", ChoiceKind({"yes": (), "no": ()}, name="yes_no"))
    choice = Attribute("colour", "Which colour?", ChoiceKind({"red": (), "blue": ()}))
    assert of_candidates("acme", [], text) is None and of_candidates("yes", [], yes_no) is None
    assert score(of_candidates("red", [], choice)) > 0


def test_sources_add_up_and_one_without_an_opinion_adds_nothing() -> None:
    model, ocr = Opinion(0.2, 0.7, "5.0 gram", 0.01), Opinion(0.0, 0.8, "6.0 gram", 0.05)
    both = judge(WEIGHT, model, ocr)
    assert both.score == pytest.approx(model.score + ocr.score)
    assert (both.predictions, both.ocr, both.suggestion) == (model.score, ocr.score, "6.0 gram")
    assert judge(WEIGHT, model, None).score == model.score
    assert judge(WEIGHT, None, ocr).score == ocr.score
    assert judge(WEIGHT, None, None).score == 0 and judge(WEIGHT, None, None).suggestion == ""


def test_what_no_answer_can_be_is_not_suggested() -> None:
    opinion = Opinion(0.0, 0.9, "1234567890.0 gram", 0.05)  # more digits than an answer may have
    assert judge(WEIGHT, None, opinion).suggestion == ""


def test_texts_that_are_not_canonical_are_compared_as_texts() -> None:
    assert is_same(WEIGHT, "1.0 kilogram", "1000.0 gram")
    assert not is_same(WEIGHT, "1 kg", "1000.0 gram") and is_same(WEIGHT, "1 kg", "1 kg")
    assert not is_same(WEIGHT, "", "1.0 gram") and is_same(WEIGHT, "", "")
