"""Grounded answers: the model's probabilities, weighted by what an OCR engine read in the image.

Each candidate c of the OCR has a weight e^w(c), with w linear in what speaks for it. The probability of an answer a,
which the model gives P(a), becomes

    P'(a) = e^w(a) P(a) / (1 + sum over the candidates of (e^w(c) - 1) P(c))

where w is 0 for every other answer. So it is exact, an answer that the OCR missed stays possible, and a row without
candidates keeps its probabilities. Where OCR found no candidate, the empty answer has a weight of its own. A row whose
image was not read, or whose attribute the rules do not look for, has None in place of candidates, and stays as it is.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from product_vqa.modeling.answer import Answer
from product_vqa.modeling.calibration import Calibration, Grounding
from product_vqa.modeling.generation import is_not_finite
from product_vqa.ocr.candidate import Candidate, Evidence
from product_vqa.task.attributes import Schema

MAX_SCORED = 8  # candidates of a row, the best by the rules: more would cost more than they give
MIN_OTHERS = 1e-9  # the probability of all other answers, of a model that is sure: float32 does not tell less
EMPTY = "empty"  # the feature of the empty answer, where there is no candidate
FEATURES = (*(evidence.value for evidence in Evidence), "is_first", "share", "doubt", EMPTY)


def find_features(candidates: Sequence[Candidate]) -> list[dict[str, float]]:
    """What speaks for each candidate of a row, which the rules have ranked.

    Its evidence; whether it is the first; its share of the points of all, as a softmax; and the engine's doubt.
    """
    total = sum(math.exp(candidate.rank_score - candidates[0].rank_score) for candidate in candidates)
    return [
        {
            candidate.evidence.value: 1.0,
            "is_first": float(position == 0),
            "share": math.exp(candidate.rank_score - candidates[0].rank_score) / total,
            "doubt": 1.0 - candidate.score,
        }
        for position, candidate in enumerate(candidates)
    ]


def weigh_candidates(
    candidates: Sequence[Candidate] | None, weights: Mapping[str, float], *, may_be_empty: bool
) -> dict[str, float]:
    """The logarithm of the weight of each answer that is scored: the best candidates, and "" if it `may_be_empty`."""
    if candidates is None:
        return {}
    scored = candidates[:MAX_SCORED]
    features = find_features(scored) if scored else []
    log_weights = {
        candidate.answer: sum(weights.get(name, 0.0) * value for name, value in own.items())
        for candidate, own in zip(scored, features, strict=True)
    }
    return log_weights | {"": 0.0 if scored else weights.get(EMPTY, 0.0)} if may_be_empty else log_weights


def ground_answer(answer: Answer, candidates: Sequence[Candidate] | None, grounding: Grounding) -> Answer:
    """The grounded answer, with its alternatives, the box that supports it, and calibrated confidences.

    `answer` has the model's own probabilities, and all scored answers are among its alternatives, as
    `generate_answers` gives them. Not for None as `candidates`, nor for logits that were not finite.
    """
    log_weights = weigh_candidates(candidates, grounding.weights, may_be_empty=answer.shown is not None)
    boxes = {candidate.answer: candidate.box for candidate in candidates or ()}
    answers = [replace(one, box=boxes.get(one.prediction)) for one in reweigh(answer, log_weights)]
    best, *others = sorted(answers, key=lambda one: -one.confidence)
    alternatives = tuple(one for one in others if one.confidence > 0)
    return grounding.scalings.apply(replace(best, alternatives=alternatives))


def weigh_rows(
    candidates: Sequence[Sequence[Candidate] | None],
    weights: Mapping[str, float],
    *,
    entity_names: Sequence[str],
    schema: Schema,
) -> list[dict[str, float]]:
    """`weigh_candidates` of the candidates of rows that ask for these attributes."""
    return [
        weigh_candidates(row, weights, may_be_empty=schema[name].not_shown)
        for row, name in zip(candidates, entity_names, strict=True)
    ]


def calibrate_answers(
    answers: Sequence[Answer], candidates: Sequence[Sequence[Candidate] | None] | None, calibration: Calibration
) -> list[Answer]:
    """The model's own answers, grounded where there are candidates, with calibrated confidences."""
    grounding = calibration.grounding
    return [
        calibration.apply(answer)
        if row is None or grounding is None or is_not_finite(answer.text, answer.confidence)
        else ground_answer(answer, row, grounding)
        for answer, row in zip(answers, candidates or [None] * len(answers), strict=True)
    ]


def find_others(probabilities: Mapping[str, float], weighted: Collection[str]) -> float:
    """The probability of all answers that have no weight, at least that of those which are known.

    It is what the weighted ones leave of 1, up to the rounding of the model's dtype: where it is sure of one of them,
    their sum may be above 1.
    """
    known = math.fsum(value for text, value in probabilities.items() if text not in weighted)
    return max(1.0 - math.fsum(probabilities.get(text, 0.0) for text in weighted), known, MIN_OTHERS)


def reweigh(answer: Answer, log_weights: Mapping[str, float]) -> list[Answer]:
    """The answer and its alternatives with the probabilities that the weights give them."""
    answers = [replace(answer, alternatives=()), *answer.alternatives]
    probabilities = {one.prediction: one.confidence for one in answers}
    weighted = {text: math.exp(weight) * probabilities.get(text, 0.0) for text, weight in log_weights.items()}
    total = find_others(probabilities, log_weights) + math.fsum(weighted.values())
    gains = {text: value - probabilities.get(text, 0.0) for text, value in weighted.items()}
    number_gains: dict[str, float] = {}
    for one in answers:
        number_gains[one.value] = number_gains.get(one.value, 0.0) + gains.get(one.prediction, 0.0)
    shown = answer.shown
    if shown is not None:
        shown = _clip(1.0 - (weighted[""] if "" in weighted else 1.0 - shown) / total)
    grounded = []
    for one in answers:
        confidence = _clip((one.confidence + gains.get(one.prediction, 0.0)) / total)
        changed = replace(one, confidence=confidence, shown=shown)
        if one.number_confidence is not None:
            number = max(confidence, _clip((one.number_confidence + number_gains[one.value]) / total))
            unit = _clip(confidence / number) if number else 0.0
            changed = replace(changed, number_confidence=number, unit_confidence=unit)
        grounded.append(changed)
    return grounded


def _clip(probability: float) -> float:
    return min(1.0, max(0.0, probability))
