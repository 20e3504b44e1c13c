"""Votes: the answers of several files of predictions to the same rows.

A vote is a prediction that a submission may hold: a number and a unit of the row's attribute. Empty and invalid
predictions do not vote. Equal amounts vote together, whatever their spelling and unit: `1 kilogram`, `1.0 kilogram`
and `1000 gram`. About other attributes than the challenge's, a vote is what the schema allows for the row's attribute,
and values vote together if they are equal, texts in any case.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from inference.rows import Rows
from inference.submission import read_predictions
from product_vqa.errors import InputError
from product_vqa.quoting import one_line
from product_vqa.task.attributes import Attribute, Schema
from product_vqa.task.kinds import LabelError, QuantityKind, key_of
from product_vqa.task.quantity import Quantity, parse_quantity
from product_vqa.task.schema import ENTITIES, is_challenge, is_suitable
from product_vqa.task.unit_conversion import to_base_unit

NO_VOTE = NO_ROW = -1
MAX_CHARACTERS = 100  # of a vote; the longest label of the challenge has 32
# If predictions of test.csv are joined with the labels of train.csv, about 57 % are in a unit of another attribute.
MAX_SHARE_UNSUITABLE = 0.4
MIN_ROWS_TO_JUDGE = 20


@dataclass(frozen=True)
class Count:
    """What the rows of a file are. Those that are not counted here are empty."""

    rows: int
    votes: int
    has_confidences: bool  # any of the votes
    invalid: int  # not a number and a unit
    unsuitable: int  # in a unit of another attribute
    examples: tuple[str, ...]  # the first one of each of these two, if there is one: `index 7: '2 gms'`


@dataclass(frozen=True, order=True)
class Value:
    """A canonical answer about an attribute of another schema than the challenge's."""

    dimension: str  # of a quantity, or else ""
    amount: Fraction  # of a quantity, in its dimension
    key: str  # of another answer: equal ones share it
    text: str

    def __str__(self) -> str:
        return self.text


Vote = Quantity | Value


@dataclass(frozen=True)
class Votes:
    """The votes of files about rows, as numbers."""

    rows: Rows
    quantities: tuple[Vote, ...]  # all that a file holds, sorted by dimension, amount and unit
    amounts: np.ndarray  # of each quantity: a number that equal amounts share, in their order
    choices: np.ndarray  # (rows, files): position in `quantities`, or NO_VOTE
    confidences: np.ndarray  # (rows, files): 0 to 1, or NaN
    has_row: np.ndarray  # (rows, files): whether the file has the row, with a vote or without

    def take(self, chosen: np.ndarray) -> "Votes":
        """The votes about some rows, given by their positions."""
        return replace(
            self,
            rows=self.rows.take(chosen),
            choices=self.choices[chosen],
            confidences=self.confidences[chosen],
            has_row=self.has_row[chosen],
        )

    def amounts_chosen(self) -> np.ndarray:
        """The amount of each vote, or NO_VOTE: (rows, files)."""
        return np.append(self.amounts, NO_VOTE)[self.choices]


def read_files(paths: Sequence[str], *, schema: Schema) -> dict[str, pd.DataFrame]:
    """The table of each file of predictions, by its name: index, prediction, confidence, and more if it has them.

    Raises InputError for a file that `read_predictions` refuses, and for one that is given twice, because its votes
    would count twice.
    """
    resolved = [Path(path).resolve() for path in paths]
    for number, path in enumerate(resolved):
        if path in resolved[:number]:
            raise InputError(f"{paths[number]} is given twice, so its votes would count twice; give each file once")
    optional, as_written = ("entity_name", "image_link"), not is_challenge(schema)
    return {path: read_predictions(path, optional=optional, as_written=as_written) for path in paths}


def find_copies(votes: Votes) -> list[tuple[int, int]]:
    """The pairs of files with equal votes about the rows that both have, as X.csv and X.parquet of one run.

    With votes about fewer than MIN_ROWS_TO_JUDGE of these rows, that may be chance.
    """
    copies = []
    for one, other in combinations(range(votes.choices.shape[1]), 2):
        in_both = votes.has_row[:, one] & votes.has_row[:, other]
        ours, theirs = votes.choices[in_both, one], votes.choices[in_both, other]
        if (ours != NO_VOTE).sum() >= MIN_ROWS_TO_JUDGE and np.array_equal(ours, theirs):
            copies.append((one, other))
    return copies


def parse_vote(text: str, *, ranges: str = "leave_out") -> Quantity | None:
    """The quantity in `text`, or None. `ranges` is one of RANGE_POLICIES: "first" and "last" read that end of a range.

    A range itself does not vote, because a submission cannot hold one.
    """
    if len(text) > MAX_CHARACTERS:
        return None
    try:
        return parse_quantity(text, ranges=ranges)
    except ValueError:
        return None


def parse_value(text: str, attribute: Attribute, *, ranges: str = "leave_out") -> Value | None:
    """The answer in `text` about an attribute of another schema; None for an empty one.

    Raises LabelError, with the reason, for a text that is not an answer.
    """
    answer = attribute.normalize(text, ranges=ranges) if text else ""
    kind = attribute.kind
    if not answer:
        return None
    if not isinstance(kind, QuantityKind):
        return Value("", Fraction(0), key_of(answer), answer)
    number, unit = kind.split(answer)
    return Value(kind.dimension, Fraction(number) * Fraction(kind.sizes[unit]), "", answer)


def count_votes(
    tables: Mapping[str, pd.DataFrame], rows: Rows, *, ranges: str = "leave_out"
) -> tuple[Votes, dict[str, Count]]:
    """The votes of tables of predictions (index, prediction, confidence) about `rows`, and what each table's rows are.

    Raises InputError if so many predictions of a table are in a unit of another attribute that they must be about
    other rows.
    """
    texts, written, confidences = _join_tables(tables, rows)
    judge = _judge_quantities if is_challenge(rows.schema) else _judge_values
    quantities, choices, is_unsuitable = judge(texts, written, rows, ranges)
    is_written = (written != NO_ROW) & (np.array([*texts, ""], dtype=object)[written] != "")
    is_invalid = (choices == NO_VOTE) & is_written & ~is_unsuitable
    is_judged = ((choices != NO_VOTE) & (rows.entities != rows.unknown)[:, None]) | is_unsuitable
    counts = {}
    for column, (name, table) in enumerate(tables.items()):
        first = [int(kind[:, column].argmax()) for kind in (is_invalid, is_unsuitable) if kind[:, column].any()]
        counts[name] = Count(
            rows=len(table),
            votes=int((choices[:, column] != NO_VOTE).sum()),
            has_confidences=bool((np.isfinite(confidences) & (choices != NO_VOTE))[:, column].any()),
            invalid=int(is_invalid[:, column].sum()),
            unsuitable=int(is_unsuitable[:, column].sum()),
            examples=tuple(_example(rows.indexes[row], texts[written[row, column]]) for row in first),
        )
        _check_split(name, counts[name], judged=int(is_judged[:, column].sum()))
    confidences = np.where(choices == NO_VOTE, np.nan, confidences)
    amounts = _number_amounts(quantities)
    return Votes(rows, tuple(quantities), amounts, choices, confidences, has_row=written != NO_ROW), counts


def _judge_quantities(
    texts: Sequence[str], written: np.ndarray, rows: Rows, ranges: str
) -> tuple[Sequence[Vote], np.ndarray, np.ndarray]:
    """All quantities, the position of each prediction's among them, and which are in a unit of another attribute."""
    parsed = [parse_vote(text, ranges=ranges) for text in texts]
    quantities = sorted({one for one in parsed if one is not None}, key=_sort_key)
    position = {quantity: number for number, quantity in enumerate(quantities)}
    choices = np.array([*(NO_VOTE if one is None else position[one] for one in parsed), NO_VOTE])[written]
    is_unsuitable = ~_suits(quantities)[choices, rows.entities[:, None]]
    return quantities, np.where(is_unsuitable, NO_VOTE, choices), is_unsuitable


def _judge_values(
    texts: Sequence[str], written: np.ndarray, rows: Rows, ranges: str
) -> tuple[Sequence[Vote], np.ndarray, np.ndarray]:
    """Likewise for another schema, by which each prediction is parsed as an answer about its row's attribute."""
    is_unknown = rows.entities == rows.unknown
    if is_unknown.any():
        raise InputError(
            f"the attribute of {int(is_unknown.sum())} rows, for example of index {rows.indexes[is_unknown][0]}, is "
            "in none of the files, but says what a prediction means; pass `test_csv`"
        )
    attributes = [rows.schema[name] for name in rows.schema.names]
    # Each text about each attribute once: predictions repeat.
    pairs, inverse = np.unique(
        np.stack([np.broadcast_to(rows.entities[:, None], written.shape), written]).reshape(2, -1),
        axis=1, return_inverse=True,
    )  # fmt: skip
    parsed: list[Value | None] = []
    unsuitable = []
    for entity, text in pairs.T.tolist():
        try:
            parsed.append(None if text == NO_ROW else parse_value(texts[text], attributes[entity], ranges=ranges))
            unsuitable.append(False)
        except LabelError as error:
            parsed.append(None)
            unsuitable.append(error.reason == "unit_unsuitable")
    values = sorted({one for one in parsed if one is not None})
    position = {value: number for number, value in enumerate(values)}
    choices = np.array([NO_VOTE if one is None else position[one] for one in parsed], int)[inverse.ravel()]
    return values, choices.reshape(written.shape), np.array(unsuitable, bool)[inverse.ravel()].reshape(written.shape)


def _join_tables(tables: Mapping[str, pd.DataFrame], rows: Rows) -> tuple[list[str], np.ndarray, np.ndarray]:
    """All different texts, and each prediction's position among them (or NO_ROW) and confidence: (rows, tables)."""
    texts: dict[str, int] = {}
    written = np.full((len(rows), len(tables)), NO_ROW)
    confidences = np.full(written.shape, np.nan)
    for column, table in enumerate(tables.values()):
        positions = rows.positions(table["index"])
        codes, different = pd.factorize(table["prediction"].to_numpy(object))
        written[positions, column] = np.array([texts.setdefault(text, len(texts)) for text in different], int)[codes]
        confidences[positions, column] = table["confidence"]
    return list(texts), written, confidences


def _sort_key(quantity: Quantity) -> tuple[str, Decimal, str]:
    base = to_base_unit(quantity)
    return base.unit, base.number, quantity.unit


def _number_amounts(quantities: Sequence[Vote]) -> np.ndarray:
    """Number the different amounts of sorted quantities, and the different values."""
    amounts: list[tuple[object, ...]] = [
        (one.dimension, one.amount, one.key) if isinstance(one, Value) else _sort_key(one)[:2] for one in quantities
    ]
    return np.cumsum(
        [number > 0 and amounts[number - 1] != amount for number, amount in enumerate(amounts)], dtype=int
    )


def _suits(quantities: Sequence[Quantity]) -> np.ndarray:
    """Whether each quantity suits each attribute; the last row is for NO_VOTE, the last column for any."""
    suits = np.ones((len(quantities) + 1, len(ENTITIES) + 1), dtype=bool)
    for number, quantity in enumerate(quantities):
        suits[number, :-1] = [is_suitable(quantity.unit, name) for name in ENTITIES]
    return suits


def _example(index: int, text: str) -> str:
    return f"index {index}: {one_line(repr(text), max_length=60)}"


def _check_split(name: str, count: Count, *, judged: int) -> None:
    """`judged` predictions are a quantity about a row whose attribute is known."""
    if judged >= MIN_ROWS_TO_JUDGE and count.unsuitable > MAX_SHARE_UNSUITABLE * judged:
        raise InputError(
            f"{name}: {count.unsuitable} of {judged} predictions are in a unit of another attribute, for example "
            f"{count.examples[-1]}; are these predictions of another split?"
        )
