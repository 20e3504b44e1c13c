"""Confidence intervals of scores, by a bootstrap over images: answers about the same image are not independent."""

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from product_vqa.entity_f1.scoring import count


def count_by_image(
    images: Sequence[Hashable],
    predictions: Sequence[str],
    references: Sequence[str],
    *,
    equal: Callable[[str, str], bool],
    weights: Sequence[float] | None = None,
) -> np.ndarray:
    """Count true positives, false positives and false negatives of each image: (images, 3).

    `weights` has one entry per prediction: how much it counts.
    """
    position_of_image: dict[Hashable, int] = {}
    positions = [position_of_image.setdefault(image, len(position_of_image)) for image in images]
    outcomes = np.zeros((len(position_of_image), 3))
    for row, (position, prediction, reference) in enumerate(zip(positions, predictions, references, strict=True)):
        counts = count([prediction], [reference], equal=equal)
        weight = 1.0 if weights is None else weights[row]
        outcomes[position] += (
            weight * counts.true_positives,
            weight * counts.false_positives,
            weight * counts.false_negatives,
        )
    return outcomes


def resample(outcomes: np.ndarray, *, resamples: int, seed: int = 0) -> np.ndarray:
    """Sum the outcomes of as many images as there are, drawn with replacement: (resamples, outcomes)."""
    rng = np.random.default_rng(seed)
    images = len(outcomes)
    draws = (np.bincount(rng.integers(images, size=images), minlength=images) for _ in range(resamples))
    return np.array([times_drawn @ outcomes for times_drawn in draws])


def f1(sums: np.ndarray) -> np.ndarray:
    """Compute 2 TP / (2 TP + FP + FN) of each row; 0 for a row without any."""
    true_positives, false_positives, false_negatives = sums.T
    denominator = 2 * true_positives + false_positives + false_negatives
    scores: np.ndarray = np.divide(
        2 * true_positives, denominator, out=np.zeros_like(denominator), where=denominator > 0
    )
    return scores


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 2.5th and the 97.5th percentile."""
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)
