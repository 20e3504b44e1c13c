"""The answers about several uploaded images, as rows of a table and as a CSV."""

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from product_vqa.modeling.answer import Answer
from product_vqa.modeling.attribute_reader import AttributeReader
from product_vqa.quoting import one_line, write_cells

MAX_FILES = 100  # that are read at once
HEADER = ("file", "entity_name", "value", "unit", "confidence", "error")  # as the CSV of `predict --images`


def read_uploads(
    reader: AttributeReader, files: Sequence[Path], entity_names: Sequence[str], *, read_file: Callable[[Path], bytes]
) -> list[list[Any]]:
    """Answer each attribute about each file; a row per answer, or per error, in order.

    `read_file` returns the content of an upload, or raises OSError. Contents are read as they are needed. With
    attributes that may be not shown, a row has `shown` before the error.
    """

    def questions() -> Iterator[tuple[bytes, str]]:
        for file in files:
            try:
                content = read_file(file)
            except OSError:  # it is not there any more, or too large
                content = b""
            for name in entity_names:
                yield content, name

    answers = reader.read_many(questions())
    has_shown = bool(reader.schema.not_shown)
    return [_row(file.name, name, next(answers), has_shown=has_shown) for file in files for name in entity_names]


def header(*, has_shown: bool) -> list[str]:
    """The columns of the rows."""
    return [*HEADER[:-1], *(["shown"] if has_shown else []), HEADER[-1]]


def write_csv(rows: Sequence[Sequence[Any]], *, has_shown: bool) -> str:
    """The rows as a CSV; texts run no formula in a spreadsheet."""
    lines = io.StringIO()
    write_cells(lines, [header(has_shown=has_shown), *rows])
    return lines.getvalue()


def _row(file: str, entity_name: str, answer: Answer, *, has_shown: bool) -> list[Any]:
    confidence = shown = ""
    if answer.error is None:
        confidence = f"{answer.confidence:.6g}"
        shown = "" if answer.shown is None else f"{answer.shown:.6g}"
    reason = (answer.error or "").partition(": ")[2]  # after the item's number
    return [
        one_line(file), entity_name, answer.value, answer.unit, confidence, *([shown] if has_shown else []), reason,
    ]  # fmt: skip
