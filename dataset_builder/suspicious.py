"""Labels that are probably wrong: named, not left out."""

import csv
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dataset_builder.csv_reader import Row, Table
from dataset_builder.labels import UNIT_UNSUITABLE, judge_label

ZERO = "zero"
OUTLIER = "outlier"  # among the labels of its entity in its unit
TWO_ANSWERS = "two_answers"  # one image, one question, and another answer elsewhere
MIN_LABELS = 20  # of one entity in one unit, for an outlier to stand out among them
FENCE = 3  # interquartile ranges beyond the quartiles, of the numbers' logarithms: Tukey's "far out"


class Suspicious(NamedTuple):
    row: Row
    reason: str


def find_suspicious(table: Table) -> Iterator[Suspicious]:
    """Rows of train.csv, in the order of the reasons; a row can have several."""
    plain: list[tuple[Row, str]] = []
    for row in table.rows:
        label, reason = judge_label(row.entity_name, row.entity_value)
        if reason == UNIT_UNSUITABLE:
            yield Suspicious(row, UNIT_UNSUITABLE)
        elif not reason:
            plain.append((row, label))
    by_unit: defaultdict[tuple[str, str], list[tuple[Row, float]]] = defaultdict(list)
    for row, label in plain:
        number, unit = label.split(" ", maxsplit=1)
        if float(number) == 0:
            yield Suspicious(row, ZERO)
        else:
            by_unit[row.entity_name, unit].append((row, math.log(float(number))))
    for labels in by_unit.values():
        if len(labels) >= MIN_LABELS:
            first, _, third = statistics.quantiles([size for _, size in labels])
            reach = FENCE * (third - first)
            yield from (Suspicious(row, OUTLIER) for row, size in labels if not first - reach <= size <= third + reach)
    answers: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for row, label in plain:
        answers[row.image_link, row.entity_name].add(label)
    yield from (Suspicious(row, TWO_ANSWERS) for row, _ in plain if len(answers[row.image_link, row.entity_name]) > 1)


def write_suspicious(found: list[Suspicious], file: Path) -> None:
    """One line for each, as in `left_out.csv`; `row` counts the file's rows from 0."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["reason", "row", *Row._fields[1:]])
        writer.writerows([reason, *row] for row, reason in found)
