"""Small files of predictions, and the votes in them."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from inference.rows import Rows
from inference.vote_fitting import Labels
from inference.votes import Votes, count_votes
from product_vqa.task.quantity import parse_quantity
from product_vqa.task.schema import CHALLENGE, ENTITIES, UNITS_BY_ENTITY
from tests.inference.challenge import join_rows


def write_csv(file: Path, predictions: Mapping[int, str]) -> str:
    table = pd.DataFrame({"index": list(predictions), "prediction": list(predictions.values())})
    table.to_csv(file, index=False, quoting=csv.QUOTE_NONNUMERIC)  # pandas itself would not quote a carriage return
    return str(file)


def write_parquet(file: Path, predictions: Mapping[int, tuple[str, float | None]], *, entity_name: str = "") -> str:
    """Predictions with confidences, all about one attribute."""
    table = pd.DataFrame({"index": list(predictions)})
    table["prediction"], table["confidence"] = zip(*predictions.values(), strict=True)
    (table.assign(entity_name=entity_name) if entity_name else table).to_parquet(file)
    return str(file)


def make_table(predictions: Sequence[str | None], confidences: Sequence[float | None] | None = None) -> pd.DataFrame:
    """What `read_files` returns for predictions of the rows 0, 1, 2 ...; None if the file does not have the row."""
    confidences = confidences or [None] * len(predictions)
    rows = [
        (index, text, confidence)
        for index, (text, confidence) in enumerate(zip(predictions, confidences, strict=True))
        if text is not None
    ]
    table = pd.DataFrame(rows, columns=["index", "prediction", "confidence"])
    return table.astype({"index": int, "prediction": object, "confidence": float})


def make_votes(*tables: pd.DataFrame, entity_name: str | None = None) -> Votes:
    """The votes of tables; all rows are about one attribute, if it is given."""
    named = {f"{number}.csv": table for number, table in enumerate(tables)}
    if entity_name is not None:
        named = {name: table.assign(entity_name=entity_name) for name, table in named.items()}
    return count_votes(named, join_rows(named))[0]


def chosen(votes: Votes, choices: np.ndarray) -> list[str]:
    """Choices as texts."""
    return ["" if choice < 0 else str(votes.quantities[choice]) for choice in choices]


def simulate(
    rows: int, *, skills: Sequence[float], rng: np.random.Generator, has_confidences: bool = True
) -> tuple[Votes, Labels]:
    """Votes of files whose answers depend on how difficult a row is for all of them, and on each one's skill.

    Three in ten wrong answers are the same for all files.
    """
    entities = rng.integers(len(ENTITIES), size=rows)
    easy = rng.normal(0, 1.8, rows)
    labels = rng.integers(1000, size=rows)
    lures = (labels + rng.choice((-1, 1), rows) * rng.integers(1, 20, rows)) % 1000
    choices, confidences = np.empty((rows, len(skills)), int), np.full((rows, len(skills)), np.nan)
    for file, skill in enumerate(skills):
        odds = skill + easy + rng.normal(0, 1.5, rows)
        is_right = rng.random(rows) < 1 / (1 + np.exp(-odds))
        wrong = np.where(rng.random(rows) < 0.3, lures, rng.integers(1000, size=rows))
        choices[:, file] = np.where(is_right, labels, wrong)
        if has_confidences:
            confidences[:, file] = 1 / (1 + np.exp(-odds - rng.normal(0, 1, rows)))
    unit = UNITS_BY_ENTITY["width"][0]
    quantities = tuple(parse_quantity(f"{number} {unit}") for number in range(1000))
    votes = Votes(
        Rows(np.arange(rows), entities, np.full(rows, "", object), CHALLENGE),
        quantities,
        np.arange(1000),
        choices,
        confidences,
        has_row=np.ones(choices.shape, bool),
    )
    return votes, Labels(labels, is_empty=np.zeros(rows, bool), images=np.arange(rows))
