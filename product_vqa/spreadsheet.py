"""CSV cells that a spreadsheet shows as text, whoever wrote them: a label or a URL must not run as a formula."""

import csv
import re
from collections.abc import Iterable
from typing import Any, TextIO

# What makes Excel, LibreOffice or Google Sheets read a cell as a formula: =, +, -, @ and their full-width forms, also
# after characters that an import may remove; and a tab or line break, which an import may take for a new cell.
_FORMULA = re.compile(r"[\t\r\n\v\f]|[\s\ufeff\u200b\0'\"]*[=+\-@\uff1d\uff0b\uff0d\uff20]")


def as_cell(value: Any) -> Any:
    """Prefix a text that could run as a formula with an apostrophe. Numbers and all other texts stay as they are."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def write_rows(stream: TextIO, rows: Iterable[Iterable[Any]]) -> None:
    """Write rows to a CSV that people open in a spreadsheet. Not for a submission, whose format is fixed."""
    csv.writer(stream).writerows([as_cell(value) for value in row] for row in rows)
