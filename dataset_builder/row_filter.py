"""Decides which rows can be used: a label that can be read, and an image. The others are dropped with a reason."""

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from dataset_builder.corrections import DROPPED, correct_rows
from dataset_builder.csv_reader import Tables, select_rows
from dataset_builder.image_store import NOT_FETCHED, count_reasons
from dataset_builder.labels import label_judge, read_label
from dataset_builder.options import STATED, SelectionOptions
from dataset_builder.stored_image import StoredImage
from dataset_builder.unit_spellings import check_unit_spellings
from dataset_builder.unreadable_labels import explain_unreadable, warn_of_unreadable
from product_vqa.errors import InputError
from product_vqa.quoting import one_line
from product_vqa.row_selection import RowSelection
from product_vqa.tables.rows import Row, Table
from product_vqa.task.attributes import Schema

logger = logging.getLogger(__name__)

_REMEDIES = {  # by the reason, for images of which none could be loaded
    "image_missing": "check `image_dir`: a link must be a path in it, or end in the name of a file",
    NOT_FETCHED: "set `download` true to download them into `image_store`",
    "private_address": "set `allow_private_hosts` if you wrote these URLs yourself",
}


class DatasetRow(NamedTuple):
    """A row of the dataset. In test, the label is "" and the image may be missing."""

    row: Row
    label: str  # canonical
    image: StoredImage | None


class Dropped(NamedTuple):
    """A row of train.csv that is in no split, or a row of test.csv that is in its split without an image."""

    what: str  # "row" or "image"
    file: str
    row: Row
    reason: str


@dataclass(frozen=True)
class FilteredRows:
    labelled: tuple[DatasetRow, ...]  # of train.csv
    test: tuple[DatasetRow, ...]
    dropped: tuple[Dropped, ...]

    def count_dropped(self, what: str) -> dict[str, int]:
        """How many rows, or images, were dropped for each reason, the most frequent reason first."""
        return dict(count_reasons(dropped.reason for dropped in self.dropped if dropped.what == what).most_common())


def readable_schema(schema: Schema, selection: SelectionOptions) -> Schema:
    """The schema by which labels are read: empty ones are, where they state that an image shows nothing."""
    is_stated = selection.unanswered and selection.unanswered_from == STATED
    return schema.with_not_shown(schema.names) if is_stated else schema


def correct_labels(tables: Tables, selection: SelectionOptions) -> Tables:
    """The tables with the corrections of `selection`. Raises InputError for one that cannot be applied."""
    if not selection.corrections:
        return tables
    if tables.train is None:
        raise InputError("`corrections` needs `train_csv`: rows to predict have no labels")
    check_unit_spellings(tables.schema, unit_spellings=selection.unit_spellings)
    schema = readable_schema(tables.schema, selection)

    @cache
    def read(entity_name: str, label: str) -> str:
        return read_label(schema[entity_name], label, ranges=selection.ranges, unit_spellings=selection.unit_spellings)

    train, corrections = correct_rows(tables.train, selection.corrections, read_label=read)
    return replace(tables, train=train, corrections=corrections)


def select_labels(tables: Tables, selection: SelectionOptions, row_selection: RowSelection) -> Tables:
    """The selected rows with their corrected labels, which are checked. A correction may be about any row."""
    tables = select_rows(correct_labels(tables, selection), row_selection)
    check_labels(tables, selection)
    return tables


def check_labels(tables: Tables, selection: SelectionOptions) -> None:
    """Raise InputError if no label can be read, and warn if many cannot: before the images are downloaded."""
    check_unit_spellings(tables.schema, unit_spellings=selection.unit_spellings)
    if tables.train is None:
        return
    schema, ranges = readable_schema(tables.schema, selection), selection.ranges
    unit_spellings = selection.unit_spellings
    _, dropped = filter_labels(
        tables.train, ranges=ranges, unit_spellings=unit_spellings, schema=schema, to_drop=tables.corrections.dropped
    )
    unreadable = [(one.row, one.reason) for one in dropped if one.reason != DROPPED]
    warn_of_unreadable(tables.train, unreadable, schema=schema, ranges=ranges, unit_spellings=unit_spellings)


def filter_rows(
    tables: Tables,
    images: Mapping[str, StoredImage],
    failures: Mapping[str, str],
    *,
    ranges: str,
    unit_spellings: bool = False,
) -> FilteredRows:
    """Keep the rows of train.csv with a usable label and an image, and every row of test.csv.

    `images` and `failures` come from `ImageStore.find`: for each URL its image, or the reason why there is none.
    Raises InputError if no label or no image can be used at all, because then the options are wrong, not the rows.
    """
    labelled, dropped = (
        filter_labels(
            tables.train,
            ranges=ranges,
            unit_spellings=unit_spellings,
            schema=tables.schema,
            to_drop=tables.corrections.dropped,
        )
        if tables.train
        else ([], [])
    )
    test_rows = tables.test.rows if tables.test else ()
    _check_images([*(row for row, _ in labelled), *test_rows], failures)
    if tables.train:
        dropped += [
            Dropped("row", tables.train.name, row, failures[row.image_link])
            for row, _ in labelled
            if row.image_link in failures
        ]
    if tables.test:
        dropped += [
            Dropped("image", tables.test.name, row, failures[row.image_link])
            for row in test_rows
            if row.image_link in failures
        ]
    filtered = FilteredRows(
        labelled=tuple(
            DatasetRow(row, label, images[row.image_link]) for row, label in labelled if row.image_link in images
        ),
        test=tuple(DatasetRow(row, "", images.get(row.image_link)) for row in test_rows),
        dropped=tuple(dropped),
    )
    for what, message in (("row", "rows of train dropped"), ("image", "rows of test without an image")):
        counts = filtered.count_dropped(what)
        if counts:
            reasons = ", ".join(f"{reason} {count}" for reason, count in counts.items())
            logger.warning("%s %s: %s", sum(counts.values()), message, reasons)
    return filtered


def filter_labels(
    train: Table,
    *,
    ranges: str,
    schema: Schema,
    unit_spellings: bool = False,
    to_drop: Collection[int] = frozenset(),
) -> tuple[list[tuple[Row, str]], list[Dropped]]:
    """The rows of train.csv with a usable label and its canonical form, and the other rows with the reason.

    `to_drop` are the indexes of rows that are dropped whatever their label is.
    """
    labelled: list[tuple[Row, str]] = []
    dropped: list[Dropped] = []
    judge = label_judge(schema, ranges=ranges, unit_spellings=unit_spellings)
    for row in train.rows:
        label, reason = ("", DROPPED) if row.index in to_drop else judge(row.entity_name, row.entity_value)
        if reason:
            dropped.append(Dropped("row", train.name, row, reason))
        else:
            labelled.append((row, label))
    if not labelled:
        unreadable = [(one.row, one.reason) for one in dropped if one.reason != DROPPED]
        if not unreadable:
            raise InputError(f"`corrections` drop all {len(train.rows)} rows of `train_csv` {train.name}; keep some")
        found = explain_unreadable(unreadable, schema=schema, ranges=ranges, unit_spellings=unit_spellings)
        raise InputError(
            f"`train_csv` {train.name}: none of the {len(train.rows)} rows has a usable label ({found.text})"
        )
    return labelled, dropped


def _check_images(rows: list[Row], failures: Mapping[str, str]) -> None:
    urls = dict.fromkeys(row.image_link for row in rows)
    if not all(url in failures for url in urls):
        return
    url = next(iter(urls))
    reason = failures[url]
    remedy = _REMEDIES.get(reason.partition(":")[0], "check the URLs, or use images that you have with `image_dir`")
    raise InputError(f"none of the {len(urls)} images could be loaded ({one_line(url)}: {reason}); {remedy}")


def as_frame(rows: Collection[DatasetRow]) -> pd.DataFrame:
    """The rows as a table, without the CSV's spelling of the label, and with the hashes and the size of the image.

    `sha256` holds the images themselves, which are equal if their hashes are.
    """
    images = [selected.image for selected in rows]
    sizes = StoredImage.unpack(images)
    is_missing = np.fromiter((image is None for image in images), dtype=bool, count=len(images))

    def shared(values: Iterable[str | StoredImage | None]) -> pd.Series:
        # The rows' own objects. Arrow would copy them, and take 300 bytes for each to compare them.
        return pd.Series(list(values), dtype=object)

    def nullable(name: str, dtype: str) -> pd.arrays.IntegerArray:
        # As a float, a 64-bit hash would lose its last bits.
        return pd.arrays.IntegerArray(sizes[name].astype(dtype), is_missing)

    return pd.DataFrame(
        {
            "index": np.fromiter((selected.row.index for selected in rows), dtype=np.int64, count=len(rows)),
            "image_link": shared(selected.row.image_link for selected in rows),
            "group_id": shared(selected.row.group_id for selected in rows),
            "entity_name": shared(selected.row.entity_name for selected in rows),
            "entity_value": shared(selected.label for selected in rows),
            "width": nullable("width", "int32"),
            "height": nullable("height", "int32"),
            "sha256": shared(images),
            "phash": nullable("phash", "int64"),
        }
    )
