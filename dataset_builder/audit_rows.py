"""The labelled rows of a split, ranked by how suspicious their labels are."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset

from dataset_builder.label_ranking import Suspicion, judge, of_candidates, of_predictions
from product_vqa.errors import InputError
from product_vqa.hub import Location
from product_vqa.ocr.candidate import Candidate
from product_vqa.quoting import as_cell
from product_vqa.row_selection import RowKey
from product_vqa.task.attributes import Schema

MAX_CANDIDATES = 5  # that are kept of a row, to show them
RANKING_COLUMNS = (
    "rank", "index", "image_link", "entity_name", "entity_value", "score", "score_predictions", "score_ocr",
    "suggestion",
)  # fmt: skip


@dataclass(frozen=True)
class LabelledRow:
    """A row with a label, at its position in the split."""

    position: int
    key: RowKey
    label: str  # canonical
    label_raw: str  # as in the CSV, by which a correction finds it


@dataclass(frozen=True)
class AuditedRow:
    row: LabelledRow
    suspicion: Suspicion
    predictions: Mapping[str, float]  # answers with their mean probabilities, the most likely first
    candidates: Sequence[Candidate] | None  # best first; None if the image was not read


def find_labels(dataset: Dataset, *, location: Location, split: str) -> list[LabelledRow]:
    """The rows of a split that have a label. Raises InputError if there are none.

    An empty label says that the image does not show the attribute. It is not audited: `build --unanswered` adds such
    rows, and no row of the CSV could be corrected for them.
    """
    names = ("index", "entity_name", "image_link", "entity_value", "entity_value_raw")
    columns = [dataset[name][:] for name in names]
    found = [
        LabelledRow(position, RowKey(index, entity_name, image_link), label, raw)
        for position, (index, entity_name, image_link, label, raw) in enumerate(zip(*columns, strict=True))
        if label
    ]
    if not found:
        raise InputError(f"{location}: split {split} has no labels; give a labelled split, such as train, as `split`")
    return found


def rank_rows(
    rows: Sequence[LabelledRow],
    *,
    schema: Schema,
    predictions: Mapping[int, Sequence[Mapping[str, float]]],
    candidates: Iterable[tuple[int, Sequence[Candidate]]],
) -> list[AuditedRow]:
    """The rows, the most suspicious first; in their order where the scores are equal.

    `predictions` are by index, and `candidates` by position; not every row has them.
    """
    by_position = {row.position: row for row in rows}
    of_ocr = {}
    shown = {}
    for position, found in candidates:
        row = by_position[position]
        of_ocr[position] = of_candidates(row.label, found, schema[row.key.entity_name])
        shown[position] = tuple(found[:MAX_CANDIDATES])
    audited = []
    for row in rows:
        attribute = schema[row.key.entity_name]
        answers = predictions.get(row.key.index, ())
        suspicion = judge(attribute, of_predictions(row.label, answers, attribute), of_ocr.get(row.position))
        audited.append(AuditedRow(row, suspicion, _mean(answers), shown.get(row.position)))
    return sorted(audited, key=lambda one: -one.suspicion.score)


def _mean(predictions: Sequence[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for answers in predictions:
        for answer, share in answers.items():
            total[answer] = total.get(answer, 0.0) + share / len(predictions)
    return dict(sorted(total.items(), key=lambda one: -one[1]))


def write_ranking(rows: Sequence[AuditedRow], file: Path) -> None:
    """Write every row as a line of a CSV, the most suspicious first."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(RANKING_COLUMNS)
        for rank, one in enumerate(rows, start=1):
            key, found = one.row.key, one.suspicion
            scores = (found.score, found.predictions, found.ocr)
            cells = (
                rank, key.index, key.image_link, key.entity_name, one.row.label_raw,
                *("" if score is None else f"{score:.3f}" for score in scores), found.suggestion,
            )  # fmt: skip
            # The scores are our own numbers: a spreadsheet may read -1.2 as one.
            writer.writerow([cell if 5 <= number < 8 else as_cell(cell) for number, cell in enumerate(cells)])
