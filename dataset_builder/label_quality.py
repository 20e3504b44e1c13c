"""Finds labels that are probably wrong. They are reported, and stay in the dataset, but for unsuitable units."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dataset_builder.csv_reader import Row, Table
from dataset_builder.labels import UNIT_UNSUITABLE, judge_label
from product_vqa.quoting import write_cells

ZERO = "zero"
OUTLIER = "outlier"  # among the labels of its entity in its unit
TWO_ANSWERS = "two_answers"  # the same image and entity with another label elsewhere
MIN_LABELS = 20  # of one entity in one unit; among fewer labels, nothing counts as an outlier
FENCE = 3  # interquartile ranges beyond the quartiles of the logarithms: Tukey's "far out"


class Suspicious(NamedTuple):
    row: Row
    reason: str


def find_suspicious(table: Table) -> Iterator[Suspicious]:
    """The suspicious rows of train.csv, ordered by reason. A row can have several reasons."""
    plain: list[tuple[Row, str]] = []
    for row in table.rows:
        label, reason = judge_label(row.entity_name, row.entity_value)
        if reason == UNIT_UNSUITABLE:
            yield Suspicious(row, UNIT_UNSUITABLE)
        elif not reason:
            plain.append((row, label))
    logarithms: defaultdict[tuple[str, str], list[tuple[Row, float]]] = defaultdict(list)
    for row, label in plain:
        number, unit = label.split(" ", maxsplit=1)
        if float(number) == 0:
            yield Suspicious(row, ZERO)
        else:
            logarithms[row.entity_name, unit].append((row, math.log(float(number))))
    for rows in logarithms.values():
        yield from (Suspicious(row, OUTLIER) for row in _find_outliers(rows))
    labels: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for row, label in plain:
        labels[row.image_link, row.entity_name].add(label)
    for row, _ in plain:
        if len(labels[row.image_link, row.entity_name]) > 1:
            yield Suspicious(row, TWO_ANSWERS)


def _find_outliers(rows: list[tuple[Row, float]]) -> Iterator[Row]:
    """Rows whose number is far from the others of its entity and unit. Each comes with its logarithm."""
    if len(rows) < MIN_LABELS:
        return
    first, _, third = statistics.quantiles(logarithm for _, logarithm in rows)
    distance = FENCE * (third - first)
    for row, logarithm in rows:
        if not first - distance <= logarithm <= third + distance:
            yield row


def write_suspicious(found: list[Suspicious], file: Path) -> None:
    """Write one line per row and reason, with the columns of `left_out.csv`. `row` counts rows from 0."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        write_cells(stream, [("reason", "row", *Row._fields[1:]), *((reason, *row) for row, reason in found)])
