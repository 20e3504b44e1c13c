"""A part of the rows: for a trial of minutes, for some attributes, or for a list of rows."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from product_vqa.csv_files import parse_index
from product_vqa.documents import read_bytes
from product_vqa.errors import InputError, argument
from product_vqa.quoting import one_line
from product_vqa.task.attributes import Schema

MAX_ROWS_FILE_BYTES = 512 * 1024**2


@dataclass
class RowSelectionOptions:
    """Which rows are used. By default all."""

    max_rows: int | None = field(
        default=None,
        metadata={
            "help": "Use at most this many rows of each CSV or split, of each attribute its share: the same ones for "
            "the same seed (of the command, or else 0). Fewer rows are a part of more rows."
        },
    )
    entities: str | None = field(
        default=None, metadata={"help": "Use the rows about these attributes only, for example width,height."}
    )
    rows: str | None = field(
        default=None, metadata={"help": "Use the rows with these indexes only: a file with one index per line."}
    )

    def __post_init__(self) -> None:
        if self.max_rows is not None and self.max_rows < 1:
            raise InputError(f"`max_rows` must be at least 1, got {self.max_rows}")

    @property
    def entity_names(self) -> tuple[str, ...] | None:
        if self.entities is None:
            return None
        return tuple(sorted({name.strip() for name in self.entities.split(",")}))


class RowKey(NamedTuple):
    """What decides whether a row is used."""

    index: int  # type: ignore[assignment]  # hides tuple.index
    entity_name: str
    image_link: str


@dataclass(frozen=True)
class RowSelection:
    """The options, with the indexes that the file of `rows` lists."""

    max_rows: int | None = None
    entity_names: tuple[str, ...] | None = None
    indexes: frozenset[int] | None = None
    indexes_sha256: str | None = None  # of their file
    seed: int = 0

    @property
    def is_all(self) -> bool:
        return self.max_rows is None and self.entity_names is None and self.indexes is None

    def describe(self) -> dict[str, str | int]:
        """What predictions and datasets record. Equal descriptions select the same rows."""
        if self.is_all:
            return {}
        listed = None if self.entity_names is None else ",".join(self.entity_names)
        described: dict[str, str | int | None] = {
            "max_rows": self.max_rows,
            "entities": listed,
            "rows_sha256": self.indexes_sha256,
        }
        if self.max_rows is not None:
            described["seed"] = self.seed
        return {name: value for name, value in described.items() if value is not None}

    def positions(self, rows: Sequence[RowKey], *, name: str) -> list[int]:
        """The positions of the selected rows, in their order. Raises InputError if there are none.

        `name` is that of the table.
        """
        positions = [
            position
            for position, row in enumerate(rows)
            if (self.entity_names is None or row.entity_name in self.entity_names)
            and (self.indexes is None or row.index in self.indexes)
        ]
        if not positions and (self.entity_names is not None or self.indexes is not None):
            options = {"entities": self.entity_names, "rows": self.indexes}
            used = " and ".join(f"`{option}`" for option, value in options.items() if value is not None)
            raise InputError(f"{name}: {used} select none of the {len(rows)} rows")
        if self.max_rows is None or len(positions) <= self.max_rows:
            return positions
        by_entity: dict[str, list[int]] = {}
        for position in positions:
            by_entity.setdefault(rows[position].entity_name, []).append(position)
        # The rows of an attribute in the order of a hash of their image: rows about one image come together, so that
        # fewer images are needed. Every attribute is cut at the same share of its rows.
        ranked = []
        for entity, own in by_entity.items():
            own.sort(key=lambda position: (self._rank(rows[position].image_link), rows[position].index))
            ranked += [((place + 0.5) / len(own), entity, position) for place, position in enumerate(own)]
        return sorted(position for _, _, position in sorted(ranked)[: self.max_rows])

    def _rank(self, image_link: str) -> bytes:
        return hashlib.sha256(f"{self.seed} {image_link}".encode(errors="surrogatepass")).digest()


ALL_ROWS = RowSelection()


def is_description(content: object, *, schema: Schema) -> bool:
    """Whether `RowSelection.describe` could have returned this, for rows about attributes of the schema."""
    return isinstance(content, dict) and all(_is_described(name, value, schema) for name, value in content.items())


def _is_described(name: str, value: object, schema: Schema) -> bool:
    if name == "entities":
        return isinstance(value, str) and all(entity in schema.attributes for entity in value.split(","))
    if name == "rows_sha256":
        return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None
    return name in ("max_rows", "seed") and type(value) is int


def read_selection(options: RowSelectionOptions, *, seed: int = 0, schema: Schema) -> RowSelection:
    """Read the file of `rows`.

    Raises InputError for an attribute that the schema lacks, for a line that is not an index, and for a file without
    any.
    """
    if unknown := [name for name in options.entity_names or () if name not in schema.attributes]:
        raise InputError(f"`entities`: unknown {unknown[0]!r}; choose from {', '.join(schema.names)}")
    indexes, sha256 = None, None
    if options.rows is not None:
        with argument("rows"):
            indexes, sha256 = _read_indexes(options.rows)
    return RowSelection(options.max_rows, options.entity_names, indexes, sha256, seed)


def _read_indexes(path: str) -> tuple[frozenset[int], str]:
    try:
        content = read_bytes(path, max_bytes=MAX_ROWS_FILE_BYTES)
        lines = content.decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    indexes = set()
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or (number == 1 and text == "index"):
            continue
        index = parse_index(text)
        if index is None:
            raise InputError(f"{path}, line {number}: {one_line(repr(text), max_length=50)} is not an index")
        indexes.add(index)
    if not indexes:
        raise InputError(f"{path}: lists no index")
    return frozenset(indexes), hashlib.sha256(content).hexdigest()
