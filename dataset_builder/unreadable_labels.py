"""Explains why labels cannot be read: the commonest reason, an example with its row, and what would read it."""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from dataset_builder.labels import label_judge, read_label
from product_vqa.quoting import one_line
from product_vqa.tables.rows import Row, Table
from product_vqa.task.attributes import Schema
from product_vqa.task.kinds import LabelError
from product_vqa.task.schema import is_challenge

logger = logging.getLogger(__name__)

MANY = 0.1  # of a table's labels; of the challenge's, 1.6 % cannot be read
_RANGES = "set `ranges` first or last to read an end of each range"
_REMEDIES = {"range_brackets": _RANGES, "range_to": _RANGES}
_EMPTY = "has an empty label: remove such rows, or set `unanswered` if their images do not show the attribute"
_SCHEMA_REMEDIES = {
    "unit_unknown": "add it to the `spellings` of its unit in the schema",
    "not_a_choice": "add it to the schema, as a value or as a synonym of one",
}


class Explanation(NamedTuple):
    text: str  # unit_unknown 3; like row 0 (from 0): item_weight '341 g' is not a number and one of ...; set ...
    num_read_with_spellings: int  # labels that `unit_spellings` would read


def warn_of_unreadable(
    table: Table, unreadable: Sequence[tuple[Row, str]], *, schema: Schema, ranges: str, unit_spellings: bool
) -> None:
    """Warn of rows whose label cannot be read, given with the reasons, if there are many or an option reads them."""
    if not unreadable:
        return
    found = explain_unreadable(unreadable, schema=schema, ranges=ranges, unit_spellings=unit_spellings)
    if found.num_read_with_spellings or len(unreadable) > MANY * len(table.rows):
        logger.warning(
            "%s: %s of %s labels cannot be read (%s)", table.name, len(unreadable), len(table.rows), found.text
        )


def explain_unreadable(
    unreadable: Sequence[tuple[Row, str]], *, schema: Schema, ranges: str, unit_spellings: bool
) -> Explanation:
    """Explain why these rows, at least one, have the reasons that they are given with."""
    counts = Counter(reason for _, reason in unreadable)
    reason, _ = counts.most_common(1)[0]
    row = next(row for row, of_row in unreadable if of_row == reason)
    shown = ", ".join(f"{name} {count}" for name, count in counts.most_common())
    problem = _problem(row, schema=schema, ranges=ranges, unit_spellings=unit_spellings)
    parts = [f"{shown}; like row {row.position} (from 0): {row.entity_name} {problem}"]
    read = [] if unit_spellings else _read_with_spellings(unreadable, schema=schema, ranges=ranges)
    remedies = _REMEDIES if is_challenge(schema) else _REMEDIES | _SCHEMA_REMEDIES
    if read:
        label, answer = read[0]
        shown = one_line(repr(label), max_length=50)
        parts.append(f"set `unit_spellings` to read {len(read)} of them, like {shown} as {answer!r}")
    elif reason in remedies:
        parts.append(remedies[reason])
    return Explanation("; ".join(parts), len(read))


def _problem(row: Row, *, schema: Schema, ranges: str, unit_spellings: bool) -> str:
    if not row.entity_value.strip():
        return _EMPTY
    try:
        read_label(schema[row.entity_name], row.entity_value, ranges=ranges, unit_spellings=unit_spellings)
    except LabelError as error:
        label, problem = repr(row.entity_value.strip()), one_line(str(error))
        return problem if problem.startswith(label[:20]) else f"{one_line(label, max_length=50)}: {problem}"
    raise AssertionError("the label of the row can be read")


def _read_with_spellings(
    unreadable: Sequence[tuple[Row, str]], *, schema: Schema, ranges: str
) -> list[tuple[str, str]]:
    """The labels that `unit_spellings` would read, with their canonical forms."""
    if not is_challenge(schema):
        return []
    judge = label_judge(schema, ranges=ranges, unit_spellings=True)
    judged = ((row.entity_value, *judge(row.entity_name, row.entity_value)) for row, _ in unreadable)
    return [(label.strip(), answer) for label, answer, reason in judged if not reason]
