"""The threshold at which few of the given answers are wrong, with a guarantee: learn then test.

Angelopoulos et al. (2021, "Learn then Test", arXiv:2110.01052). An answer is given if its certainty, the smaller one
of its confidence and of the probability that the image shows the attribute, reaches the threshold. Of the answers that
are given at a fixed threshold, each is wrong with the same unknown probability; the exact binomial test rejects that
this is more than `at_most_wrong`. Thresholds are tested from several fixed starts downwards, each until one is not
rejected, at a level that the starts share. So the probability that any rejected threshold has a higher error is below
`1 - CONFIDENCE_LEVEL`, however well or badly the model is calibrated, and the lowest of them may be chosen.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binom

CONFIDENCE_LEVEL = 0.95
# Of thresholds: fixed, for a test is only valid if its threshold was chosen without these answers. Evenly in log-odds,
# so that certainties near 1, where most are, differ.
_STEP, _HIGHEST, _LOWEST = 0.25, 12.0, -5.0
_STARTS = (9.0, 6.0, 4.0, 2.0, 0.0)


def _threshold_at(log_odds: float) -> float:
    return round(1 / (1 + math.exp(-log_odds)), 6)  # as it is printed


GRID = (*(_threshold_at(odds) for odds in np.arange(_HIGHEST, _LOWEST - _STEP, -_STEP)), 0.0)
_START_POSITIONS = tuple(GRID.index(_threshold_at(odds)) for odds in _STARTS)


@dataclass(frozen=True)
class Threshold:
    """A tested threshold, and what it was tested on."""

    min_confidence: float  # for `--min_confidence`
    at_most_wrong: float
    confidence_level: float
    rows: int  # of the test, with an answer
    given: int  # of them, at or above the threshold
    wrong: int  # of the given ones

    def __str__(self) -> str:
        return (
            f"--min_confidence {self.min_confidence:g}: {self.given} of {self.rows} answers are given, {self.wrong} "
            f"of these are wrong. With a probability of {self.confidence_level:.0%} over the draw of these rows, at "
            f"most {self.at_most_wrong:.1%} of the answers given to exchangeable rows (other images and questions, "
            "chosen as these were) are wrong"
        )


def certainty(table: pd.DataFrame) -> pd.Series:
    """The smaller one of `confidence` and `shown`, which a threshold is compared with; NaN without a confidence."""
    if "shown" not in table:
        return table["confidence"]
    return np.minimum(table["confidence"], table["shown"].fillna(np.inf))


def find_threshold(certainties: np.ndarray, is_wrong: np.ndarray, *, at_most_wrong: float) -> Threshold | None:
    """The lowest threshold of `GRID` with the guarantee; None if none is shown to have it.

    `certainties` are those of the rows with an answer, which may be wrong (bool), of a sample that neither trained the
    model nor fitted its calibration. Other rows need no threshold: they get no answer.
    """
    level = (1 - CONFIDENCE_LEVEL) / len(_START_POSITIONS)
    order = np.argsort(certainties)
    below = np.searchsorted(certainties[order], GRID)  # how many rows each threshold leaves without an answer
    given = len(order) - below
    wrong = is_wrong.sum() - np.concatenate([[0], np.cumsum(is_wrong[order])])[below]
    is_rejected = binom.cdf(wrong, given, at_most_wrong) <= level
    passed = -1
    for start in _START_POSITIONS:
        if is_rejected[start]:
            until = start + int(np.argmin(is_rejected[start:])) if not is_rejected[start:].all() else len(GRID)
            passed = max(passed, until - 1)
    if passed < 0:
        return None
    return Threshold(
        min_confidence=GRID[passed],
        at_most_wrong=at_most_wrong,
        confidence_level=CONFIDENCE_LEVEL,
        rows=len(order),
        given=int(given[passed]),
        wrong=int(wrong[passed]),
    )


def rows_needed(at_most_wrong: float) -> int:
    """How many answers a threshold must have, all of them right, before anything can be guaranteed."""
    level = (1 - CONFIDENCE_LEVEL) / len(_START_POSITIONS)
    return math.ceil(math.log(level) / math.log(1 - at_most_wrong))
