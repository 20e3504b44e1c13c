"""Which row goes into which split, and which is left out and why."""

import csv
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from dataset_builder.csv_reader import Row, Table
from dataset_builder.image_store import ImageStore, LinkState, Status, count_reasons
from dataset_builder.labels import judge_label
from dataset_builder.split import Oversize, hold_out
from product_vqa.errors import InputError

LEFT_OUT_FILE = "left_out.csv"


class Selected(NamedTuple):
    row: Row
    label: str  # canonical; "" in test
    has_picture: bool  # always, but in test


class LeftOut(NamedTuple):
    """A row of train.csv that is in no split, or a row of test.csv that is there without its image."""

    what: str  # "row" or "image"
    file: str
    row: Row
    reason: str


@dataclass(frozen=True)
class Selection:
    rows_by_split: dict[str, tuple[Selected, ...]]  # without the splits that have none
    left_out: tuple[LeftOut, ...]
    oversize: tuple[Oversize, ...]  # components that stay in train for their size


def judge_rows(train: Table | None, *, ranges: str) -> tuple[list[tuple[Row, str]], list[LeftOut]]:
    """The rows of train.csv with the canonical label of each, and those whose label cannot be used."""
    labelled: list[tuple[Row, str]] = []
    left_out: list[LeftOut] = []
    for row in train.rows if train else ():
        label, reason = judge_label(row.entity_name, row.entity_value, ranges=ranges)
        if reason:
            left_out.append(LeftOut("row", train.name, row, reason))
        else:
            labelled.append((row, label))
    if train and not labelled:
        raise InputError(f"--train_csv {train.name}: none of the {len(train.rows)} rows has a label that can be used")
    return labelled, left_out


def select_rows(
    train: Table | None, test: Table | None, *, store: ImageStore, validation_size: float, seed: int, ranges: str
) -> Selection:
    """Raises InputError if no picture at all was found or no label can be used: the options are wrong then, not the
    rows."""
    labelled, left_out = judge_rows(train, ranges=ranges)
    test_rows = test.rows if test else ()
    states: dict[str, LinkState] = {}
    for row in (*(row for row, _ in labelled), *test_rows):
        if row.image_link not in states:
            states[row.image_link] = store.state(row.image_link)
    failures = {link: state.reason for link, state in states.items() if state.status != Status.STORED}
    if failures and len(failures) == len(states):
        link, reason = next(iter(failures.items()))
        raise InputError(
            f"not one of the {len(states)} pictures could be had ({link}: {reason}); check --image_dir, whose files "
            "must be named as the last part of their link, or fill the --image_store"
        )
    left_out += [
        LeftOut("row", train.name, row, failures[row.image_link]) for row, _ in labelled if row.image_link in failures
    ]
    left_out += [
        LeftOut("image", test.name, row, failures[row.image_link]) for row in test_rows if row.image_link in failures
    ]
    kept = [Selected(row, label, True) for row, label in labelled if row.image_link not in failures]
    is_held_out, oversize = hold_out(_frame(kept, states), validation_size=validation_size, seed=seed)
    rows_by_split = {
        "train": tuple(selected for selected, held_out in zip(kept, is_held_out, strict=True) if not held_out),
        "validation": tuple(selected for selected, held_out in zip(kept, is_held_out, strict=True) if held_out),
        "test": tuple(Selected(row, "", row.image_link not in failures) for row in test_rows),
    }
    rows_by_split = {split: rows for split, rows in rows_by_split.items() if rows}
    return Selection(rows_by_split, tuple(left_out), tuple(oversize))


def _frame(kept: list[Selected], states: dict[str, LinkState]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "index": [row.index for row, _, _ in kept],
            "image_link": [row.image_link for row, _, _ in kept],
            "group_id": [row.group_id for row, _, _ in kept],
            "entity_name": [row.entity_name for row, _, _ in kept],
            "entity_value": [label for _, label, _ in kept],
            "sha256": [states[row.image_link].sha256 for row, _, _ in kept],
            "phash": [states[row.image_link].phash for row, _, _ in kept],
        }
    )


def count_left_out(file: str | Path, what: str) -> dict[str, int]:
    """How often each reason occurs in `left_out.csv`, most frequent first, for rows or for images."""
    with open(file, newline="", encoding="utf-8") as stream:
        return dict(
            count_reasons(row["reason"] for row in csv.DictReader(stream) if row["left_out"] == what).most_common()
        )


def write_left_out(left_out: Collection[LeftOut], file: str | Path) -> None:
    """One line for each, with the row's columns as in its CSV; `row` counts the file's rows from 0."""
    with open(file, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["left_out", "reason", "file", "row", *Row._fields[1:]])
        writer.writerows([what, reason, name, *row] for what, name, row, reason in left_out)
