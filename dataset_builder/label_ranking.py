"""How suspicious a label is: a sum over the sources that have an opinion about its row.

A source gives a probability to the label and to the best other answer. What it adds is the logarithm of their ratio,

    score = ln((other + doubt) / (label + doubt))

so it is 0 where both are as likely, positive where another answer is more likely, and the scores of independent
sources add up, as log odds do. `doubt` is the probability that the source is wrong altogether: it bounds what one
source can say, to 4.6 for predictions and 3.0 for OCR. An answer that means the same as the label (`1.0 kilogram` and
`1000.0 gram`) is the label. A source without an opinion adds nothing.

The constants were chosen before any label was ranked, and no data was used to tune them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from product_vqa.ocr.candidate import Candidate, Evidence
from product_vqa.ocr.candidates import has_rules
from product_vqa.task.attributes import Attribute
from product_vqa.task.kinds import LabelError

# An adapter is wrong about a row in a way that its confidence does not show, after calibration too.
PREDICTION_DOUBT = 0.01
# An OCR engine misses small print: of the images that `build` stores at 448 px, a third of the labels.
OCR_DOUBT = 0.05
# What the answers that a prediction does not list share among themselves is known, but not how. To the best of them
# goes a half, and to the label, if it is not listed, a tenth.
BEST_UNLISTED, LABEL_UNLISTED = 0.5, 0.1
# How likely a text that was read so is what is printed, for an OCR score of 1. A number whose unit is elsewhere in
# the image is a candidate once for each unit, and most of these are wrong; values that are far apart need not be one
# answer.
PRINTED = {
    Evidence.VALUE: 0.9,
    Evidence.JOINED: 0.8,
    Evidence.AXIS: 0.8,
    Evidence.ALL: 0.5,
    Evidence.NUMBER: 0.3,
}
# How likely the image does not show the attribute, if OCR found no answer about it. More often it missed what is
# printed.
NOT_PRINTED = 0.15


@dataclass(frozen=True)
class Opinion:
    """What a source says about a row."""

    label: float  # the probability that it gives to the label
    other: float  # and to the best other answer
    answer: str  # that answer, canonical; "" if it is not known, or is that the image does not show the attribute
    doubt: float

    @property
    def score(self) -> float:
        return math.log((self.other + self.doubt) / (self.label + self.doubt))


@dataclass(frozen=True)
class Suspicion:
    """How suspicious a label is, and what would be right."""

    predictions: float | None  # what they add; None without an opinion
    ocr: float | None
    suggestion: str  # "" for none

    @property
    def score(self) -> float:
        return (self.predictions or 0.0) + (self.ocr or 0.0)


def judge(attribute: Attribute, predictions: Opinion | None, ocr: Opinion | None) -> Suspicion:
    """The sum of what both say. The suggestion is the answer that one of them finds more likely than all others."""
    opinions = [one for one in (predictions, ocr) if one is not None]
    answers = [one for one in opinions if one.answer and attribute.is_valid(one.answer)]
    answers = [one for one in answers if not attribute.excess(one.answer)]
    best = max(answers, key=lambda one: one.other, default=None)
    return Suspicion(
        None if predictions is None else predictions.score,
        None if ocr is None else ocr.score,
        "" if best is None else best.answer,
    )


def of_predictions(label: str, predictions: Sequence[Mapping[str, float]], attribute: Attribute) -> Opinion | None:
    """The opinion of predictions of one row, each a mapping from its answers to their probabilities: the mean."""
    if not predictions:
        return None
    label_share = unlisted = 0.0
    others: dict[str, float] = {}
    for answers in predictions:
        rest = max(0.0, 1 - sum(answers.values()))
        of_label = [share for answer, share in answers.items() if is_same(attribute, label, answer)]
        label_share += sum(of_label) if of_label else LABEL_UNLISTED * rest
        unlisted += BEST_UNLISTED * rest
        for answer, share in answers.items():
            if not is_same(attribute, label, answer):
                known = next((one for one in others if is_same(attribute, one, answer)), answer)
                others[known] = others.get(known, 0.0) + share
    best = max(others, key=lambda answer: others[answer], default="")
    other = others.get(best, 0.0)
    count = len(predictions)
    if unlisted > other:
        best, other = "", unlisted
    return Opinion(label_share / count, other / count, best, PREDICTION_DOUBT)


def of_candidates(label: str, candidates: Sequence[Candidate], attribute: Attribute) -> Opinion | None:
    """The opinion of what OCR found in the image, best first; None for a kind that the rules do not look for.

    If the label is printed, other texts are as likely as the rules prefer them to it: their points are log odds. The
    answer is the one that the rules prefer.
    """
    if not has_rules(attribute):
        return None
    of_label = [one for one in candidates if is_same(attribute, label, one.answer)]
    others = [one for one in candidates if one not in of_label]
    printed = max((_printed(one) for one in of_label), default=0.0)
    points = max((one.rank_score for one in of_label), default=-math.inf)
    if not others:
        return Opinion(printed, 0.0 if of_label else NOT_PRINTED, "", OCR_DOUBT)
    other = max(_printed(one) * _sigmoid(one.rank_score - points) for one in others)
    return Opinion(printed, other, others[0].answer, OCR_DOUBT)


def _printed(candidate: Candidate) -> float:
    return PRINTED[candidate.evidence] * candidate.score


def _sigmoid(points: float) -> float:
    return 1.0 if points > 50 else 1 / (1 + math.exp(-points))


def is_same(attribute: Attribute, one: str, other: str) -> bool:
    """Whether two answers mean the same; those that are not canonical only if they are equal."""
    if one == other or not one or not other:
        return one == other
    return attribute.is_valid(one) and attribute.is_valid(other) and attribute.is_same(one, other)


def canonical(attribute: Attribute, answer: str) -> str:
    """The canonical form of an answer; the answer itself if it has none."""
    try:
        return attribute.normalize(answer)
    except LabelError:
        return answer
