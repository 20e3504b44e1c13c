"""Learns from labelled rows how far the candidates of OCR are to be trusted, and whether that gains anything.

The weights maximize the likelihood of the labels under `product_vqa.modeling.grounding`, which is concave in them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
import pandas as pd

from inference.metrics import mark_right
from inference.predicted_rows import PredictedRows
from product_vqa.bootstrap import interval, resample
from product_vqa.modeling.answer import Answer
from product_vqa.modeling.calibration import MAX_WEIGHT, Calibration, Grounding, fit_calibration
from product_vqa.modeling.generation import is_not_finite
from product_vqa.modeling.grounding import EMPTY, FEATURES, MAX_SCORED, find_features, find_others, ground_answer
from product_vqa.ocr.candidate import Candidate
from product_vqa.task.attributes import Schema

# Of a Gaussian prior of the weights: at e^9, a candidate outweighs a model that gives it one in 8,000.
_PRIOR_DEVIATION = 5.0
_RESAMPLES = 2000  # of the images, for the interval of the gain


@dataclass(frozen=True)
class ScoredRow:
    """A labelled row, what OCR suggests, and the model's probabilities without weights."""

    answer: Answer  # the scored answers are among its alternatives
    candidates: list[Candidate] | None  # None if the image was not read, or the rules do not look for the attribute
    label: str


def fit_weights(rows: Sequence[ScoredRow]) -> dict[str, float]:
    """The weights of the features under which the labels are most likely; 0 for one that no candidate has."""
    from scipy.optimize import minimize

    entries = _flatten(rows)
    if not len(entries.probabilities):
        return dict.fromkeys(FEATURES, 0.0)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        """The negative log likelihood with the prior, and its gradient."""
        log_weights = entries.features @ weights
        weighted = np.exp(log_weights) * entries.probabilities
        totals = entries.others + np.bincount(entries.rows, weighted, minlength=len(rows))
        value = np.log(totals).sum() - log_weights[entries.is_label].sum()
        value += (weights**2).sum() / (2 * _PRIOR_DEVIATION**2)
        shares = weighted / totals[entries.rows]
        return value, entries.features.T @ (shares - entries.is_label) + weights / _PRIOR_DEVIATION**2

    # Where the empty answer is the best one, no other was searched that a weight below 1 could lift.
    bounds = [(0.0 if name == EMPTY else -MAX_WEIGHT, MAX_WEIGHT) for name in FEATURES]
    found = minimize(loss, x0=np.zeros(len(FEATURES)), jac=True, bounds=bounds, method="L-BFGS-B").x
    return {name: round(float(weight), 6) for name, weight in zip(FEATURES, found, strict=True)}


@dataclass(frozen=True)
class _Entries:
    """Weighted answers of all rows, M of N rows."""

    features: np.ndarray  # (M, F)
    probabilities: np.ndarray  # (M,), the model's own
    is_label: np.ndarray  # (M,) bool
    rows: np.ndarray  # (M,) int: the row of each
    others: np.ndarray  # (N,), the probability of all answers of a row that have no weight


def _flatten(rows: Sequence[ScoredRow]) -> _Entries:
    """One entry per weighted answer that the model can give. Rows whose logits were not finite have none."""
    entries: list[tuple[dict[str, float], float, bool, int]] = []
    others = []
    for number, row in enumerate(rows):
        probabilities = {one.prediction: one.confidence for one in (row.answer, *row.answer.alternatives)}
        scored = (row.candidates or [])[:MAX_SCORED]
        own = {
            candidate.answer: values
            for candidate, values in zip(scored, find_features(scored) if scored else [], strict=True)
        }
        if row.candidates is not None and not scored and row.answer.shown is not None:
            own[""] = {EMPTY: 1.0}
        own = {answer: values for answer, values in own.items() if probabilities.get(answer, 0.0) > 0}
        entries += [(values, probabilities[answer], answer == row.label, number) for answer, values in own.items()]
        others.append(find_others(probabilities, own))
    features = np.array([[own.get(name, 0.0) for name in FEATURES] for own, *_ in entries]).reshape(-1, len(FEATURES))
    return _Entries(
        features,
        np.array([probability for _, probability, _, _ in entries], dtype=float),
        np.array([is_label for _, _, is_label, _ in entries], dtype=bool),
        np.array([number for *_, number in entries], dtype=int),
        np.array(others),
    )


def cross_ground(rows: Sequence[ScoredRow], parts: np.ndarray) -> tuple[list[Answer], dict[str, float]]:
    """Each row's grounded answer, with weights that were fitted on the rows of other parts; and the weights of all.

    Rows of part -1 fit no weights.
    """
    is_fitted = parts >= 0

    def fit(chosen: np.ndarray) -> dict[str, float]:
        return fit_weights(list(compress(rows, chosen)))

    weights = fit(is_fitted)
    answers = [ground_row(row, weights) for row in rows]
    for part in np.unique(parts[is_fitted]):
        own = fit(is_fitted & (parts != part))
        for number in np.flatnonzero(parts == part).tolist():
            answers[number] = ground_row(rows[number], own)
    return answers, weights


def ground_row(row: ScoredRow, weights: Mapping[str, float]) -> Answer:
    """The answer of a row with these weights, not calibrated."""
    if row.candidates is None or is_not_finite(row.answer.text, row.answer.confidence):
        return row.answer
    return ground_answer(row.answer, row.candidates, Grounding(weights))


def measure_gain(alone: pd.Series, grounded: pd.Series, images: pd.Series, *, seed: int = 0) -> dict[str, Any]:
    """By how much more of the rows are right when grounded, with a 95 % interval over resampled images.

    Both series have a boolean per row, and the same index; rows that only one has are not compared.
    """
    both = alone.index.intersection(grounded.index)
    difference = grounded[both].astype(float) - alone[both].astype(float)
    by_image = difference.groupby(images[both]).agg(["sum", "size"]).to_numpy()
    sums = resample(by_image, resamples=_RESAMPLES, seed=seed)
    low, high = interval(sums[:, 0] / sums[:, 1])
    return {
        "rows": len(both),
        "share_right": {"alone": float(alone[both].mean()), "grounded": float(grounded[both].mean())},
        "gain": {"mean": float(difference.mean()), "low": low, "high": high},
    }


@dataclass(frozen=True)
class FittedGrounding:
    """A grounding, and the marked answers that it gives: to rows that fitted it, with weights fitted on the others."""

    grounding: Grounding
    answers: pd.DataFrame  # as `mark_right` gives them; confidences are not calibrated
    gain: dict[str, Any]  # of `measure_gain`

    def as_dict(self) -> dict[str, Any]:
        """As calibration.json has it."""
        return {**self.grounding.as_dict(), **self.gain}

    def __str__(self) -> str:
        shares, gain = self.gain["share_right"], self.gain["gain"]
        decision = "it is the default" if self.grounding.is_better else "it stays off by default"
        return (
            f"grounded in OCR: {shares['alone']:.1%} -> {shares['grounded']:.1%} of {self.gain['rows']} rows right, "
            f"cross-validated; gain {gain['mean']:+.4f}, 95 % interval {gain['low']:+.4f} to {gain['high']:+.4f}: "
            f"{decision}"
        )


def fit_grounding(
    scored: PredictedRows,
    labels: Sequence[str],
    *,
    alone: pd.DataFrame,
    parts: np.ndarray,
    is_fitted: np.ndarray,
    unit_shares: Mapping[str, Mapping[str, float]],
    schema: Schema,
) -> FittedGrounding:
    """Fit the weights and the scalings of grounded confidences.

    `scored` has answers with all candidates scored and no weights, and `alone` the marked answers without OCR. Of each
    row of the dataset, there are the label, the part that its image is in, and whether it may be used for the fit.
    """
    rows = [
        ScoredRow(answer, candidates, labels[position])
        for answer, candidates, position in zip(scored.answers, scored.candidates, scored.positions, strict=True)
    ]
    # A row that may not be used for the fit is a part of its own: all others fit its weights.
    own_parts = np.where(is_fitted, parts, -1)[scored.positions]
    answers, weights = cross_ground(rows, own_parts)
    marked = mark_right(scored.table(answers), list(labels), schema=schema)
    fitted = marked[is_fitted[marked.index]]
    gain = measure_gain(alone["is_right"], fitted["is_right"], marked["image_link"])
    scalings = fit_calibration(fitted) if (fitted["prediction"] != "").any() else Calibration()
    grounding = Grounding(weights, unit_shares, scalings, is_better=gain["gain"]["low"] > 0)
    return FittedGrounding(grounding, marked, gain)
