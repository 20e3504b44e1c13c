"""Scores of a table of predictions and references, as `inference.evaluate.join` makes it."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from inference.error_analysis import KINDS, is_same_amount, is_within_tolerance, kind_of_mistake
from product_vqa.bootstrap import count_by_image, f1, interval, resample
from product_vqa.entity_f1.scoring import count, equal_as_quantities, equal_as_strings, score

_EQUALS = {
    "f1": equal_as_strings,
    "f1_quantity": equal_as_quantities,
    "f1_converted": is_same_amount,
    "f1_within_2_percent": is_within_tolerance,
}
GROUPS_LISTED = 20  # of `by_group`: the largest


def score_parts(table: pd.DataFrame, *, resamples: int = 0) -> dict[str, Any]:
    """Scores of all rows, `by_entity`, `by_group` (the largest ones) and `mistakes` (rows of each kind).

    With `resamples`, the intervals of `f1_intervals` too.
    """
    kinds = mistakes(table)
    counted = kinds.value_counts()
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
    return {
        "rows": len(table),
        "answered": int((table["prediction"] != "").sum()),
        **score(predictions, references),
        **{
            name: count(predictions, references, equal=equal).f1
            for name, equal in _EQUALS.items()
            if name not in ("f1", "f1_quantity")
        },
    }


def mistakes(table: pd.DataFrame) -> pd.Series:
    """The kind of each row's mistake, None where it has none. A picture's other labels are taken from the table."""
    labels: dict[str, dict[str, str]] = {}
    columns = ("image_link", "entity_name", "reference", "prediction")
    rows = list(zip(*(table[column] for column in columns), strict=True))
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


def f1_intervals(table: pd.DataFrame, *, resamples: int, seed: int = 0) -> dict[str, list[float]]:
    """`f1_interval`, `f1_quantity_interval`: from the 2.5th to the 97.5th percentile over resampled pictures.

    Pictures and not rows are drawn: the questions about one picture are right or wrong together.
    """
    names = ("f1", "f1_quantity")
    outcomes = np.hstack([_outcomes(table, name) for name in names])
    sums = resample(outcomes, resamples=resamples, seed=seed)
    return {f"{name}_interval": list(interval(f1(sums[:, 3 * n : 3 * n + 3]))) for n, name in enumerate(names)}


def score_weighted(table: pd.DataFrame, entities: pd.Series, *, resamples: int = 0) -> dict[str, Any]:
    """The F1 scores that `table` would have with the mix of attributes in `entities` (one name for each row).

    A row counts as its attribute's share in `entities` over that in `table`. Attributes without a row in `table`
    are not part of the scores: `unknown` names them and `share_unknown` says how much of `entities` they are.
    """
    shares = entities.value_counts(normalize=True)
    here = table["entity_name"].value_counts(normalize=True)
    weights = (shares / here).reindex(table["entity_name"]).fillna(0.0).to_numpy()
    sums = {name: _outcomes(table, name, weights=weights) for name in _EQUALS}
    scores: dict[str, Any] = {
        name: float(f1(outcomes.sum(axis=0, keepdims=True))[0]) for name, outcomes in sums.items()
    }
    if resamples:
        for name in ("f1", "f1_quantity"):
            scores[f"{name}_interval"] = list(interval(f1(resample(sums[name], resamples=resamples))))
    known = shares.index.isin(here.index)
    return scores | {"share_unknown": float(shares[~known].sum()), "unknown": sorted(shares.index[~known])}


def compare(table: pd.DataFrame, other: pd.DataFrame, *, resamples: int, seed: int = 0) -> dict[str, Any]:
    """How much better the exact F1 of `table` is than that of `other`, over the same rows, and how sure that is.

    Returns `difference`, its 95 % `difference_interval` over the same resampled pictures, and how many rows only one
    of the two has right.
    """
    outcomes = np.hstack([_outcomes(rows, "f1") for rows in (table, other)])
    sums = np.vstack([outcomes.sum(axis=0), resample(outcomes, resamples=resamples, seed=seed)])
    differences = f1(sums[:, :3]) - f1(sums[:, 3:])
    mine, theirs = (rows["prediction"].eq(rows["reference"]) & rows["prediction"].ne("") for rows in (table, other))
    return {
        "difference": float(differences[0]),
        "difference_interval": list(interval(differences[1:])),
        "only_these_right": int((mine & ~theirs).sum()),
        "only_other_right": int((theirs & ~mine).sum()),
    }


def _outcomes(table: pd.DataFrame, name: str, *, weights: np.ndarray | None = None) -> np.ndarray:
    columns = (list(table[column]) for column in ("image_link", "prediction", "reference"))
    return count_by_image(*columns, equal=_EQUALS[name], weights=weights)


def sweep(table: pd.DataFrame, thresholds: Iterable[float] = tuple(step / 20 for step in range(20))) -> dict[str, Any]:
    """Scores if only answers of at least a confidence go out: `points`, and the `best` by official F1.

    Of equally good thresholds the lowest is the best. A row without a confidence is never withheld.
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


def reliability(confidences: np.ndarray, outcomes: np.ndarray, *, bins: int = 10) -> list[dict[str, float]]:
    """Answers in groups of equal size by rising confidence: `confidence` (mean), `share_right`, `rows` of each."""
    order = np.argsort(confidences, kind="stable")
    return [
        {
            "confidence": float(confidences[part].mean()),
            "share_right": float(outcomes[part].mean()),
            "rows": len(part),
        }
        for part in np.array_split(order, min(bins, len(order)))
    ]


def calibration_error(confidences: np.ndarray, outcomes: np.ndarray, *, bins: int = 10) -> float:
    """How far confidence and share right lie apart, on average over the groups of `reliability`."""
    groups = reliability(confidences, outcomes, bins=bins)
    return sum(g["rows"] * abs(g["confidence"] - g["share_right"]) for g in groups) / max(1, len(confidences))
