"""Questions that their image does not answer: which ones are known, and how many a dataset has of them.

A model that has only seen questions with an answer answers any question. With `--unanswered SHARE`, both labelled
splits have this share of rows, of each attribute, whose answer is empty. An image is known not to show an attribute

- `stated`: because a row of train.csv asks for it, and its label is empty;
- `labels`: because no row asks for it, of this image and of those related to it, and others have a label: right where
  whoever labelled an image labelled all that it shows;
- by a file: because a reader, an OCR or an earlier adapter, gives it a low probability.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dataset_builder.csv_reader import Tables
from dataset_builder.options import STATED, SelectionOptions
from dataset_builder.row_filter import DatasetRow, Dropped, FilteredRows, as_frame, filter_rows, readable_schema
from dataset_builder.split import Splits, components, split_rows
from dataset_builder.stored_image import StoredImage
from dataset_builder.unanswered_sources import NONE_STATED, NotShown, describe, read_file
from product_vqa.errors import InputError
from product_vqa.tables.rows import MAX_INDEX, Row
from product_vqa.task.attributes import Schema

logger = logging.getLogger(__name__)

SURPLUS = "unanswered_surplus"  # why a row with an empty label is dropped: there are more than the share
_LABELLED = ("train", "validation")


class ChosenRows(NamedTuple):
    filtered: FilteredRows
    splits: Splits
    unanswered: dict[str, Any]  # for the manifest: `describe`, and the number of rows; empty if none were asked for


def choose_rows(
    tables: Tables, images: Mapping[str, StoredImage], failures: Mapping[str, str], *, selection: SelectionOptions
) -> ChosenRows:
    """Filter and split the rows, and make `selection.unanswered` of each labelled split questions without an answer.

    The other rows of the splits are the same as without. Raises InputError as `filter_rows` and `describe` do, and if
    no such question is known.
    """
    described = describe(selection)
    readable = replace(tables, schema=readable_schema(tables.schema, selection))
    filtered = filter_rows(
        readable, images, failures, ranges=selection.ranges, unit_spellings=selection.unit_spellings
    )
    splits = split_rows(filtered, validation_size=selection.validation_size, seed=selection.seed)
    if not described:
        return ChosenRows(filtered, splits, {})
    known = _Known(splits, tables, selection)
    rows: dict[str, tuple[DatasetRow, ...]] = {}
    dropped: list[Dropped] = []
    next_index = first = max((row.index for row in tables.rows()), default=-1) + 1
    for split, own in splits.rows.items():
        rows[split] = own
        if split in _LABELLED:
            surplus, added = known.choose(split)
            assert tables.train is not None
            dropped += [Dropped("row", tables.train.name, own[position].row, SURPLUS) for position in surplus]
            rows[split] = tuple(_change(own, surplus, added, next_index=next_index))
            next_index += sum(map(len, added.values()))
    if next_index > MAX_INDEX:
        raise InputError("`train_csv`: an index is too large for rows to be added after it; lower it")
    splits = replace(splits, rows={split: own for split, own in rows.items() if own})
    counts = {
        split: dict(Counter(one.row.entity_name for one in own if not one.label).most_common())
        for split, own in splits.rows.items()
        if split in _LABELLED
    }
    if not any(counts.values()):
        raise InputError(f"`unanswered`: {known.explain_none()}")
    _report(counts, known.wanted)
    filtered = replace(filtered, dropped=(*filtered.dropped, *dropped))
    added_from = {"first_index": first} if next_index > first else {}
    return ChosenRows(filtered, splits, {**described, "rows": counts, **added_from})


def schema_with(schema: Schema, unanswered: Mapping[str, Any]) -> Schema:
    """The schema of the dataset: "not shown" is an answer about the attributes that have such rows."""
    names = {name for counts in unanswered.get("rows", {}).values() for name in counts}
    return schema.with_not_shown(names.union(schema.not_shown)) if names else schema


class _Known:
    """The questions about the images of the labelled splits that are known to have no answer."""

    def __init__(self, splits: Splits, tables: Tables, selection: SelectionOptions) -> None:
        self.selection = selection
        self.names = tables.schema.names
        self.wanted: dict[str, Counter[str]] = {}  # by split and attribute
        self._splits = splits
        everything = [*chain.from_iterable(splits.rows.values())]
        self._component = components(as_frame(everything))
        entities = {name: number for number, name in enumerate(self.names)}
        entity = np.fromiter((entities[one.row.entity_name] for one in everything), dtype=np.intp)
        # What is asked about an image, or about a related one, is not a candidate: rows of test, whose answer is
        # unknown, and rows whose label could not be read ask for it too.
        self._asked = np.zeros((self._component.max() + 1, len(self.names)), dtype=bool)
        self._asked[self._component, entity] = True
        component_of_url = {
            one.row.image_link: number for one, number in zip(everything, self._component, strict=True)
        }
        for row in tables.rows():
            if (number := component_of_url.get(row.image_link)) is not None:
                self._asked[number, entities[row.entity_name]] = True
        has_label = np.fromiter((one.label != "" for one in everything), dtype=bool)
        self._group, groups = pd.factorize(np.array([one.row.group_id for one in everything], dtype=object))
        self._usual = np.zeros((len(groups), len(self.names)), dtype=bool)
        self._usual[self._group[has_label], entity[has_label]] = True
        self._usual[groups == ""] = self._usual.any(axis=0)  # of no group: whatever is asked at all
        self._not_shown: NotShown | None = None
        if selection.is_unanswered_file:
            self._not_shown = read_file(selection)

    def choose(self, split: str) -> tuple[set[int], dict[int, list[str]]]:
        """Positions of rows of a split to drop, and the attributes to ask for after the row of a position."""
        rows = self._splits.rows[split]
        share = self.selection.unanswered
        stated: dict[str, list[int]] = {}
        answered: Counter[str] = Counter()
        for position, one in enumerate(rows):
            if one.label:
                answered[one.row.entity_name] += 1
            else:
                stated.setdefault(one.row.entity_name, []).append(position)
        self.wanted[split] = Counter({name: round(share / (1 - share) * number) for name, number in answered.items()})
        surplus: set[int] = set()
        added: dict[int, list[str]] = {}
        for name in self.names:
            wanted, own = self.wanted[split][name], stated.get(name, [])
            surplus.update(sorted(own, key=partial(self._draw, rows, name))[wanted:])
            if self.selection.unanswered_from != STATED and len(own) < wanted:
                for position in self._find(split, name)[: wanted - len(own)]:
                    added.setdefault(position, []).append(name)
        return surplus, added

    def _find(self, split: str, name: str) -> list[int]:
        """Positions of rows whose image does not show an attribute: one of each component, in random order."""
        rows, number = self._splits.rows[split], self.names.index(name)
        start = sum(len(own) for _, own in self._before(split))
        here = slice(start, start + len(rows))
        component, group = self._component[here], self._group[here]
        possible = np.flatnonzero(~self._asked[component, number] & self._usual[group, number])
        found: dict[int, int] = {}
        for position in sorted(possible.tolist(), key=partial(self._draw, rows, name)):
            one = rows[position]
            is_known = bool(one.label) if self._not_shown is None else (one.row.image_link, name) in self._not_shown
            if is_known:
                found.setdefault(int(component[position]), position)
        return list(found.values())

    def _before(self, split: str) -> Iterator[tuple[str, tuple[DatasetRow, ...]]]:
        for name, own in self._splits.rows.items():
            if name == split:
                return
            yield name, own

    def _draw(self, rows: tuple[DatasetRow, ...], name: str, position: int) -> tuple[bytes, int]:
        """A random order of rows, which depends on the seed and the names of the images, but not on their server."""
        row = rows[position].row
        text = f"{self.selection.seed} {name} {row.image_link.rpartition('/')[2]}"
        return hashlib.sha256(text.encode()).digest(), row.index

    def explain_none(self) -> str:
        if self.selection.unanswered_from == STATED:
            return NONE_STATED
        if self._not_shown is None:
            return "every image has a label for each attribute of its group: none is known to lack one"
        return (
            f"{self.selection.unanswered_from} has no attribute of a labelled image with `shown` below "
            f"{self.selection.unanswered_below}, which has no label and is one that its group is asked for"
        )


def _change(
    rows: tuple[DatasetRow, ...], surplus: set[int], added: Mapping[int, list[str]], *, next_index: int
) -> Iterator[DatasetRow]:
    """The rows of a split without the surplus, and with the added questions after the row of the same image."""
    for position, one in enumerate(rows):
        if position not in surplus:
            yield one
        for name in added.get(position, ()):
            asked = Row(
                position=one.row.position,
                index=next_index,
                image_link=one.row.image_link,
                group_id=one.row.group_id,
                entity_name=name,
                entity_value="",
            )
            yield DatasetRow(asked, "", one.image)
            next_index += 1


def _report(counts: Mapping[str, Mapping[str, int]], wanted: Mapping[str, Mapping[str, int]]) -> None:
    for split, by_entity in counts.items():
        number, of = sum(by_entity.values()), sum(wanted[split].values())
        listed = ", ".join(f"{name} {count}" for name, count in by_entity.items()) or "none"
        print(f"{split}: {number} of {of} wanted questions without an answer ({listed})")
        if missing := [name for name, count in wanted[split].items() if count and not by_entity.get(name)]:
            logger.warning("%s: no image is known not to show %s", split, ", ".join(missing))
