"""Fitting the weights of votes: what is learned from many labels, and how little a few labels change."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from inference.vote_decision import decide, find_answers
from inference.vote_fitting import ALIKE, DIFFERENT, Labels, choose_prior, cross_fit, fit_weights, match_labels
from inference.votes import Votes
from product_vqa.errors import InputError
from product_vqa.task.schema import ENTITIES
from tests.inference.challenge import default_weights
from tests.inference.vote_files import chosen, make_table, make_votes, simulate


def share_right(votes: Votes, labels: Labels, choices: np.ndarray) -> float:
    return float((choices == labels.quantities).mean())


def references(*texts: str, entity_name: str = "item_weight") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "index": range(len(texts)),
            "entity_name": entity_name,
            "image_link": [f"http://x/{number // 2}" for number in range(len(texts))],
            "reference": texts,
        }
    )


def test_labels_are_matched_by_index_and_quantity() -> None:
    votes = make_votes(make_table(["1 gram", "1 kilogram", "5 gram", "6 gram", "7 gram"]))
    labels = references("1.0 gram", "1000 gram", "", "[1, 2] gram", "8 gram", "9 gram").iloc[::-1]
    matched, found = match_labels(votes, labels)
    assert matched.rows.indexes.tolist() == [4, 2, 1, 0], "no vote could equal a range"
    assert found.quantities.tolist() == [-1, -1, -1, 0], "1 kilogram is not written as its label"
    assert found.is_empty.tolist() == [False, True, False, False]
    assert found.images[2] == found.images[3] != found.images[1]
    matched, found = match_labels(votes, labels, ranges="first")
    assert matched.rows.indexes.tolist() == [4, 3, 2, 1, 0]
    assert found.take(np.array([0, 1])).quantities.tolist() == [-1, 0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (references("1 gram").assign(index=99), "`references` have 1 rows, but none of them is in `predictions`"),
        (references("", ""), "`references` have no label"),
        (references("[1, 2] gram", ""), "`references` have no label"),
        (references("1 gram", "2 gram").assign(index=0), "`references` have index 0 more than once"),
    ],
)
def test_labels_that_say_nothing_about_the_votes_are_refused(labels: pd.DataFrame, message: str) -> None:
    with pytest.raises(InputError, match=message):
        match_labels(make_votes(make_table(["1 gram", "2 gram"])), labels)


def test_outcomes_by_hand() -> None:
    labels = Labels(np.array([3, 3, 3, -1, -1, -1]), np.array([0, 0, 0, 0, 1, 1], bool), np.arange(6))
    assert labels.count_outcomes(np.array([3, 4, -1, 4, 4, -1])).tolist() == [
        [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0], [0, 1, 0], [0, 0, 0],
    ]  # fmt: skip


def test_a_better_file_counts_more_and_an_unknown_attribute_like_the_others() -> None:
    votes, labels = simulate(4000, skills=(3.5, 1.0, 1.0), rng=np.random.default_rng(0), has_confidences=False)
    weights = fit_weights(votes, labels, prior=ALIKE)
    assert (weights.vote[:, 0] > weights.vote[:, 1] + 0.5).all()
    assert weights.vote[-1] == pytest.approx(weights.vote[:-1].mean(axis=0), abs=0.1)


def test_a_file_that_is_bad_at_one_attribute_counts_less_there() -> None:
    votes, labels = simulate(8000, skills=(2.5, 2.5, 2.5), rng=np.random.default_rng(1), has_confidences=False)
    is_bad = (votes.rows.entities == 3) & (np.random.default_rng(2).random(8000) < 0.6)
    votes.choices[is_bad, 0] = (labels.quantities[is_bad] + 500) % 1000
    weights = fit_weights(votes, labels, prior=choose_prior(votes, labels))
    others = [number for number in range(8) if number != 3]
    assert weights.vote[3, 0] < weights.vote[3, 1] - 0.5
    assert (weights.vote[others, 0] > weights.vote[others, 1] - 0.4).all()


def test_the_prior_is_the_one_under_which_the_labels_are_likely() -> None:
    rng = np.random.default_rng(8)
    votes, labels = simulate(2000, skills=(2.0, 2.0, 2.0), rng=rng)
    assert choose_prior(votes, labels) is ALIKE
    is_other_half = votes.rows.entities < 4  # a third file that is only good at half of the attributes
    votes.choices[is_other_half, 2] = rng.integers(1000, size=is_other_half.sum())
    assert choose_prior(votes, labels) is DIFFERENT
    few = np.arange(30)
    assert choose_prior(votes.take(few), labels.take(few)) is ALIKE
    alike, different = (fit_weights(votes, labels, prior=prior) for prior in (ALIKE, DIFFERENT))
    assert different.vote[:8, 2].std() > 1.5 * alike.vote[:8, 2].std()


def test_the_fitted_weights_are_the_most_likely_ones() -> None:
    """Any small change makes the labels, together with the prior, less likely."""
    votes, labels = simulate(300, skills=(2.0, 1.0), rng=np.random.default_rng(9))
    answers = find_answers(votes)
    is_right = votes.amounts_chosen()[answers.rows] == labels.quantities[answers.rows][:, None]
    is_right = (is_right & (answers.features[:, 1:3] > 0)).any(axis=1)
    best = fit_weights(votes, labels, prior=ALIKE).coefficients
    precision = ALIKE.precision(2, 9)

    def log_posterior(coefficients: np.ndarray) -> float:
        scores = (answers.features * coefficients[votes.rows.entities[answers.rows]]).sum(axis=1)
        totals = 1 + np.bincount(answers.rows, np.exp(scores), minlength=300)
        right = np.bincount(answers.rows[is_right], scores[is_right], minlength=300)
        deviation = (coefficients - default_weights(2).coefficients).ravel()
        return float((right - np.log(totals)).sum() - deviation @ precision @ deviation / 2)

    rng = np.random.default_rng(10)
    for _ in range(20):
        assert log_posterior(best + rng.normal(0, 0.01, best.shape)) < log_posterior(best)


def test_files_that_make_the_same_mistakes_count_less_each() -> None:
    votes, labels = simulate(4000, skills=(2.0, 2.0), rng=np.random.default_rng(3))
    twice = [0, 0, 1]
    doubled = replace(votes, choices=votes.choices[:, twice], confidences=votes.confidences[:, twice])
    weights = fit_weights(doubled, labels, prior=ALIKE)
    assert weights.vote[0, 0] == pytest.approx(weights.vote[0, 1])
    together, once = (
        share_right(votes, labels, decide(some, fit_weights(some, labels, prior=ALIKE)).choices)
        for some in (doubled, votes)
    )
    assert together == pytest.approx(once, abs=0.005)
    assert together > share_right(votes, labels, decide(doubled, default_weights(3)).choices) + 0.01


@pytest.mark.parametrize("has_confidences", [True, False])
def test_few_labels_are_not_worse_than_a_majority_vote(has_confidences: bool) -> None:
    """The mean over 20 draws of so many labels, on 5,000 other rows; a majority vote is right in about 86 %."""
    rng = np.random.default_rng(4)
    votes, labels = simulate(5000, skills=(2.3, 2.3, 2.3), rng=rng, has_confidences=has_confidences)
    equal = default_weights(3)
    majority = share_right(votes, labels, decide(votes, replace(equal, slope=0 * equal.slope)).choices)
    for rows in (10, 100):
        shares = []
        for _ in range(20):
            few = rng.choice(5000, rows, replace=False)
            weights = fit_weights(votes.take(few), labels.take(few), prior=ALIKE)
            shares.append(share_right(votes, labels, decide(votes, weights).choices))
        assert np.mean(shares) > majority - 0.002, rows


def test_the_order_of_the_files_does_not_matter() -> None:
    votes, labels = simulate(300, skills=(3.0, 2.0, 1.0), rng=np.random.default_rng(5))
    weights = fit_weights(votes, labels, prior=ALIKE)
    order = [2, 0, 1]
    other = replace(votes, choices=votes.choices[:, order], confidences=votes.confidences[:, order])
    reordered = fit_weights(other, labels, prior=ALIKE)
    assert reordered.vote == pytest.approx(weights.vote[:, order], abs=1e-6)
    assert reordered.slope == pytest.approx(weights.slope[:, order], abs=1e-6)
    assert decide(other, reordered).choices.tolist() == decide(votes, weights).choices.tolist()


def test_without_any_vote_the_weights_are_the_default_ones() -> None:
    votes = make_votes(make_table(["", "", ""]), make_table(["", None, ""]), entity_name="item_weight")
    weights = fit_weights(*match_labels(votes, references("1 gram", "2 gram")), prior=ALIKE)
    assert weights.coefficients == pytest.approx(default_weights(2).coefficients)
    assert weights.f1 == 0


def test_empty_labels_lead_to_empty_predictions() -> None:
    """Where the confidence is low, the label is empty in four of five rows."""
    rng = np.random.default_rng(6)
    sure = rng.random(1000) < 0.5
    texts = ["1 gram"] * 1000
    votes = make_votes(make_table(texts, np.where(sure, 0.95, 0.05).tolist()), entity_name="item_weight")
    labels = ["1 gram" if one else "" if rng.random() < 0.8 else "2 gram" for one in sure]
    matched, found = match_labels(votes, references(*labels))
    weights = fit_weights(matched, found, prior=ALIKE)
    assert weights.share_empty[ENTITIES.index("item_weight")] == pytest.approx(0.8, abs=0.05)
    assert weights.f1 == pytest.approx(2 / 3, abs=0.03)
    assert set(np.array(chosen(matched, decide(matched, weights).choices))[sure]) == {"1.0 gram"}
    assert set(np.array(chosen(matched, decide(matched, weights).choices))[~sure]) == {""}


def test_a_row_is_held_out_with_its_image() -> None:
    votes, labels = simulate(400, skills=(2.0, 2.0, 2.0), rng=np.random.default_rng(7))
    choices = cross_fit(votes, labels, prior=ALIKE)
    assert share_right(votes, labels, choices) > share_right(votes, labels, votes.choices[:, 0])
    one_image = replace(labels, images=np.zeros(400, int))  # nothing is left to fit on
    assert cross_fit(votes, one_image, prior=ALIKE).tolist() == decide(votes, default_weights(3)).choices.tolist()
