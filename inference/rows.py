"""The rows that several files of predictions are about: their indexes, attributes and image URLs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from inference.tables import read_attribute_rows
from product_vqa.errors import InputError, argument
from product_vqa.quoting import one_line
from product_vqa.tables.layout import Layout
from product_vqa.task.attributes import Schema


@dataclass(frozen=True)
class Rows:
    """One entry per row in each array."""

    indexes: np.ndarray  # int64, each once
    entities: np.ndarray  # position in the schema's names, or `unknown`
    image_links: np.ndarray  # text, "" if no file has it
    schema: Schema

    @property
    def unknown(self) -> int:
        """The position of an attribute that no file names."""
        return len(self.schema.names)

    def __len__(self) -> int:
        return len(self.indexes)

    def take(self, chosen: np.ndarray) -> "Rows":
        """Some rows, given by their positions."""
        return Rows(self.indexes[chosen], self.entities[chosen], self.image_links[chosen], self.schema)

    def positions(self, indexes: pd.Series) -> np.ndarray:
        """The position of each index, or -1."""
        return pd.Index(self.indexes).get_indexer(indexes)


def join_rows(
    tables: Mapping[str, pd.DataFrame],
    *,
    test_csv: str | Path | None = None,
    labels: pd.DataFrame | None = None,
    schema: Schema,
    layout: Layout,
) -> Rows:
    """The rows of `test_csv`, which has this layout, in its order, or else of all tables, by index.

    Each table has the column `index`, and may have `entity_name` and `image_link`, as text. An attribute comes from
    any of the tables, `test_csv` and `labels`. Raises InputError, which names the table, if they are not about the
    same rows.
    """
    described = dict(tables)
    if test_csv is None:
        indexes = np.unique(np.concatenate([table["index"].to_numpy(np.int64) for table in tables.values()]))
    else:
        with argument("test_csv"):
            columns, optional = ("index", "entity_name"), ("image_link",)
            test = read_attribute_rows(test_csv, schema=schema, layout=layout, columns=columns, optional=optional)
        for name, table in tables.items():
            _check_known(table["index"], test["index"], name=name, test_csv=test_csv)
        indexes = test["index"].to_numpy(np.int64)
        described = {str(test_csv): test, **tables}
    if labels is not None:
        described["`references`"] = labels[["index", "entity_name"]]
    if not len(indexes):
        raise InputError(f"{test_csv or '`predictions`'}: no rows, so there is nothing to combine")
    rows = Rows(
        indexes,
        entities=np.full(len(indexes), len(schema.names)),
        image_links=np.full(len(indexes), "", dtype=object),
        schema=schema,
    )
    for name, table in described.items():
        _describe(rows, table, name=name, others=described)
    return rows


def _check_known(indexes: pd.Series, known: pd.Series, *, name: str, test_csv: str | Path) -> None:
    unknown = indexes[~indexes.isin(known)]
    if len(unknown):
        raise InputError(
            f"`predictions` {name}: {len(unknown)} of {len(indexes)} indexes, for example {unknown.iloc[0]}, are not "
            f"in `test_csv` {test_csv}; are these predictions of another split?"
        )


def _describe(rows: Rows, table: pd.DataFrame, *, name: str, others: Mapping[str, pd.DataFrame]) -> None:
    """Add the attributes and image URLs that `table` has to `rows`, which have those of earlier `others`."""
    positions = rows.positions(table["index"])
    table, positions = table[positions >= 0], positions[positions >= 0]
    if "image_link" in table.columns:
        found = rows.image_links[positions]
        rows.image_links[positions] = np.where(found == "", table["image_link"].to_numpy(object), found)
    if "entity_name" not in table.columns:
        return
    names = rows.schema.names
    codes = table["entity_name"].str.strip().map({name: position for position, name in enumerate((*names, ""))})
    if codes.isna().any():
        unknown = one_line(repr(table["entity_name"][codes.isna()].iloc[0]), max_length=100)
        raise InputError(f"{name}: unknown entity_name {unknown}; expected one of {', '.join(names)}")
    entities, found = codes.to_numpy(np.int64), rows.entities[positions]
    differs = np.flatnonzero((entities != found) & (entities != rows.unknown) & (found != rows.unknown))
    if len(differs):
        row = int(differs[0])
        index = table["index"].iloc[row]
        raise InputError(
            f"{name}: index {index} is about {names[entities[row]]}, but about {names[found[row]]} in "
            f"{_find_described(others, index)}; are these files about different splits?"
        )
    rows.entities[positions] = np.where(entities == rows.unknown, found, entities)


def _find_described(tables: Mapping[str, pd.DataFrame], index: int) -> str:
    """The name of the first table that has the attribute of a row."""
    return next(
        name
        for name, table in tables.items()
        if "entity_name" in table.columns and table["entity_name"][table["index"] == index].str.strip().any()
    )
