"""Bootstrap by image: counts and F1 by hand, intervals as a binomial distribution has them."""

import numpy as np
import pytest

from product_vqa.bootstrap import count_by_image, f1, interval, resample
from product_vqa.entity_f1.scoring import equal_as_strings


def test_outcomes_are_counted_by_image() -> None:
    # a: one right, one wrong; b: one missing; c: both empty.
    images = ["a", "b", "a", "c"]
    outcomes = count_by_image(
        images, ["1 inch", "", "2 inch", ""], ["1 inch", "3 inch", "4 inch", ""], equal=equal_as_strings
    )
    assert outcomes.tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_a_prediction_counts_as_much_as_its_weight() -> None:
    predictions, references = ["1 inch", "2 inch", ""], ["1 inch", "4 inch", "3 inch"]
    outcomes = count_by_image("aab", predictions, references, equal=equal_as_strings, weights=[2.0, 0.5, 3.0])
    assert outcomes.tolist() == [[2.0, 0.5, 0.0], [0.0, 0.0, 3.0]]


def test_lists_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        count_by_image(["a", "b"], ["1 inch"], ["1 inch"], equal=equal_as_strings)


def test_f1_by_hand() -> None:
    # 2 x 3 / (2 x 3 + 1 + 2); all missing; nothing at all.
    assert f1(np.array([[3.0, 1.0, 2.0], [0.0, 0.0, 4.0], [0.0, 0.0, 0.0]])).tolist() == [pytest.approx(2 / 3), 0, 0]


def test_f1_of_small_weights_and_of_nothing() -> None:
    assert f1(np.array([[0.25, 0.0, 0.0], [0.25, 0.25, 0.25]])).tolist() == [1.0, 0.5]
    used = [np.full(1000, 7.0) for _ in range(20)]  # memory that the result might get
    del used
    assert (f1(np.zeros((1000, 3))) == 0).all()


def test_a_resample_draws_as_many_images_as_there_are_and_is_reproducible() -> None:
    outcomes = np.ones((7, 3))
    sums = resample(outcomes, resamples=50)
    assert sums.shape == (50, 3)
    assert (sums == 7).all()
    outcomes[:, 0] = np.arange(7)
    assert (resample(outcomes, resamples=50, seed=1) == resample(outcomes, resamples=50, seed=1)).all()
    assert (resample(outcomes, resamples=50, seed=1) != resample(outcomes, resamples=50, seed=2)).any()


def test_the_interval_of_a_share_is_that_of_the_binomial_distribution() -> None:
    outcomes = np.zeros((100, 3))
    outcomes[:50, 0] = outcomes[50:, 1] = 1
    low, high = interval(resample(outcomes, resamples=4000)[:, 0])
    assert (low, high) == (pytest.approx(40, abs=1), pytest.approx(60, abs=1))  # 50 +- 1.96 x 5
