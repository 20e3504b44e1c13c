"""How it is known that an image does not show an attribute: the options that say so, and a file of probabilities."""

from pathlib import Path
from typing import Any

from dataset_builder.csv_reader import Tables
from dataset_builder.options import LABELS, STATED, SelectionOptions
from product_vqa.csv_files import check_separator
from product_vqa.errors import InputError, argument
from product_vqa.quoting import one_line
from product_vqa.tables.record_files import open_table

_FILE_COLUMNS = ("image_link", "entity_name", "shown")
NONE_STATED = (
    "no row of `train_csv` with an image has an empty entity_value, which says that the image does not show the "
    f"attribute; set `unanswered_from` {LABELS} if images have a label for all that they show, or to a file with "
    "probabilities"
)
NotShown = set[tuple[str, str]]  # URL and attribute


def describe(selection: SelectionOptions) -> dict[str, Any]:
    """What decides which questions are added; {} if none are. A file counts by its content."""
    if not selection.unanswered:
        return {}
    described: dict[str, Any] = {"share": float(selection.unanswered), "from": selection.unanswered_from}
    if selection.is_unanswered_file:
        with argument("unanswered_from"), open_table(selection.unanswered_from) as table:
            _columns(table.records.names, file=selection.unanswered_from)
            for _ in table.records.read(_FILE_COLUMNS):
                pass  # the hash is that of all that was read
            described |= {"from": table.name, "sha256": table.sha256(), "below": float(selection.unanswered_below)}
    return described


def check_unanswered(selection: SelectionOptions, tables: Tables) -> None:
    """Raise InputError for options that could not be followed, before the images are downloaded."""
    if selection.unanswered and tables.train is None:
        raise InputError("`unanswered` needs `train_csv`: rows to predict have no answers")
    described = describe(selection)
    if described.get("from") == STATED and tables.train and all(row.entity_value.strip() for row in tables.train.rows):
        raise InputError(f"`unanswered`: {NONE_STATED}")


def read_file(selection: SelectionOptions) -> NotShown:
    """What the file says no image shows. Of several probabilities for one question, the highest counts."""
    name = selection.unanswered_from
    highest: dict[tuple[str, str], float] = {}
    with argument("unanswered_from"), open_table(name) as table:
        records = table.records
        for url, entity_name, text in records.read(_columns(records.names, file=name)):
            if not text.strip():
                continue  # the reader could not open the image
            probability = _parse_probability(text)
            if probability is None:
                found = one_line(repr(text), max_length=50)
                raise InputError(
                    f"{name}, {records.word} {records.number}: shown must be a probability from 0 to 1, got {found}"
                )
            key = url.strip(), entity_name
            highest[key] = max(probability, highest.get(key, 0.0))
    return {key for key, probability in highest.items() if probability < selection.unanswered_below}


def _columns(names: list[str], *, file: str) -> tuple[str, ...]:
    if missing := [name for name in _FILE_COLUMNS if names.count(name) != 1]:
        check_separator(names, file=file)
        found = one_line(", ".join(names[:100]), max_length=200)
        raise InputError(
            f"{Path(file)}: needs the columns {', '.join(_FILE_COLUMNS)} once each; {missing[0]} is missing or occurs "
            f"twice, found {found}"
        )
    return _FILE_COLUMNS


def _parse_probability(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None
