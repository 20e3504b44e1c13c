"""Corrections of labels: what a person decided about rows of train.csv, as the page of `audit` saves it.

A correction names its row and the label that the row has. So one that was made for another CSV, or twice, is an error
and never a wrong label.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from product_vqa.csv_files import check_separator, parse_index
from product_vqa.errors import InputError, argument
from product_vqa.quoting import from_cell, one_line
from product_vqa.tables.record_files import open_table
from product_vqa.tables.records import Records
from product_vqa.tables.rows import Row, Table
from product_vqa.task.kinds import LabelError

KEEP, CORRECT, DROP = "keep", "correct", "drop"
DECISIONS = (KEEP, CORRECT, DROP)
REQUIRED = ("image_link", "entity_name", "entity_value", "decision")
OPTIONAL = ("index", "new_value")
DROPPED = "dropped_by_correction"  # why a row is in no split
ReadLabel = Callable[[str, str], str]  # the canonical form of an attribute's label; raises LabelError


class Correction(NamedTuple):
    """A line of the file."""

    where: str  # the file and the line
    index: int | None  # type: ignore[assignment]  # hides tuple.index
    image_link: str
    entity_name: str
    entity_value: str  # the label that the row has
    decision: str
    new_value: str


@dataclass(frozen=True)
class Corrections:
    """What was decided about rows of train.csv, by their indexes, and in which files."""

    files: tuple[tuple[str, str], ...] = ()  # name, sha256
    decisions: Mapping[int, str] = field(default_factory=dict)

    @property
    def dropped(self) -> frozenset[int]:
        return frozenset(index for index, decision in self.decisions.items() if decision == DROP)

    def describe(self, rows: Sequence[Row]) -> dict[str, Any]:
        """What a manifest records: the files, and how many of the rows were kept, corrected and dropped."""
        if not self.files:
            return {}
        counts = Counter(self.decisions[row.index] for row in rows if row.index in self.decisions)
        files = [{"file": name, "sha256": sha256} for name, sha256 in self.files]
        return {"files": files, **{decision: counts[decision] for decision in DECISIONS}}


NO_CORRECTIONS = Corrections()


def correct_rows(train: Table, names: Sequence[str], *, read_label: ReadLabel) -> tuple[Table, Corrections]:
    """Apply files of corrections, one after the other: all lines of one name the labels that the ones before it left.

    Raises InputError, with the line, for a correction that does not match a row, or whose new label cannot be read.
    """
    rows = list(train.rows)
    decisions: dict[int, str] = {}
    files = []
    places = _Places(rows)
    for name in names:
        with argument("corrections"), open_table(name) as table:
            seen: dict[int, str] = {}  # position of a row -> where it was corrected
            corrected: dict[int, Row] = {}  # put in place after the last line: their order does not matter
            for one in _read(table.records, file=name):
                for position in places.find(one, rows, read_label):
                    row = rows[position]
                    first = seen.setdefault(position, one.where)
                    if first != one.where:
                        raise InputError(f"{one.where}: this row has a decision already ({first}); remove one of them")
                    if decisions.get(row.index) == DROP:
                        raise InputError(f"{one.where}: an earlier file drops this row; remove one of the decisions")
                    decision = _decide(one, row, read_label)
                    if decision == CORRECT:
                        corrected[position] = row._replace(entity_value=one.new_value)
                    if decision != KEEP:
                        decisions[row.index] = decision
                    decisions.setdefault(row.index, decision)
            for position, row in corrected.items():
                rows[position] = row
            files.append((table.name, table.sha256()))
    return replace(train, rows=tuple(rows)), Corrections(tuple(files), decisions)


def _read(records: Records, *, file: str) -> Iterator[Correction]:
    present = [name for name in (*REQUIRED, *OPTIONAL) if name in records.names]
    if wrong := [name for name in REQUIRED if name not in present] or [
        name for name in present if records.names.count(name) > 1
    ]:
        check_separator(records.names, file=file)
        found = one_line(", ".join(records.names[:100]), max_length=200)
        raise InputError(
            f"{file}: needs the columns {', '.join(REQUIRED)} once each, and new_value for corrections; {wrong[0]} is "
            f"missing or occurs twice, found {found}"
        )
    for cells in records.read(present):
        values = {name: from_cell(cell).strip() for name, cell in zip(present, cells, strict=True)}
        if not any(values.values()):
            continue  # a row that was cleared in a spreadsheet
        where = f"{file}, {records.word} {records.number}"
        index, decision = values.get("index", ""), values["decision"].lower()
        number = parse_index(index)
        if index and number is None:
            raise InputError(f"{where}: index must be a whole number, got {_shown(index)}; correct or clear it")
        if decision not in DECISIONS:
            raise InputError(f"{where}: decision must be one of {', '.join(DECISIONS)}, got {_shown(decision)}")
        new_value = values.get("new_value", "")
        if new_value and decision != CORRECT:
            raise InputError(
                f"{where}: decision {decision} has the new_value {_shown(new_value)}; clear it, or write {CORRECT}"
            )
        yield Correction(
            where, number, values["image_link"], values["entity_name"], values["entity_value"], decision, new_value
        )


class _Places:
    """Where the rows of train.csv are, by index and by image and attribute."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._by_index = {row.index: position for position, row in enumerate(rows)}
        self._by_question: dict[tuple[str, str], list[int]] = {}
        for position, row in enumerate(rows):
            self._by_question.setdefault((row.image_link, row.entity_name), []).append(position)

    def find(self, one: Correction, rows: Sequence[Row], read_label: ReadLabel) -> list[int]:
        """The row of the index; without one, all rows of this image and attribute that have the label."""
        positions = self._by_question.get((one.image_link, one.entity_name), [])
        if one.index is not None:
            at = self._by_index.get(one.index)
            if at is None or at not in positions:
                what = "there is none" if at is None else "it has another image_link or entity_name"
                raise InputError(
                    f"{one.where}: no row of `train_csv` has index {one.index}, this image_link and this entity_name "
                    f"({what}); are these corrections of another CSV?"
                )
            positions = [at]
        if not positions:
            raise InputError(
                f"{one.where}: no row of `train_csv` has the image_link {_shown(one.image_link)} and the entity_name "
                f"{_shown(one.entity_name)}; are these corrections of another CSV?"
            )
        found = [place for place in positions if _is_label(one, rows[place], read_label)]
        if not found:
            raise InputError(
                f"{one.where}: entity_value is {_shown(one.entity_value)}, but the label of the row is "
                f"{_shown(rows[positions[0]].entity_value)}; correct entity_value, or remove the line if the CSV was "
                "corrected itself"
            )
        return found


def _is_label(one: Correction, row: Row, read_label: ReadLabel) -> bool:
    """Whether it is the row's label: as the CSV has it, or in canonical form, as the dataset has it."""
    if row.entity_value.strip() == one.entity_value:
        return True
    try:
        return read_label(row.entity_name, row.entity_value) == read_label(row.entity_name, one.entity_value)
    except LabelError:
        return False


def _decide(one: Correction, row: Row, read_label: ReadLabel) -> str:
    """The decision; `keep` for a new label that is the old one."""
    if one.decision != CORRECT:
        return one.decision
    try:
        new = read_label(row.entity_name, one.new_value)
    except LabelError as error:
        raise InputError(
            f"{one.where}: new_value {_shown(one.new_value)} is not a label of {one.entity_name} "
            f"({one_line(str(error))}); correct it, or write {DROP}"
        ) from error
    try:
        return KEEP if read_label(row.entity_name, row.entity_value) == new else CORRECT
    except LabelError:
        return CORRECT


def _shown(text: str) -> str:
    return one_line(repr(text), max_length=80)
