"""Metrics of a table of predictions and references, as `inference.references.join` makes it."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from inference.error_analysis import KINDS, is_same_amount, is_within_tolerance, kind_of_mistake, quantity_or_none
from product_vqa.bootstrap import count_by_image, f1, interval, resample
from product_vqa.entity_f1.scoring import count, equal_as_quantities, equal_as_strings, score
from product_vqa.errors import InputError

_EQUALS = {
    "f1": equal_as_strings,
    "f1_quantity": equal_as_quantities,
    "f1_converted": is_same_amount,
    "f1_within_2_percent": is_within_tolerance,
}
GROUPS_LISTED = 20  # in `by_group`: the largest
THRESHOLDS = tuple(step / 20 for step in range(20))  # of a sweep


def score_table(table: pd.DataFrame, *, resamples: int = 0) -> dict[str, Any]:
    """The scores of all rows, `by_entity` and `by_group` (the largest groups), and `mistakes`: rows by kind.

    With `resamples`, the intervals of `f1_intervals` too.
    """
    counted = mistakes(table).value_counts()
    largest = table["group_id"][table["group_id"] != ""].value_counts().index[:GROUPS_LISTED]
    return {
        **_score(table),
        "by_entity": {str(name): _score(rows) for name, rows in table.groupby("entity_name")},
        "by_group": {str(name): _score(table[table["group_id"] == name]) for name in largest},
        "mistakes": {kind: int(counted[kind]) for kind in KINDS if kind in counted.index},
        **(f1_intervals(table, resamples=resamples) if resamples else {}),
    }


def _score(table: pd.DataFrame) -> dict[str, Any]:
    predictions, references = list(table["prediction"]), list(table["reference"])
    scores = {"rows": len(table), "answered": int((table["prediction"] != "").sum()), **score(predictions, references)}
    for name in ("f1_converted", "f1_within_2_percent"):
        scores[name] = count(predictions, references, equal=_EQUALS[name]).f1
    return scores


def mistakes(table: pd.DataFrame) -> pd.Series:
    """The kind of each row's mistake, None if there is none. An image's other labels are found in the table."""
    labels: dict[str, dict[str, str]] = {}
    rows = table[["image_link", "entity_name", "reference", "prediction"]].to_numpy().tolist()
    for link, entity_name, reference, _ in rows:
        labels.setdefault(link, {})[entity_name] = reference
    kinds = [
        kind_of_mistake(
            prediction,
            reference,
            others={name: label for name, label in labels[link].items() if name != entity_name},
        )
        for link, entity_name, reference, prediction in rows
    ]
    return pd.Series(kinds, index=table.index, dtype=object)


def f1_intervals(table: pd.DataFrame, *, resamples: int) -> dict[str, list[float]]:
    """`f1_interval` and `f1_quantity_interval`: the 2.5th to the 97.5th percentile over resampled images.

    Images are resampled instead of rows, because the questions about one image are right or wrong together.
    """
    outcomes = np.hstack([_outcomes(table, "f1"), _outcomes(table, "f1_quantity")])
    exact, quantity = np.hsplit(resample(outcomes, resamples=resamples), 2)
    return {"f1_interval": list(interval(f1(exact))), "f1_quantity_interval": list(interval(f1(quantity)))}


def score_weighted(table: pd.DataFrame, entities: pd.Series, *, resamples: int = 0) -> dict[str, Any]:
    """The F1 scores that `table` would have with the distribution of attributes in `entities` (one name per row).

    A row counts as its attribute's share in `entities`, divided by the attribute's number of rows in `table`.
    Attributes without a row in `table` are not part of the scores: `unknown` lists them, and `share_unknown` is their
    share of `entities`. Raises InputError if that is all of them.
    """
    shares = entities.value_counts(normalize=True)
    counts = table["entity_name"].value_counts()
    is_known = shares.index.isin(counts.index)
    if not is_known.any():
        raise InputError("the references and `weights` have no attribute in common")
    weights = (shares / counts).reindex(table["entity_name"]).fillna(0.0).to_numpy()
    sums = {name: _outcomes(table, name, weights=weights) for name in _EQUALS}
    scores: dict[str, Any] = {
        name: float(f1(outcomes.sum(axis=0, keepdims=True))[0]) for name, outcomes in sums.items()
    }
    if resamples:
        for name in ("f1", "f1_quantity"):
            scores[f"{name}_interval"] = list(interval(f1(resample(sums[name], resamples=resamples))))
    return scores | {"share_unknown": float(shares[~is_known].sum()), "unknown": sorted(shares.index[~is_known])}


def compare(table: pd.DataFrame, other: pd.DataFrame, *, resamples: int) -> dict[str, Any]:
    """How much higher the exact F1 of `table` is than that of `other`, over the same rows.

    Returns `difference`, its 95 % `difference_interval` over the same resampled images, and how many rows only one of
    the two predicts correctly.
    """
    outcomes = np.hstack([_outcomes(table, "f1"), _outcomes(other, "f1")])
    ours, theirs = np.hsplit(outcomes.sum(axis=0, keepdims=True), 2)
    difference = f1(ours) - f1(theirs)
    ours, theirs = np.hsplit(resample(outcomes, resamples=resamples), 2)
    resampled_difference = f1(ours) - f1(theirs)
    is_right, is_other_right = _is_right(table), _is_right(other)
    return {
        "difference": float(difference[0]),
        "difference_interval": list(interval(resampled_difference)),
        "only_these_right": int((is_right & ~is_other_right).sum()),
        "only_other_right": int((is_other_right & ~is_right).sum()),
    }


def _is_right(table: pd.DataFrame) -> pd.Series:
    return table["prediction"].eq(table["reference"]) & table["prediction"].ne("")


def _outcomes(table: pd.DataFrame, name: str, *, weights: np.ndarray | None = None) -> np.ndarray:
    return count_by_image(
        list(table["image_link"]),
        list(table["prediction"]),
        list(table["reference"]),
        equal=_EQUALS[name],
        weights=None if weights is None else weights.tolist(),
    )


def sweep(table: pd.DataFrame, thresholds: Iterable[float] = THRESHOLDS) -> dict[str, Any]:
    """Scores as a function of the minimum confidence: `points`, and the `best` of them by exact F1.

    Of equally good thresholds the lowest is the best. A row without a confidence always keeps its prediction.
    """
    points = []
    for threshold in thresholds:
        kept = table["prediction"].where(~(table["confidence"] < threshold), "")
        counts = count(list(kept), list(table["reference"]))
        points.append(
            {
                "confidence": threshold,
                "coverage": float((kept != "").mean()),
                "precision": counts.precision,
                "recall": counts.recall,
                "f1": counts.f1,
            }
        )
    return {"points": points, "best": max(points, key=lambda point: round(point["f1"], 9))}


def mark_right(answers: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    """The answers whose prediction and label are quantities, with the columns `is_right` and `is_number_right`.

    `is_right` compares number and unit. `labels` has one label per answer.
    """
    predicted = [quantity_or_none(text) for text in answers["prediction"]]
    pairs = list(zip(predicted, map(quantity_or_none, labels), strict=True))
    answers = answers[[one is not None and other is not None for one, other in pairs]]
    known = [(one, other) for one, other in pairs if one is not None and other is not None]
    return answers.assign(
        is_right=[one == other for one, other in known],
        is_number_right=[one.number == other.number for one, other in known],
    )


def reliability(confidences: np.ndarray, outcomes: np.ndarray, *, bins: int = 10) -> list[dict[str, float]]:
    """Bins of equally many answers by rising confidence: mean `confidence`, `share_right` and `rows` of each."""
    order = np.argsort(confidences, kind="stable")
    return [
        {
            "confidence": float(confidences[rows].mean()),
            "share_right": float(outcomes[rows].mean()),
            "rows": len(rows),
        }
        for rows in np.array_split(order, min(bins, len(order)))
    ]


def calibration_error(confidences: np.ndarray, outcomes: np.ndarray, *, bins: int = 10) -> float:
    """The expected calibration error: |confidence - share right|, averaged over the bins of `reliability` by rows."""
    error = sum(
        one["rows"] * abs(one["confidence"] - one["share_right"])
        for one in reliability(confidences, outcomes, bins=bins)
    )
    return error / len(confidences)
