"""Scores of files and of the ensemble, by hand."""

import numpy as np
import pytest

from inference.vote_decision import DEFAULT_CONFIDENCE
from inference.vote_fitting import Labels
from inference.vote_scores import score_votes
from tests.inference.challenge import default_weights
from tests.inference.vote_files import make_table, make_votes


def test_shares_weights_and_gain_by_hand() -> None:
    right, wrong = "1 gram", "2 gram"
    first = make_table([right, right, wrong, wrong], [0.5, 0.5, 0.8, 0.8]).assign(
        entity_name=["item_weight", "item_weight", "maximum_weight_recommendation", "item_weight"]
    )
    votes = make_votes(first, make_table([right, wrong, wrong, ""]))
    labels = Labels(np.zeros(4, int), np.zeros(4, bool), np.array([0, 0, 1, 2]))
    scores = score_votes(votes, labels, np.array([0, 0, 0, -1]), default_weights(2))
    assert list(scores) == ["all", "item_weight", "maximum_weight_recommendation"]
    total = scores["all"]
    assert total.rows == 4
    assert total.shares_right == (0.5, 0.25)
    without = np.log(DEFAULT_CONFIDENCE / (1 - DEFAULT_CONFIDENCE))
    assert total.weights == pytest.approx((1 + 2 * np.log(4) / 4, 1 + without))
    assert total.ensemble_right == 0.75
    # The best file has two right and two wrong answers, the ensemble three right ones and an empty one.
    assert total.gain == pytest.approx(2 * 3 / (2 * 3 + 1) - 2 * 2 / (2 * 2 + 2))
    assert total.gain_interval[0] <= total.gain <= total.gain_interval[1]
    one = scores["maximum_weight_recommendation"]
    assert (one.rows, one.shares_right, one.ensemble_right, one.gain, one.gain_interval) == (1, (0, 0), 1, 1, (1, 1))


def test_the_share_of_a_file_is_of_the_rows_that_it_has() -> None:
    first, second = make_table(["1 gram", "2 gram", None, None]), make_table([None, "1 gram", "1 gram", ""])
    votes = make_votes(first, second, make_table([None] * 4), entity_name="item_weight")
    labels = Labels(np.zeros(4, int), np.zeros(4, bool), np.arange(4))
    total = score_votes(votes, labels, np.array([0, 0, 0, -1]), default_weights(3))["all"]
    assert total.shares_right[:2] == (1 / 2, 2 / 3) and np.isnan(total.shares_right[2])
    # The rows that a file lacks are empty: the second one has two right answers and two missing ones.
    assert total.gain == pytest.approx(2 * 3 / (2 * 3 + 1) - 2 * 2 / (2 * 2 + 2))


def test_a_file_without_votes_has_no_weight() -> None:
    votes = make_votes(make_table(["1 gram"]), make_table([""]), entity_name="item_weight")
    scores = score_votes(
        votes, Labels(np.zeros(1, int), np.zeros(1, bool), np.zeros(1, int)), np.zeros(1, int), default_weights(2)
    )
    assert scores["all"].weights[1] == 0
    assert scores["all"].gain == 0
