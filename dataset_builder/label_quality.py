"""Finds labels that are probably wrong. They are reported, and stay in the dataset, but for unsuitable units."""

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dataset_builder.labels import UNIT_UNSUITABLE, label_judge
from product_vqa.quoting import write_cells
from product_vqa.tables.rows import Row, Table
from product_vqa.task.attributes import Schema
from product_vqa.task.kinds import SEPARATOR, IntegerKind, Kind, QuantityKind, key_of

ZERO = "zero"
OUTLIER = "outlier"  # among the labels of its entity in its unit
TWO_ANSWERS = "two_answers"  # the same image and entity with another label elsewhere
RARE = "rare"  # a value of a choice that hardly any label has
MIN_LABELS = 20  # of one entity in one unit; among fewer labels, nothing counts as an outlier
FENCE = 3  # interquartile ranges beyond the quartiles of the logarithms: Tukey's "far out"
MIN_LABELS_OF_CHOICE = 200  # of one entity; among fewer labels, no value counts as rare
LABELS_PER_RARE = 10_000  # a value is rare up to 1 label, and 1 more for each 10,000 labels of its entity


class Suspicious(NamedTuple):
    row: Row
    reason: str


def find_suspicious(table: Table, *, schema: Schema, unit_spellings: bool = False) -> Iterator[Suspicious]:
    """The suspicious rows of train.csv, ordered by reason. A row can have several reasons.

    Zeros and outliers are numbers, with or without a unit; two answers can be of any kind.
    """
    judge = label_judge(schema, unit_spellings=unit_spellings)
    plain: list[tuple[Row, str]] = []
    for row in table.rows:
        label, reason = judge(row.entity_name, row.entity_value)
        if reason == UNIT_UNSUITABLE:
            yield Suspicious(row, UNIT_UNSUITABLE)
        elif not reason:
            plain.append((row, label))
    kinds = {name: attribute.kind for name, attribute in schema.attributes.items()}
    logarithms: defaultdict[tuple[str, str, bool], list[tuple[Row, float]]] = defaultdict(list)
    for row, label in plain:
        kind = kinds[row.entity_name]
        if not label or not isinstance(kind, QuantityKind | IntegerKind):
            continue
        number, unit = kind.split(label)
        if float(number) != 0:
            logarithm = math.log(abs(float(number)))
            logarithms[row.entity_name, unit, number.startswith("-")].append((row, logarithm))
        elif not kind.signed:  # 0 degrees are as likely as others
            yield Suspicious(row, ZERO)
    for rows in logarithms.values():
        yield from (Suspicious(row, OUTLIER) for row in _find_outliers(rows))
    labels: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for row, label in plain:
        labels[row.image_link, row.entity_name].add(_meaning(kinds[row.entity_name], label))
    for row, _ in plain:
        if len(labels[row.image_link, row.entity_name]) > 1:
            yield Suspicious(row, TWO_ANSWERS)
    yield from (Suspicious(row, RARE) for row in _find_rare(plain, kinds))


def _meaning(kind: Kind, label: str) -> str:
    """What equal labels have in common: in texts and codes, case does not count."""
    return key_of(label) if kind.name in ("text", "pattern") else label


def _find_outliers(rows: list[tuple[Row, float]]) -> Iterator[Row]:
    """Rows whose number is far from the others of its entity and unit. Each comes with its logarithm."""
    if len(rows) < MIN_LABELS:
        return
    first, _, third = statistics.quantiles(logarithm for _, logarithm in rows)
    distance = FENCE * (third - first)
    for row, logarithm in rows:
        if not first - distance <= logarithm <= third + distance:
            yield row


def _find_rare(plain: list[tuple[Row, str]], kinds: dict[str, Kind]) -> Iterator[Row]:
    """Rows with a value of a choice, or one of several, that hardly any other row of the entity has."""
    values: defaultdict[str, Counter[str]] = defaultdict(Counter)
    num_labels: Counter[str] = Counter()
    chosen = []
    for row, label in plain:
        kind = kinds[row.entity_name]
        if label and kind.name in ("choice", "multi_choice", "yes_no"):
            parts = label.split(SEPARATOR) if kind.name == "multi_choice" else [label]
            values[row.entity_name].update(parts)
            num_labels[row.entity_name] += 1
            chosen.append((row, parts))
    for row, parts in chosen:
        total = num_labels[row.entity_name]
        most = 1 + total // LABELS_PER_RARE
        if total >= MIN_LABELS_OF_CHOICE and any(values[row.entity_name][part] <= most for part in parts):
            yield row


def write_suspicious(found: list[Suspicious], file: Path) -> None:
    """Write one line per row and reason, with the columns of `left_out.csv`. `row` counts rows from 0."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        write_cells(stream, [("reason", "row", *Row._fields[1:]), *((reason, *row) for row, reason in found)])
