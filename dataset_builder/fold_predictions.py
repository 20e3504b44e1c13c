"""Reads what models that did not see a label in training predict for its row: X.parquet of `inference.predict`.

Several files may be about the same rows, or each about a part of them (folds). They may come from a stranger: they are
checked before they are read, and so is each row.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dataset_builder.label_ranking import canonical
from product_vqa.dataset import DAMAGED
from product_vqa.errors import InputError, argument, first_line
from product_vqa.parquet_files import ParquetError, check_parquet
from product_vqa.paths import readable_file
from product_vqa.quoting import one_line
from product_vqa.row_selection import RowKey
from product_vqa.task.attributes import Attribute, Schema

MAX_TEXT = 1000  # characters of an answer
MAX_ALTERNATIVES = 64  # of a row; `num_beams` has fewer
_TEXT, _NUMBER = ("BYTE_ARRAY",), ("DOUBLE", "FLOAT")
_REQUIRED = {"index": ("INT64", "INT32"), "answer": _TEXT, "confidence": _NUMBER}
_OPTIONAL = {
    "image_link": _TEXT,
    "entity_name": _TEXT,
    "alternatives.list.element.prediction": _TEXT,
    "alternatives.list.element.confidence": _NUMBER,
}
_BATCH_ROWS = 1024


@dataclass
class FoldPredictions:
    """Answers with their probabilities, for each prediction of a row, by its index."""

    answers: dict[int, list[dict[str, float]]] = field(default_factory=dict)
    num_unknown: int = 0  # predictions of rows that the split does not have


def read_predictions(paths: Sequence[str], rows: Mapping[int, RowKey], *, schema: Schema) -> FoldPredictions:
    """The predictions of `rows`, by their indexes. Those of other rows are counted.

    Raises InputError for a file that is not one of `inference.predict`, that is about other images or attributes, or
    that has no row of these.
    """
    found = FoldPredictions()
    with argument("predictions"):
        resolved = [readable_file(path).resolve() for path in paths]
        for number, path in enumerate(resolved):
            if path in resolved[:number]:
                raise InputError(f"{paths[number]} is given twice, so it would count twice; give each file once")
        for name in paths:
            before = found.num_unknown
            num_rows = 0
            for row in _read(Path(name)):
                num_rows += 1
                known = rows.get(row["index"])
                if known is None:
                    found.num_unknown += 1
                    continue
                _check_row(row, known, file=name)
                if row["answer"] is not None and row["confidence"] is not None:
                    answers = _answers(row, schema[known.entity_name], file=name)
                    found.answers.setdefault(known.index, []).append(answers)
            if found.num_unknown - before == num_rows:
                raise InputError(
                    f"{name}: none of its {num_rows} rows is in the split; is it the split that was predicted?"
                )
    return found


def _read(file: Path) -> Iterator[dict[str, Any]]:
    try:
        present = check_parquet(file, _REQUIRED | _OPTIONAL)
        if missing := [name for name in _REQUIRED if name not in present]:
            raise InputError(
                f"{file}: has no column {', '.join(missing)}; give the X.parquet that inference.predict wrote"
            )
        columns = [path for path in (_REQUIRED | _OPTIONAL) if path in present]
        alternatives = [path.rpartition(".")[2] for path in columns if path.startswith("alternatives.")]
        if len(alternatives) == 1:
            raise InputError(
                f"{file}: its alternatives have a {alternatives[0]} alone, and need a prediction and a confidence; "
                "give the X.parquet that inference.predict wrote"
            )
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=columns):
                plain = [column.cast(_plain(column.type)) for column in batch.columns]
                rows = pa.RecordBatch.from_arrays(plain, batch.schema.names).to_pylist()
                yield from rows
    except InputError:
        raise
    except (ParquetError, *DAMAGED) as error:
        raise InputError(
            f"{file}: cannot be read as predictions ({one_line(first_line(error), max_length=200)}); give the "
            "X.parquet that inference.predict wrote"
        ) from error


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type of the same values as text and numbers; a stranger may have stored text as bytes or by dictionary."""
    if pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain(field.type)) for field in kind])
    if pa.types.is_integer(kind):
        return pa.int64()
    return pa.float64() if pa.types.is_floating(kind) else pa.string()


def _check_row(row: Mapping[str, Any], known: RowKey, *, file: str) -> None:
    for name in ("image_link", "entity_name"):
        text = row.get(name)
        if text is not None and text != getattr(known, name):
            shown, expected = (one_line(repr(one), max_length=100) for one in (text, getattr(known, name)))
            raise InputError(
                f"{file}, index {known.index}: {name} is {shown}, but the split has {expected}; are these predictions "
                "of another split?"
            )


def _answers(row: Mapping[str, Any], attribute: Attribute, *, file: str) -> dict[str, float]:
    """The answers of a row with their probabilities, together at most 1."""
    alternatives = row.get("alternatives") or []
    if len(alternatives) > MAX_ALTERNATIVES:
        raise InputError(
            f"{file}, index {row['index']}: has {len(alternatives)} alternatives, more than {MAX_ALTERNATIVES}"
        )
    listed = [(row["answer"], row["confidence"])]
    listed += [(one["prediction"], one["confidence"]) for one in alternatives if one is not None]
    answers: dict[str, float] = {}
    for answer, probability in listed:
        if answer is None or probability is None:
            continue
        if len(answer) > MAX_TEXT or not (math.isfinite(probability) and 0 <= probability <= 1):
            raise InputError(
                f"{file}, index {row['index']}: {one_line(repr(answer), max_length=50)} with confidence {probability} "
                "is not an answer with a probability from 0 to 1"
            )
        answer = canonical(attribute, answer)
        answers[answer] = answers.get(answer, 0.0) + probability
    total = max(1.0, sum(answers.values()))
    return {answer: probability / total for answer, probability in answers.items()}
