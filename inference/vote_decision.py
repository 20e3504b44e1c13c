"""Which answer the votes about a row decide on, how likely it is right, and the table of all of them.

A vote of file f about attribute a counts

    vote[a, f] + slope[a, f] * log-odds of its confidence

The score of an answer is intercept[a] plus the sum of its votes. The probability that it is right is exp(score),
divided by the sum of this over the row's different answers and 1, which is for "none of them is right".
`vote_weights` has these parameters, and `vote_fitting` fits them together: of two files that make the same mistakes,
each counts less.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from inference.submission import PREDICTIONS
from inference.vote_weights import VoteWeights
from inference.votes import NO_VOTE, Votes

DEFAULT_CONFIDENCE = 0.7  # of a vote without one
_MIN_CONFIDENCE = 1e-3  # and 1 - 1e-3 is the largest: beyond them the log-odds are noise


@dataclass(frozen=True)
class Answers:
    """The different amounts that are voted for in each row, in the order of the rows."""

    rows: np.ndarray  # position of the row
    amounts: np.ndarray
    features: np.ndarray  # (answers, 1 + 2 files): 1, the files that vote for it, and the log-odds of these votes

    @cached_property
    def starts(self) -> np.ndarray:
        """The position of the first answer of each row that has one."""
        return np.flatnonzero(np.diff(self.rows, prepend=-1))


@dataclass(frozen=True)
class Decision:
    """What the votes about each row decide."""

    choices: np.ndarray  # (rows,): position in the votes' quantities, or NO_VOTE
    confidences: np.ndarray  # (rows,): the probability that the most likely answer is right; NaN without a vote
    answers: Answers
    best: np.ndarray  # (rows with an answer,): position of the most likely answer
    spellings: np.ndarray  # (answers,): position in the votes' quantities
    probabilities: np.ndarray  # (answers,)


def find_answers(votes: Votes) -> Answers:
    """The different answers of each row, and who votes for them."""
    amounts = votes.amounts_chosen()
    is_first = amounts != NO_VOTE
    for file in range(1, amounts.shape[1]):
        is_first[:, file] &= (amounts[:, :file] != amounts[:, file, None]).all(axis=1)
    rows, files = np.nonzero(is_first)
    votes_for = amounts[rows] == amounts[rows, files][:, None]
    features = np.hstack([np.ones((len(rows), 1)), votes_for, votes_for * log_odds(votes.confidences)[rows]])
    return Answers(rows, amounts[rows, files], features)


def log_odds(confidences: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)) of confidences, which may be NaN."""
    known = np.where(np.isnan(confidences), DEFAULT_CONFIDENCE, confidences)
    clipped = np.clip(known, _MIN_CONFIDENCE, 1 - _MIN_CONFIDENCE)
    odds: np.ndarray = np.log(clipped) - np.log1p(-clipped)
    return odds


def softmax(scores: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """exp(score), divided by the sum of this over its row and 1; and for each row, 1 divided by that sum.

    The scores of a row follow each other, from one of `starts` to the next.
    """
    if not len(scores):
        return scores, scores
    counts = np.diff(starts, append=len(scores))
    top = np.maximum(np.maximum.reduceat(scores, starts), 0)
    powers = np.exp(scores - np.repeat(top, counts))
    total = np.add.reduceat(powers, starts) + np.exp(-top)
    return powers / np.repeat(total, counts), np.exp(-top) / total


def decide(votes: Votes, weights: VoteWeights) -> Decision:
    """Choose the most likely answer of each row; none where that is expected to give a higher F1.

    Of equally likely answers the smallest amount is chosen. The order of the files does not matter.
    """
    answers = find_answers(votes)
    coefficients = weights.coefficients[votes.rows.entities[answers.rows]]
    scores = np.einsum("ij,ij->i", answers.features, coefficients)
    probabilities, of_none = softmax(scores, answers.starts)
    spellings = _spell(votes, answers, coefficients)
    # Rounded, because a sum depends on the order of its terms.
    best = np.lexsort((answers.amounts, -scores.round(9), answers.rows))[answers.starts]
    rows = answers.rows[best]
    choices = np.full(len(votes.rows), NO_VOTE)
    confidences = np.full(len(votes.rows), np.nan)
    # 2 TP / (2 TP + FP + FN) rises if an answer that is right with probability p replaces an empty prediction that is
    # right with probability e, and p (2 - F1) > e F1.
    of_empty = of_none * weights.share_empty[votes.rows.entities[rows]]
    is_better = probabilities[best] * (2 - weights.f1) >= of_empty * weights.f1
    choices[rows] = np.where(is_better, spellings[best], NO_VOTE)
    confidences[rows] = probabilities[best]
    return Decision(choices, confidences, answers, best, spellings, probabilities)


def _spell(votes: Votes, answers: Answers, coefficients: np.ndarray) -> np.ndarray:
    """The quantity that each answer is written as: that of its votes with the highest sum.

    Of equal sums the unit that is first in the alphabet.
    """
    _, votes_for, _ = np.split(answers.features, [1, 1 + votes.choices.shape[1]], axis=1)
    _, vote, slope = np.split(answers.features * coefficients, [1, 1 + votes.choices.shape[1]], axis=1)
    choices = np.where(votes_for > 0, votes.choices[answers.rows], NO_VOTE)
    sums = [((vote + slope) * (choices == one[:, None])).sum(axis=1).round(9) for one in choices.T]
    sums_voted = np.where(choices == NO_VOTE, -np.inf, np.transpose(sums))
    is_best = sums_voted == sums_voted.max(axis=1, keepdims=True)
    spellings: np.ndarray = np.where(is_best, choices, len(votes.quantities)).min(axis=1)
    return spellings


def to_table(votes: Votes, decision: Decision, *, is_left_empty: np.ndarray) -> pa.Table:
    """One row of `PREDICTIONS` for each row of the votes, in order.

    `answer` is the most likely answer, also where the prediction is empty; null where nobody voted. The other answers
    are its alternatives. Confidences of numbers and units are null.
    """
    texts = np.array([*map(str, votes.quantities), ""], dtype=object)
    names = np.array([*votes.rows.schema.names, None], dtype=object)
    answers, best = decision.answers, decision.best
    has_answer = np.isin(np.arange(len(votes.rows)), answers.rows)
    spelled = np.full(len(votes.rows), NO_VOTE)
    spelled[answers.rows[best]] = decision.spellings[best]
    links = votes.rows.image_links
    columns = {
        "index": pa.array(votes.rows.indexes, pa.int64()),
        "image_link": pa.array(links, pa.string(), mask=links == ""),
        "entity_name": pa.array(names[votes.rows.entities], pa.string()),
        "prediction": pa.array(texts[np.where(is_left_empty, NO_VOTE, decision.choices)], pa.string()),
        "answer": pa.array(texts[spelled], pa.string(), mask=~has_answer),
        "confidence": pa.array(decision.confidences, pa.float64(), mask=~has_answer),
        "alternatives": _alternatives(votes, decision, texts, has_answer=has_answer),
    }
    nothing = {field.name: pa.nulls(len(votes.rows), field.type) for field in PREDICTIONS}
    return pa.table(nothing | columns, schema=PREDICTIONS)


def _alternatives(votes: Votes, decision: Decision, texts: np.ndarray, *, has_answer: np.ndarray) -> pa.Array:
    """Of each row the answers that are not the best, the most likely first; null where nobody voted."""
    rows = decision.answers.rows
    is_other = np.ones(len(rows), dtype=bool)
    is_other[decision.best] = False
    order = np.lexsort((decision.answers.amounts, -decision.probabilities, rows))
    others = order[is_other[order]]
    counts = np.bincount(rows[others], minlength=len(votes.rows))
    values = pa.StructArray.from_arrays(
        [pa.array(texts[decision.spellings[others]], pa.string()), pa.array(decision.probabilities[others])],
        fields=list(PREDICTIONS.field("alternatives").type.value_type),
    )
    offsets = pa.array(np.append(0, np.cumsum(counts)), pa.int32())
    return pa.ListArray.from_arrays(
        offsets, values, type=PREDICTIONS.field("alternatives").type, mask=pa.array(~has_answer)
    )
