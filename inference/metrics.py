"""Metrics of a table of predictions and references, as `inference.references.join` makes it."""

from collections.abc import Iterable
from dataclasses import asdict
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from inference.comparison import Comparison
from inference.error_analysis import ANSWER_KINDS, KINDS, quantity_or_none
from inference.threshold import certainty
from product_vqa.bootstrap import count_by_image, f1, interval, resample
from product_vqa.entity_f1.scoring import count, equal_as_strings
from product_vqa.errors import InputError
from product_vqa.task.attributes import Schema
from product_vqa.task.kinds import QuantityKind
from product_vqa.task.schema import CHALLENGE, is_challenge

GROUPS_LISTED = 20  # in `by_group`: the largest
THRESHOLDS = tuple(step / 20 for step in range(20))  # of a sweep


def score_table(table: pd.DataFrame, *, schema: Schema, resamples: int = 0) -> dict[str, Any]:
    """The scores of all rows, `by_entity` and `by_group` (the largest groups), and `mistakes`: rows by kind.

    With `resamples`, the intervals of `f1_intervals` too. For a schema that is not the challenge's, the scores have
    `f1_meaning`, and there are those `by_kind` of attribute, each with its `mistakes`. `Comparison` defines them. If
    some labels are empty, there is `silence`, of `score_silence`.
    """
    comparison = Comparison(schema)
    found = _find_mistakes(table, comparison)
    largest = table["group_id"][table["group_id"] != ""].value_counts().index[:GROUPS_LISTED]
    scores = {
        **_score(table, comparison),
        "by_entity": {str(name): _score(rows, comparison) for name, rows in table.groupby("entity_name")},
        "by_group": {str(name): _score(table[table["group_id"] == name], comparison) for name in largest},
        "mistakes": _count_mistakes(found, comparison),
    }
    if not comparison.is_challenge:
        kinds = table["entity_name"].map(lambda name: schema[name].kind.name)
        scores["by_kind"] = {
            str(kind): _score(rows, comparison) | {"mistakes": _count_mistakes(found[rows.index], comparison)}
            for kind, rows in table.groupby(kinds)
        }
    if (table["reference"] == "").any():
        scores["silence"] = score_silence(table, comparison)
    if resamples:
        scores |= f1_intervals(table, schema=schema, resamples=resamples)
    return scores


def _score(table: pd.DataFrame, comparison: Comparison) -> dict[str, Any]:
    references = list(table["reference"])
    exact = count(list(table["prediction"]), references)
    scores = {
        "rows": len(table),
        "answered": int((table["prediction"] != "").sum()),
        "f1": exact.f1,
        "precision": exact.precision,
        "recall": exact.recall,
        **asdict(exact),
    }
    for measure in comparison.measures[1:]:
        scores[measure] = count(comparison.write_as_references(table, measure), references).f1
    return scores


def score_silence(table: pd.DataFrame, comparison: Comparison) -> dict[str, Any]:
    """How well an empty prediction says that the image does not show the attribute: that the reference is empty.

    `na_precision`, `na_recall` and `na_f1` are those of empty predictions; `answerable` has the scores of the other
    rows alone, and `auroc_shown` and `auroc_confidence` say how well two probabilities tell answerable rows from the
    others (None if no row, or none of one kind, has it).
    """
    is_empty, is_answerable = table["prediction"] == "", table["reference"] != ""
    right = int((is_empty & ~is_answerable).sum())
    precision = right / is_empty.sum() if is_empty.any() else 0.0
    recall = right / int((~is_answerable).sum())
    scores: dict[str, Any] = {
        "rows": int((~is_answerable).sum()),
        "na_precision": float(precision),
        "na_recall": float(recall),
        "na_f1": float(2 * precision * recall / (precision + recall)) if right else 0.0,
        "answerable": _score(table[is_answerable], comparison),
    }
    for name in ("shown", "confidence"):
        known = table.assign(**{name: table.get(name, np.nan)}).dropna(subset=[name])
        scores[f"auroc_{name}"] = auroc(known[name].to_numpy(), (known["reference"] != "").to_numpy())
    return scores


def auroc(probabilities: np.ndarray, outcomes: np.ndarray) -> float | None:
    """The probability that a row with the outcome (bool) has a higher value than one without; ties count half."""
    positive = int(outcomes.sum())
    negative = len(outcomes) - positive
    if not positive or not negative:
        return None
    ranks = rankdata(probabilities)
    return float((ranks[outcomes].sum() - positive * (positive + 1) / 2) / (positive * negative))


def describe_mistakes(schema: Schema) -> dict[str, str]:
    """The kinds of mistakes about a schema, in order, with what each means."""
    return KINDS if is_challenge(schema) else ANSWER_KINDS


def mistakes(table: pd.DataFrame, *, schema: Schema) -> pd.Series:
    """The kind of each row's mistake, None if there is none. An image's other labels are found in the table."""
    return _find_mistakes(table, Comparison(schema))


def _find_mistakes(table: pd.DataFrame, comparison: Comparison) -> pd.Series:
    labels: dict[str, dict[str, str]] = {}
    rows = table[["image_link", "entity_name", "reference", "prediction"]].to_numpy().tolist()
    for link, entity_name, reference, _ in rows:
        labels.setdefault(link, {})[entity_name] = reference
    kinds = [
        comparison.find_mistake(
            entity_name,
            prediction,
            reference,
            others={name: label for name, label in labels[link].items() if name != entity_name},
        )
        for link, entity_name, reference, prediction in rows
    ]
    return pd.Series(kinds, index=table.index, dtype=object)


def _count_mistakes(found: pd.Series, comparison: Comparison) -> dict[str, int]:
    counted = found.value_counts()
    return {kind: int(counted[kind]) for kind in describe_mistakes(comparison.schema) if kind in counted.index}


def f1_intervals(table: pd.DataFrame, *, schema: Schema, resamples: int) -> dict[str, list[float]]:
    """`f1_interval` and `f1_quantity_interval`: the 2.5th to the 97.5th percentile over resampled images.

    And `f1_meaning_interval` for a schema that is not the challenge's. Images are resampled instead of rows, because
    the questions about one image are right or wrong together.
    """
    comparison = Comparison(schema)
    measures = _measures_with_interval(comparison)
    outcomes = np.hstack([_outcomes(table, measure, comparison) for measure in measures])
    resampled = np.hsplit(resample(outcomes, resamples=resamples), len(measures))
    return {f"{measure}_interval": list(interval(f1(sums))) for measure, sums in zip(measures, resampled, strict=True)}


def _measures_with_interval(comparison: Comparison) -> list[str]:
    return [name for name in ("f1", "f1_quantity", "f1_meaning") if name in comparison.measures]


def score_weighted(table: pd.DataFrame, entities: pd.Series, *, schema: Schema, resamples: int = 0) -> dict[str, Any]:
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
    comparison = Comparison(schema)
    sums = {name: _outcomes(table, name, comparison, weights=weights) for name in comparison.measures}
    scores: dict[str, Any] = {
        name: float(f1(outcomes.sum(axis=0, keepdims=True))[0]) for name, outcomes in sums.items()
    }
    if resamples:
        for name in _measures_with_interval(comparison):
            scores[f"{name}_interval"] = list(interval(f1(resample(sums[name], resamples=resamples))))
    return scores | {"share_unknown": float(shares[~is_known].sum()), "unknown": sorted(shares.index[~is_known])}


def compare(table: pd.DataFrame, other: pd.DataFrame, *, resamples: int) -> dict[str, Any]:
    """How much higher the exact F1 of `table` is than that of `other`, over the same rows.

    Returns `difference`, its 95 % `difference_interval` over the same resampled images, and how many rows only one of
    the two predicts correctly.
    """
    comparison = Comparison(CHALLENGE)  # equal strings are the same for any schema
    outcomes = np.hstack([_outcomes(table, "f1", comparison), _outcomes(other, "f1", comparison)])
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


def _outcomes(
    table: pd.DataFrame, measure: str, comparison: Comparison, *, weights: np.ndarray | None = None
) -> np.ndarray:
    return count_by_image(
        list(table["image_link"]),
        comparison.write_as_references(table, measure),
        list(table["reference"]),
        equal=equal_as_strings,
        weights=None if weights is None else weights.tolist(),
    )


def sweep(table: pd.DataFrame, thresholds: Iterable[float] = THRESHOLDS) -> dict[str, Any]:
    """Scores as a function of the minimum confidence: `points`, and the `best` of them by exact F1.

    Of equally good thresholds the lowest is the best.
    """
    points = []
    for threshold in thresholds:
        kept = apply_threshold(table, threshold)["prediction"]
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


def apply_threshold(table: pd.DataFrame, min_confidence: float) -> pd.DataFrame:
    """The table without the predictions below a threshold. A row without a confidence keeps its prediction."""
    return table.assign(prediction=table["prediction"].where(~(certainty(table) < min_confidence), ""))


def mark_right(answers: pd.DataFrame, labels: list[str], *, schema: Schema) -> pd.DataFrame:
    """The answers whose prediction and label can be compared, with `is_right`, `is_number_right` and `is_shown`.

    Those are quantities for the challenge, and what the schema allows for another one; an empty one where it says
    `not_shown`. `is_right` compares number and unit, or else canonical forms; `is_number_right` the numbers of
    quantities, or else the same; `is_shown` is whether the label has a value. `labels` has one label per answer.
    """
    if not is_challenge(schema):
        return _mark_right(answers, labels, Comparison(schema))
    texts = list(answers["prediction"])
    may_be_empty = answers["entity_name"].isin(schema.not_shown) if schema.not_shown else [False] * len(answers)
    compared = [
        (quantity_or_none(text), quantity_or_none(label), empty and not text, empty and not label)
        for text, label, empty in zip(texts, labels, may_be_empty, strict=True)
    ]
    is_known = [
        (one is not None or is_silent) and (other is not None or is_empty)
        for one, other, is_silent, is_empty in compared
    ]
    known = [pair[:2] for pair, is_kept in zip(compared, is_known, strict=True) if is_kept]
    return answers[is_known].assign(
        is_right=[one == other for one, other in known],
        is_number_right=[one.number == other.number if one and other else one == other for one, other in known],
        is_shown=[other is not None for _, other in known],
    )


def _mark_right(answers: pd.DataFrame, labels: list[str], comparison: Comparison) -> pd.DataFrame:
    rows = zip(answers["entity_name"], answers["prediction"], labels, strict=True)
    may_be_empty = comparison.schema.not_shown

    def canonical(name: str, text: str) -> str | None:
        return comparison.canonical(name, text) if text or name in may_be_empty else None

    forms = [(name, canonical(name, text), canonical(name, label)) for name, text, label in rows]
    answers = answers[[one is not None and other is not None for _, one, other in forms]]
    known = [
        (comparison.schema[name].kind, one, other)
        for name, one, other in forms
        if one is not None and other is not None
    ]
    return answers.assign(
        is_right=[one == other for _, one, other in known],
        is_number_right=[
            Decimal(kind.split(one)[0]) == Decimal(kind.split(other)[0])
            if isinstance(kind, QuantityKind) and one and other
            else one == other
            for kind, one, other in known
        ],
        is_shown=[bool(other) for _, _, other in known],
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
