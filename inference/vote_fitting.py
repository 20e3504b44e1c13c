"""Fit the weights of votes on rows with labels.

The parameters are the most likely ones under the labels and a Gaussian prior, whose mean are the default weights. In
the prior, the parameters of an attribute vary around those of the file, and those of a file around a mean that the
files share. With few labels the files therefore count about the same, which is a majority vote, and an attribute with
few labels counts like the others. How much they vary depends on the files: three seeds of one model are alike, a model
and a text recognition with rules are not. So there are two priors, and the labels decide between them.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from inference.vote_decision import Answers, decide, find_answers, softmax
from inference.vote_weights import VoteWeights, default_weights
from inference.votes import NO_VOTE, Vote, Votes, parse_value, parse_vote
from product_vqa.bootstrap import f1
from product_vqa.errors import InputError
from product_vqa.task.attributes import Schema
from product_vqa.task.kinds import LabelError
from product_vqa.task.schema import is_challenge

PRIOR_ROWS = 20  # an attribute's share of empty labels is drawn towards that of all attributes by so many rows
FOLDS = 5
_MAX_STEPS = 100


@dataclass(frozen=True)
class Spread:
    """Standard deviations of the parameters: of what all files share, and of what each file has of its own."""

    intercept: float
    vote: float
    vote_of_file: float
    slope: float
    slope_of_file: float

    def covariance(self, files: int) -> np.ndarray:
        """(1 + 2 files, 1 + 2 files), in the order of `Answers.features`."""
        matrix = np.zeros((1 + 2 * files, 1 + 2 * files))
        matrix[0, 0] = self.intercept**2
        matrix[1 : 1 + files, 1 : 1 + files] = self.vote**2 + self.vote_of_file**2 * np.eye(files)
        matrix[1 + files :, 1 + files :] = self.slope**2 + self.slope_of_file**2 * np.eye(files)
        return matrix


@dataclass(frozen=True)
class Prior:
    """A Gaussian prior of the weights around the default ones."""

    overall: Spread
    between_entities: Spread  # of an attribute's parameters around the overall ones

    def precision(self, files: int, num_entities: int) -> np.ndarray:
        """The inverse of the covariance of all parameters: attribute by attribute, each as in `Answers.features`."""
        varies = np.eye(num_entities)
        varies[-1, -1] = 1e-4  # an unknown attribute is the mean of the others
        covariance = np.kron(np.ones_like(varies), self.overall.covariance(files))
        precision: np.ndarray = np.linalg.inv(covariance + np.kron(varies, self.between_entities.covariance(files)))
        return precision


ALIKE = Prior(
    overall=Spread(intercept=1.5, vote=1.0, vote_of_file=0.25, slope=0.5, slope_of_file=0.1),
    between_entities=Spread(intercept=0.3, vote=0.15, vote_of_file=0.1, slope=0.06, slope_of_file=0.03),
)
DIFFERENT = Prior(
    overall=Spread(intercept=1.5, vote=1.0, vote_of_file=1.0, slope=0.5, slope_of_file=0.4),
    between_entities=Spread(intercept=1.0, vote=0.8, vote_of_file=0.8, slope=0.3, slope_of_file=0.25),
)
BAYES_FACTOR = 20  # DIFFERENT is used if it makes the labels so many times as likely as ALIKE does


@dataclass(frozen=True)
class Labels:
    """The labels of the rows of votes."""

    quantities: np.ndarray  # (rows,): position in the votes' quantities, or NO_VOTE if nobody voted for the label
    is_empty: np.ndarray  # (rows,): whether the label is empty, so that no answer is right
    images: np.ndarray  # (rows,): a number that the rows of an image share

    def take(self, chosen: np.ndarray) -> "Labels":
        """Those of some rows, given by their positions."""
        return Labels(self.quantities[chosen], self.is_empty[chosen], self.images[chosen])

    def count_outcomes(self, choices: np.ndarray) -> np.ndarray:
        """True positives, false positives and false negatives of each row, by number and unit: (rows, 3)."""
        is_answered = choices != NO_VOTE
        is_right = is_answered & (choices == self.quantities)
        return np.stack([is_right, is_answered & ~is_right, ~is_answered & ~self.is_empty], axis=1).astype(float)


def match_labels(votes: Votes, references: pd.DataFrame, *, ranges: str = "leave_out") -> tuple[Votes, Labels]:
    """The votes about rows that have a reference (as `read_references` returns them), and their labels.

    A label that no prediction can equal, such as a range, says nothing about the votes: its row is dropped. Raises
    InputError if no row is left, or all labels are empty.
    """
    positions = votes.rows.positions(references["index"])
    parsed = _parse_labels(references, votes.rows.schema, ranges)
    is_empty = (references["reference"] == "").to_numpy()
    is_known = (positions >= 0) & (is_empty | np.array([quantity is not None for quantity in parsed]))
    if not (positions >= 0).any():
        raise InputError(
            f"`references` have {len(references)} rows, but none of them is in `predictions`. To combine predictions "
            "of a split without labels, fit the weights on predictions of a split with labels (`save_weights`) and "
            "pass them as `weights`"
        )
    if is_empty[is_known].all():
        raise InputError("`references` have no label of a row in `predictions` that a prediction can equal")
    if references["index"].duplicated().any():
        index = references["index"][references["index"].duplicated()].iloc[0]
        raise InputError(f"`references` have index {index} more than once; each row needs one label")
    position_of = {quantity: number for number, quantity in enumerate(votes.quantities)}
    quantities = np.array([NO_VOTE if one is None else position_of.get(one, NO_VOTE) for one in parsed])
    images = pd.factorize(references["image_link"])[0]
    return votes.take(positions[is_known]), Labels(quantities[is_known], is_empty[is_known], images[is_known])


def _parse_labels(references: pd.DataFrame, schema: Schema, ranges: str) -> list[Vote | None]:
    """What votes for each label, None for one that cannot be voted for."""
    if is_challenge(schema):
        return [parse_vote(text, ranges=ranges) for text in references["reference"]]
    parsed: list[Vote | None] = []
    for name, text in zip(references["entity_name"], references["reference"], strict=True):
        try:
            parsed.append(parse_value(text, schema[name], ranges=ranges))
        except LabelError:
            parsed.append(None)
    return parsed


def fit_weights(votes: Votes, labels: Labels, *, prior: Prior) -> VoteWeights:
    """The most likely weights. Takes a second for 131,187 rows of five files."""
    answers = find_answers(votes)
    is_right = _is_right(votes, answers, labels)
    posterior = _Posterior.of(votes, answers, is_right, prior)
    files = votes.choices.shape[1]
    intercept, vote, slope = np.split(posterior.maximize(), [1, 1 + files], axis=1)
    default = default_weights(files, schema=votes.rows.schema)
    weights = replace(default, intercept=intercept[:, 0], vote=vote, slope=slope)

    is_wrong = np.zeros(len(votes.rows), dtype=bool)
    is_wrong[answers.rows[answers.starts]] = True
    is_wrong[answers.rows[is_right]] = False
    return replace(
        weights,
        share_empty=_shares_empty(
            votes.rows.entities[is_wrong], labels.is_empty[is_wrong], num_entities=votes.rows.unknown + 1
        ),
        f1=float(f1(labels.count_outcomes(decide(votes, weights).choices).sum(axis=0, keepdims=True))[0]),
    )


def choose_prior(votes: Votes, labels: Labels) -> Prior:
    """DIFFERENT if the labels say so, or else ALIKE. The likelihoods are integrals in Laplace's approximation."""
    answers = find_answers(votes)
    is_right = _is_right(votes, answers, labels)
    alike, different = (_Posterior.of(votes, answers, is_right, prior).log_evidence() for prior in (ALIKE, DIFFERENT))
    return DIFFERENT if different - alike > np.log(BAYES_FACTOR) else ALIKE


def cross_fit(votes: Votes, labels: Labels, *, prior: Prior, seed: int = 0) -> np.ndarray:
    """What weights choose that were fitted without the row and the other rows of its image: (rows,)."""
    numbers = np.unique(labels.images, return_inverse=True)[1]
    fold = np.random.default_rng(seed).permutation(numbers.max() + 1)[numbers] % FOLDS
    choices = np.full(len(votes.rows), NO_VOTE)
    for number in range(FOLDS):
        held_out, others = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        weights = fit_weights(votes.take(others), labels.take(others), prior=prior)
        choices[held_out] = decide(votes.take(held_out), weights).choices
    return choices


def _is_right(votes: Votes, answers: Answers, labels: Labels) -> np.ndarray:
    """Whether the label is among the votes for each answer."""
    amounts = np.append(votes.amounts, NO_VOTE)[labels.quantities][answers.rows]
    has_label = (votes.choices == labels.quantities[:, None]).any(axis=1)[answers.rows]
    is_right: np.ndarray = (amounts != NO_VOTE) & (amounts == answers.amounts) & has_label
    return is_right


def _shares_empty(entities: np.ndarray, is_empty: np.ndarray, *, num_entities: int) -> np.ndarray:
    rows = np.bincount(entities, minlength=num_entities)
    empty = np.bincount(entities, weights=is_empty, minlength=num_entities)
    shares: np.ndarray = (empty + PRIOR_ROWS * is_empty.sum() / max(1, len(is_empty))) / (rows + PRIOR_ROWS)
    return shares


@dataclass(frozen=True)
class _Group:
    """The answers about one attribute."""

    features: np.ndarray
    starts: np.ndarray
    is_right: np.ndarray

    def log_likelihood(self, coefficients: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """With its gradient, and its Hessian with the sign changed."""
        probabilities, of_none = softmax(self.features @ coefficients, self.starts)
        if not len(probabilities):
            size = len(coefficients)
            return 0.0, np.zeros(size), np.zeros((size, size))
        has_right = np.logical_or.reduceat(self.is_right, self.starts)
        outcomes = np.concatenate([probabilities[self.is_right], of_none[~has_right]])
        weighted = probabilities[:, None] * self.features
        means = np.add.reduceat(weighted, self.starts)
        gradient = (self.is_right - probabilities) @ self.features
        return (
            float(np.log(np.maximum(outcomes, 1e-300)).sum()),
            gradient,
            weighted.T @ self.features - means.T @ means,
        )


@dataclass(frozen=True)
class _Posterior:
    """Of the coefficients of all groups, up to a constant."""

    groups: list[_Group]
    mean: np.ndarray  # (groups, coefficients)
    precision: np.ndarray  # (groups * coefficients, groups * coefficients)

    @classmethod
    def of(cls, votes: Votes, answers: Answers, is_right: np.ndarray, prior: Prior) -> "_Posterior":
        files = votes.choices.shape[1]
        entities = votes.rows.entities[answers.rows]
        groups = []
        num_entities = votes.rows.unknown + 1
        for chosen in (np.flatnonzero(entities == entity) for entity in range(num_entities)):
            own = Answers(answers.rows[chosen], answers.amounts[chosen], answers.features[chosen])
            groups.append(_Group(own.features, own.starts, is_right[chosen]))
        default = default_weights(files, schema=votes.rows.schema)
        return cls(groups, default.coefficients, prior.precision(files, num_entities))

    def evaluate(self, found: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Its logarithm at flat coefficients, with the gradient, and the Hessian with the sign changed."""
        size = self.mean.shape[1]
        deviation = found - self.mean.ravel()
        pull = self.precision @ deviation
        value, gradient, hessian = -deviation @ pull / 2, -pull, self.precision.copy()
        for number, group in enumerate(self.groups):
            own = slice(number * size, (number + 1) * size)
            likelihood, slope, curvature = group.log_likelihood(found[own])
            value += likelihood
            gradient[own] += slope
            hessian[own, own] += curvature
        return value, gradient, hessian

    def maximize(self) -> np.ndarray:
        """The most likely coefficients, by Newton's method with shorter steps where needed: it is log-concave."""
        found = self.mean.ravel()
        value, gradient, hessian = self.evaluate(found)
        for _ in range(_MAX_STEPS):
            step = np.linalg.solve(hessian, gradient)
            if gradient @ step < 1e-12:
                break
            higher = self.evaluate(found + step)
            while higher[0] < value and np.abs(step).max() > 1e-9:
                step /= 2
                higher = self.evaluate(found + step)
            found, (value, gradient, hessian) = found + step, higher
        return found.reshape(self.mean.shape)

    def log_evidence(self) -> float:
        """The logarithm of the labels' likelihood under the prior, in Laplace's approximation."""
        value, _, hessian = self.evaluate(self.maximize().ravel())
        return value + float(np.linalg.slogdet(self.precision)[1] - np.linalg.slogdet(hessian)[1]) / 2
