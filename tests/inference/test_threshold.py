"""The guarantee of a threshold, where the true share of wrong answers is known."""

import numpy as np
import pandas as pd
import pytest

from inference.threshold import GRID, certainty, find_threshold, rows_needed

SPLITS = 200


class Population:
    """Answers whose probability to be right is known; their certainty is that, or a distortion of it."""

    def __init__(self, *, temperature: float, bias: float, not_shown: float, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        log_odds = self.rng.normal(2.5, 2.0, 200_000)
        self.right = 1 / (1 + np.exp(-log_odds))
        is_not_shown = self.rng.random(len(log_odds)) < not_shown
        self.right[is_not_shown] = 0.0  # whatever the answer, it is wrong; some of these answers are certain
        self.certainty = 1 / (1 + np.exp(-(log_odds / temperature + bias)))
        self.certainty[is_not_shown] *= self.rng.beta(1, 6, is_not_shown.sum())

    def draw(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self.rng.choice(len(self.right), rows)
        return self.certainty[chosen], self.rng.random(rows) >= self.right[chosen]

    def share_wrong(self, threshold: float) -> float:
        return float(1 - self.right[self.certainty >= threshold].mean())


@pytest.mark.parametrize(
    ("temperature", "bias", "not_shown"),
    [(1.0, 0.0, 0.0), (1.0, 0.0, 0.3), (0.5, 0.5, 0.1), (4.0, -1.0, 0.3)],
    ids=["calibrated", "calibrated with silence", "overconfident", "underconfident"],
)
def test_at_most_the_share_is_wrong_in_95_of_100_splits(temperature: float, bias: float, not_shown: float) -> None:
    population = Population(temperature=temperature, bias=bias, not_shown=not_shown, seed=1)
    broken = found = 0
    for _ in range(SPLITS):
        threshold = find_threshold(*population.draw(1000), at_most_wrong=0.05)
        if threshold is not None:
            found += 1
            broken += population.share_wrong(threshold.min_confidence) > 0.05
            assert threshold.wrong <= 0.05 * threshold.given
    assert found >= 0.25 * SPLITS and broken <= 0.05 * SPLITS


def test_where_no_threshold_is_good_enough_one_is_found_in_few_splits() -> None:
    """6 % are wrong at every confidence: the observed share is below 5 % in a tenth of the draws of 1000 rows."""
    rng = np.random.default_rng(0)
    found = observed = 0
    for _ in range(1000):
        certainties, is_wrong = rng.random(1000), rng.random(1000) < 0.06
        observed += is_wrong.mean() <= 0.05
        found += find_threshold(certainties, is_wrong, at_most_wrong=0.05) is not None
    assert observed > 60  # a threshold on what was observed would break the promise
    assert found <= 50


def test_the_lowest_tested_threshold_is_chosen() -> None:
    certainties = np.array([0.95] * 200 + [0.6] * 200 + [0.3] * 200)
    is_wrong = np.array([False] * 200 + [False] * 199 + [True] + [True] * 200)
    threshold = find_threshold(certainties, is_wrong, at_most_wrong=0.05)
    assert threshold is not None
    assert threshold.min_confidence == min(one for one in GRID if one > 0.3)
    assert (threshold.rows, threshold.given, threshold.wrong) == (600, 400, 1)
    assert "400 of 600 answers are given, 1 of these are wrong" in str(threshold)
    assert f"--min_confidence {threshold.min_confidence:g}:" in str(threshold)
    everything = find_threshold(certainties[:400], is_wrong[:400], at_most_wrong=0.05)
    assert everything is not None and everything.min_confidence == 0.0


def test_so_many_right_answers_are_necessary() -> None:
    assert rows_needed(0.05) == 90 and rows_needed(0.01) == 459  # 0.95 ** 90 < 0.05 / 5 < 0.95 ** 89
    for rows in (89, 90):
        threshold = find_threshold(np.full(rows, 0.99), np.zeros(rows, dtype=bool), at_most_wrong=0.05)
        assert (threshold is not None) == (rows == 90)
    assert find_threshold(np.array([]), np.array([], dtype=bool), at_most_wrong=0.05) is None


def test_the_certainty_is_the_smaller_probability() -> None:
    table = pd.DataFrame({"confidence": [0.9, 0.4, 0.7, None], "shown": [0.5, 0.8, None, 0.3]})
    assert certainty(table)[:3].tolist() == [0.5, 0.4, 0.7] and np.isnan(certainty(table)[3])
    assert certainty(table[["confidence"]])[0] == 0.9
