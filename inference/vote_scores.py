"""How right each file and the ensemble are on rows with labels, and what the ensemble gains."""

from dataclasses import dataclass

import numpy as np

from inference.vote_decision import log_odds
from inference.vote_fitting import Labels
from inference.vote_weights import VoteWeights
from inference.votes import NO_VOTE, Votes
from product_vqa.bootstrap import f1, interval, resample

RESAMPLES = 1000


@dataclass(frozen=True)
class VoteScore:
    """Of the rows about one attribute, or of all. An answer is right if number and unit are."""

    rows: int
    shares_right: tuple[float, ...]  # of each file: right answers per row that it has; NaN if it has none
    weights: tuple[float, ...]  # of each file: what its votes count on average; 0 if it has none
    ensemble_right: float
    gain: float  # F1 of the ensemble minus that of the best file on these rows; one that a file lacks is empty
    gain_interval: tuple[float, float]  # 95 %, over the same resampled images


def score_votes(votes: Votes, labels: Labels, choices: np.ndarray, weights: VoteWeights) -> dict[str, VoteScore]:
    """The scores of all rows ("all"), and by attribute. `choices` are the ensemble's: (rows,)."""
    counts = weights.vote[votes.rows.entities] + weights.slope[votes.rows.entities] * log_odds(votes.confidences)
    subsets = {"all": np.arange(len(votes.rows))}
    for entity in np.unique(votes.rows.entities):
        subsets[votes.rows.schema.names[entity]] = np.flatnonzero(votes.rows.entities == entity)
    return {
        name: _score(votes.take(rows), labels.take(rows), choices[rows], counts[rows])
        for name, rows in subsets.items()
    }


def _score(votes: Votes, labels: Labels, choices: np.ndarray, counts: np.ndarray) -> VoteScore:
    of_files = [labels.count_outcomes(column) for column in votes.choices.T]
    of_ensemble = labels.count_outcomes(choices)
    best = max(of_files, key=lambda outcomes: float(f1(outcomes.sum(axis=0, keepdims=True))[0]))
    by_image = _sum_by_image(np.hstack([of_ensemble, best]), labels.images)
    ours, theirs = np.hsplit(by_image.sum(axis=0, keepdims=True), 2)
    drawn, drawn_theirs = np.hsplit(resample(by_image, resamples=RESAMPLES), 2)
    has_vote = votes.choices != NO_VOTE
    return VoteScore(
        rows=len(choices),
        shares_right=tuple(
            float(outcomes[has_row, 0].mean()) if has_row.any() else float("nan")
            for outcomes, has_row in zip(of_files, votes.has_row.T, strict=True)
        ),
        weights=tuple(((counts * has_vote).sum(axis=0) / np.maximum(1, has_vote.sum(axis=0))).tolist()),
        ensemble_right=float(of_ensemble[:, 0].mean()),
        gain=float((f1(ours) - f1(theirs))[0]),
        gain_interval=interval(f1(drawn) - f1(drawn_theirs)),
    )


def _sum_by_image(outcomes: np.ndarray, images: np.ndarray) -> np.ndarray:
    position = np.unique(images, return_inverse=True)[1]
    return np.stack([np.bincount(position, weights=column) for column in outcomes.T], axis=1)
