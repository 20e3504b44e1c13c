"""Grounded answers: the model's probabilities, weighted by what an OCR engine read in the image.

Each candidate c of the OCR has a weight e^w(c), with w linear in what speaks for it. The probability of an answer a,
which the model gives P(a), becomes

    P'(a) = e^w(a) P(a) / (1 + sum over the candidates of (e^w(c) - 1) P(c))

where w is 0 for every other answer. So it is exact, an answer that the OCR missed stays possible, and a row without
candidates keeps its probabilities. Of an image that gave no candidate, the empty answer has a weight of its own.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from product_vqa.modeling.answer import Answer
from product_vqa.modeling.calibration import Grounding
from product_vqa.ocr.candidate import Candidate, Evidence

MAX_SCORED = 8  # candidates of a row, the best by the rules: more would cost more than they give
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


def weigh_candidates(candidates: Sequence[Candidate], weights: Mapping[str, float]) -> dict[str, float]:
    """The logarithm of the weight of each candidate that is scored, by its answer."""
    scored = candidates[:MAX_SCORED]
    features = find_features(scored) if scored else []
    return {
        candidate.answer: sum(weights.get(name, 0.0) * value for name, value in own.items())
        for candidate, own in zip(scored, features, strict=True)
    }


def ground_answer(answer: Answer, candidates: Sequence[Candidate], grounding: Grounding) -> Answer:
    """The grounded answer, with its alternatives, the box that supports it, and calibrated confidences.

    `answer` has the model's own probabilities, and all scored candidates are among its alternatives, as
    `generate_answers` gives them.
    """
    if answer.allowed_probability is None or (not answer.prediction and answer.confidence == 0.0):
        return answer  # not constrained, or its logits were not finite
    log_weights = weigh_candidates(candidates, grounding.weights)
    if not candidates and answer.shown is not None:
        log_weights = {"": grounding.weights.get(EMPTY, 0.0)}
    boxes = {candidate.answer: candidate.box for candidate in candidates}
    answers = [replace(one, box=boxes.get(one.prediction)) for one in reweigh(answer, log_weights)]
    best, *others = sorted(answers, key=lambda one: -one.confidence)
    alternatives = tuple(one for one in others if one.confidence > 0)
    return grounding.scalings.apply(replace(best, alternatives=alternatives))


def reweigh(answer: Answer, log_weights: Mapping[str, float]) -> list[Answer]:
    """The answer and its alternatives with the probabilities that the weights give them."""
    answers = [replace(answer, alternatives=()), *answer.alternatives]
    probabilities = {one.prediction: one.confidence for one in answers}
    if answer.shown is not None:
        probabilities[""] = 1.0 - answer.shown
    gains = {text: math.expm1(weight) * probabilities.get(text, 0.0) for text, weight in log_weights.items()}
    # At least what the weights leave, which rounding of the model's probabilities could take away.
    total = max(1.0 + sum(gains.values()), 1e-300)
    number_gains: dict[str, float] = {}
    for one in answers:
        number_gains[one.value] = number_gains.get(one.value, 0.0) + gains.get(one.prediction, 0.0)
    shown = None if answer.shown is None else _clip(1.0 - (probabilities[""] + gains.get("", 0.0)) / total)
    grounded = []
    for one in answers:
        confidence = _clip((one.confidence + gains.get(one.prediction, 0.0)) / total)
        changed = replace(one, confidence=confidence, shown=shown)
        if one.number_confidence is not None:
            number = _clip((one.number_confidence + number_gains[one.value]) / total)
            unit = _clip(confidence / number) if number else 0.0
            changed = replace(changed, number_confidence=number, unit_confidence=unit)
        grounded.append(changed)
    return grounded


def _clip(probability: float) -> float:
    return min(1.0, max(0.0, probability))
