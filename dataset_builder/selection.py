"""Which row goes into which split, and which is left out and why."""

import csv
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from dataset_builder.image_store import count_reasons
from dataset_builder.labels import judge_label
from dataset_builder.split import validation_links
from dataset_builder.tables import Row, Table
from product_vqa.command import InputError

LEFT_OUT_FILE = "left_out.csv"


class Pictures(Protocol):
    """An image folder or an image store."""

    def failures(self, links: Collection[str]) -> dict[str, str]: ...

    def read(self, link: str) -> bytes: ...

    def fingerprint(self) -> str: ...


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


def select_rows(
    train: Table | None, test: Table | None, *, pictures: Pictures, validation_size: float, seed: int
) -> Selection:
    """Raises InputError if no picture at all was found or no row is left: the options are wrong then, not the rows."""
    left_out: list[LeftOut] = []
    labelled: list[tuple[Row, str]] = []
    for row in train.rows if train else ():
        label, reason = judge_label(row.entity_name, row.entity_value)
        if reason:
            left_out.append(LeftOut("row", train.name, row, reason))
        else:
            labelled.append((row, label))
    test_rows = test.rows if test else ()
    links = list(dict.fromkeys(row.image_link for row in [*(row for row, _ in labelled), *test_rows]))
    failures = pictures.failures(links)
    if failures and len(failures) == len(links):
        link, reason = next(iter(failures.items()))
        raise InputError(
            f"not one of the {len(links)} pictures could be had ({link}: {reason}); check --image_dir, whose files "
            "must be named as the last part of their link, or fill the --image_store"
        )
    left_out += [
        LeftOut("row", train.name, row, failures[row.image_link]) for row, _ in labelled if row.image_link in failures
    ]
    left_out += [
        LeftOut("image", test.name, row, failures[row.image_link]) for row in test_rows if row.image_link in failures
    ]
    kept = [Selected(row, label, True) for row, label in labelled if row.image_link not in failures]
    held_out = validation_links(
        (selected.row.image_link for selected in kept), validation_size=validation_size, seed=seed
    )
    rows_by_split = {
        "train": tuple(selected for selected in kept if selected.row.image_link not in held_out),
        "validation": tuple(selected for selected in kept if selected.row.image_link in held_out),
        "test": tuple(Selected(row, "", row.image_link not in failures) for row in test_rows),
    }
    rows_by_split = {split: rows for split, rows in rows_by_split.items() if rows}
    if not rows_by_split:
        raise InputError(f"--train_csv {train.name}: none of the {len(train.rows)} rows has a label that can be used")
    return Selection(rows_by_split, tuple(left_out))


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
