"""Quote the texts of strangers, labels and URLs above all, for where people see them.

A spreadsheet runs no formula, a terminal obeys no control sequence, and a card gets no heading, link or HTML from
them.
"""

import csv
import re
from collections.abc import Iterable
from typing import Any, TextIO

# What makes Excel, LibreOffice or Google Sheets read a cell as a formula: =, +, -, @ and their full-width forms, also
# after characters that an import may remove; and a tab or line break, which an import may take for a new cell.
_FORMULA = re.compile(r"[\t\r\n\v\f]|[\s\ufeff\u200b\0'\"]*[=+\-@\uff1d\uff0b\uff0d\uff20]")
_PLAIN_NAME = re.compile(r"(?!www\.)[\w.+-]+(?: [\w.+-]+)*", re.IGNORECASE)
_MAX_CHARS = 300


def as_cell(value: Any) -> Any:
    """Prefix a text that could run as a formula with an apostrophe. Numbers and all other texts stay as they are."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def from_cell(text: str) -> str:
    """The text that `as_cell` may have prefixed."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text[1:]) else text


def write_cells(stream: TextIO, rows: Iterable[Iterable[Any]]) -> None:
    """Write rows to a CSV that people open in a spreadsheet. Not for a submission, whose format is fixed."""
    csv.writer(stream).writerows([as_cell(value) for value in row] for row in rows)


def printable(text: str) -> str:
    """Escape characters that would control a terminal, as `\\x1b`; line breaks and tabs stay."""
    return "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)


def one_line(text: str, *, max_length: int = _MAX_CHARS) -> str:
    """At most `max_length` printable characters on one line: others appear as `\\n`, `\\x1b` and so on."""
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[: max_length + 1])
    return shown if len(shown) <= max_length else f"{shown[: max_length - 3]}..."


def code_span(text: str, *, in_table: bool = False) -> str:
    """The text as code in Markdown, where nothing is markup."""
    text = one_line(text)
    if in_table:
        text = text.replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if not text or "`" in (text[0], text[-1]) else ""
    return f"{fence}{space}{text}{space}{fence}"


def file_name(text: str) -> str:
    """The name of a file in Markdown: as it is, or as code if anything in it could be markup."""
    return text if _PLAIN_NAME.fullmatch(text) else code_span(text, in_table=True)
