"""How a table has its rows: long (one row an answer) or wide (one row a product), and the names of its columns."""

import csv
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from product_vqa.csv_files import check_separator
from product_vqa.errors import InputError
from product_vqa.quoting import one_line
from product_vqa.task.attributes import Schema
from product_vqa.task.columns import TEST_COLUMNS, TRAIN_COLUMNS
from product_vqa.task.schema import is_challenge

# Of the options `wide` and `columns`, wherever tables are read.
WIDE_HELP = (
    "A CSV without a column entity_name has one row per product and one column per attribute. An empty cell gives no "
    "row of the dataset."
)
COLUMNS_HELP = "Columns with other names: image_link=photo_url,group_id=category,... An attribute's with --wide."
_PRODUCT_FIELDS = ("index", "image_link", "group_id")
_LONG_FIELDS = (*_PRODUCT_FIELDS, "entity_name", "entity_value")
_MAX_LENGTH = 100_000  # of the text of `columns`


@dataclass(frozen=True)
class Layout:
    """The default is the challenge's: long, with columns that are named like the dataset's.

    With `is_wide`, a table is wide unless it has the column entity_name: one of train.csv and test.csv may be long.

    The index of a dataset's row is that in the column `index`, or else the number of the table's row, from 0. A row of
    a wide table becomes several, one per attribute: row r of it (or index r) has the indexes r * n to r * n + n - 1,
    where n is the number of the schema's attributes, in their order.
    """

    is_wide: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)  # field or attribute -> column, where the names differ

    @classmethod
    def of(cls, *, wide: bool, columns: str | None) -> "Layout":
        """Raises InputError for a text that names no columns."""
        return cls(wide, parse_columns(columns) if columns is not None else {})

    def check(self, schema: Schema) -> None:
        """Raise InputError if a column is named for anything but a field, or an attribute of a wide table."""
        known = (*_LONG_FIELDS, *schema.names) if self.is_wide else _LONG_FIELDS
        for name in self.columns:
            if name not in known:
                hint = " (attributes have columns with `wide` only)" if name in schema.attributes else ""
                raise InputError(f"`columns`: unknown {_shown(name)}{hint}; choose from {', '.join(known)}")

    def column(self, name: str) -> str:
        return self.columns.get(name, name)

    def describe(self) -> dict[str, Any]:
        """What datasets record: nothing for the default."""
        described: dict[str, Any] = {"wide": True} if self.is_wide else {}
        return described | ({"columns": format_columns(self.columns)} if self.columns else {})

    def of_table(self, names: Sequence[str]) -> "Layout":
        """The layout of a table with columns of these names."""
        return replace(self, is_wide=self.is_wide and self.column("entity_name") not in names)

    def find_fields(
        self,
        names: Sequence[str],
        schema: Schema,
        *,
        is_labelled: bool,
        file: str,
        required_if_long: Sequence[str] | None = None,
    ) -> list[str]:
        """Which fields and attributes a table with columns of these names has, of those that its rows are made from.

        Raises InputError if a necessary column is missing, or if one occurs twice. `required_if_long` are those that
        a long table needs. Default: what a dataset's rows are made from.
        """
        fields: tuple[str, ...] = (*_PRODUCT_FIELDS, *(schema.names if is_labelled else ()))
        required: tuple[str, ...] = ("image_link", *(schema.names if is_labelled else ()))
        if not self.is_wide:
            fields = ("index", *TRAIN_COLUMNS) if is_labelled else TEST_COLUMNS
            required = TRAIN_COLUMNS if is_labelled else TEST_COLUMNS
            if self.columns or not is_challenge(schema):  # the challenge's tables have them all
                required = tuple(name for name in required if name not in ("index", "group_id"))
            required = required if required_if_long is None else tuple(required_if_long)
        renamed = [name for name in self.columns if name in fields and not (is_labelled and name == "index")]
        required = tuple(dict.fromkeys((*required, *renamed)))
        if missing := [name for name in required if self.column(name) not in names]:
            check_separator(names, file=file)
            raise self._missing(missing, required, names, schema, file=file)
        present = [name for name in fields if self.column(name) in names]
        for column in (self.column(name) for name in present):
            if names.count(column) > 1:
                raise InputError(f"{file}: has {names.count(column)} columns {column}; rename or remove all but one")
        return present

    def _missing(
        self, missing: Sequence[str], required: Sequence[str], names: Sequence[str], schema: Schema, *, file: str
    ) -> InputError:
        found = one_line(", ".join(names[:100]), max_length=200) or "none"
        message = f"{file}: no column {self._named(missing)}; expected {self._named(required)}, found {found}"
        if not self.is_wide and "entity_name" in missing and set(names) & set(schema.names):
            return InputError(f"{message}; if it has one row per product and one column per attribute, set `wide`")
        if self.is_wide and set(missing) & set(schema.names):
            return InputError(
                f"{message}; name the column of an attribute with `columns` {missing[-1]}=COLUMN, or remove it from "
                "the schema"
            )
        if self.columns or self.is_wide or not is_challenge(schema):
            return InputError(f"{message}; name other columns with `columns` {missing[0]}=COLUMN")
        return InputError(message)

    def _named(self, names: Collection[str]) -> str:
        columns = (self.column(name) for name in names)
        shown = ", ".join(
            column if column == name else f"{column} ({name})" for name, column in zip(names, columns, strict=True)
        )
        return one_line(shown, max_length=1000)


LONG = Layout()


def parse_columns(text: str) -> dict[str, str]:
    """`image_link=photo_url,"item_weight=Weight, net"` -> field or attribute -> column; quotes are those of a CSV.

    Raises InputError for anything else.
    """
    try:
        if len(text) > _MAX_LENGTH or "\n" in text or "\r" in text:
            raise csv.Error("too long, or more than a line")
        (parts,) = csv.reader([text], strict=True, skipinitialspace=True)
    except (csv.Error, ValueError) as error:
        raise InputError(f"`columns` {_shown(text)}: {error}; write image_link=photo_url,group_id=category") from error
    columns: dict[str, str] = {}
    for part in parts:
        name, mark, column = part.partition("=")
        name, column = name.strip(), column.strip()
        if not mark or not name or not column:
            raise InputError(
                f"`columns`: {_shown(part)} is not FIELD=COLUMN, such as image_link=photo_url; "
                "put one with a comma in double quotes"
            )
        if name in columns:
            raise InputError(f"`columns`: {_shown(name)} occurs twice; name one column for it")
        columns[name] = column
    return columns


def format_columns(columns: Mapping[str, str]) -> str:
    """The text that `parse_columns` reads as these columns."""
    parts = (f"{name}={column}" for name, column in columns.items())
    return ",".join(f'"{part.replace(chr(34), chr(34) * 2)}"' if set(part) & set(',"') else part for part in parts)


def is_layout(content: object) -> bool:
    """Whether `Layout.describe` could have returned this."""
    if (
        not isinstance(content, dict)
        or not content.keys() <= {"wide", "columns"}
        or content.get("wide", True) is not True
    ):
        return False
    try:
        return "columns" not in content or bool(parse_columns(content["columns"]))
    except (InputError, TypeError):
        return False


def _shown(text: str) -> str:
    return one_line(repr(text), max_length=80)
