"""References: the labels that predictions are compared with, from a CSV or from a split of a dataset."""

from pathlib import Path

import pandas as pd
from datasets import Dataset

from inference.comparison import Comparison
from inference.submission import read_predictions
from inference.tables import check_entities, read_attribute_rows
from product_vqa.dataset import load_split
from product_vqa.errors import InputError, argument
from product_vqa.hub import Location, locate
from product_vqa.schemas import choose_schema, load_schema
from product_vqa.tables.layout import Layout
from product_vqa.task.attributes import Schema
from product_vqa.task.schema import is_challenge


def find_schema(references: str | Path, *, file: str | None = None) -> Schema:
    """The schema of the dataset that the references are a split of, or else that of `file`, or the challenge's.

    Raises InputError if `file` differs from what the dataset brings in a way that matters.
    """
    name = str(references)
    if _is_csv(name):
        with argument("schema"):
            return choose_schema(file)
    with argument("references"):
        location, _ = _locate_split(name)
        own = load_schema(location)
    return choose_schema(file, own=own, of=str(location))


def join(predictions: str | Path, references: str | Path, *, schema: Schema, layout: Layout) -> pd.DataFrame:
    """Each reference with its prediction: index, entity_name, group_id, image_link, reference, prediction, confidence.

    A reference without a prediction has the prediction "". The confidence may be NaN. A wide table has no reference
    for an empty cell, and what was predicted for it is dropped. Raises InputError for another index without a
    reference or one that occurs twice, and if there are no references.
    """
    labels = read_references(str(references), schema=schema, layout=layout)
    predicted = read_predictions(predictions, as_written=not is_challenge(schema))
    known = set(labels["index"])
    if layout.is_wide and _is_csv(str(references)):
        known = set(_read_asked(str(references), schema, layout))
    if unknown := sorted(set(predicted["index"]) - known):
        raise InputError(
            f"{predictions}: {len(unknown)} of {len(predicted)} indexes, for example {unknown[0]}, are not in "
            f"`references` {references}; are these predictions for another split?"
        )
    table = labels.merge(predicted, on="index", how="left")
    return table.fillna({"prediction": ""})


def read_references(name: str, *, schema: Schema, layout: Layout) -> pd.DataFrame:
    """index, entity_name, image_link, group_id and reference (the raw label, "" for none).

    For a schema that is not the challenge's, the reference is in canonical form, unless it has none.

    `name` is a CSV or a split of a dataset (`user/name[@revision]:split`, `folder:split`). A CSV without `image_link`
    counts as one image per row, and one without `group_id` as no groups. `layout` is that of a CSV. Raises InputError
    if there are no rows.
    """
    with argument("references"):
        if _is_csv(name):
            table = _read_labels_csv(name, schema, layout)
        else:
            table = _read_labels_split(name)
            if not is_challenge(schema):
                check_entities(table["entity_name"], table["index"], schema=schema, path=name)
        if table.empty:
            raise InputError(f"{name} has no rows")
        if not is_challenge(schema):
            table["reference"] = _normalize(table, schema)
    return table


def _normalize(table: pd.DataFrame, schema: Schema) -> list[str]:
    comparison = Comparison(schema)
    pairs = zip(table["entity_name"], table["reference"].str.strip(), strict=True)
    return [comparison.canonical(entity_name, label) or label for entity_name, label in pairs]


def _read_labels_csv(name: str, schema: Schema, layout: Layout) -> pd.DataFrame:
    columns, optional = ("entity_name", "entity_value"), ("index", "image_link", "group_id")
    table = read_attribute_rows(name, schema=schema, layout=layout, columns=columns, optional=optional)
    indexes = table["index"].tolist()
    links = table["image_link"].str.strip() if "image_link" in table.columns else list(map(str, indexes))
    return pd.DataFrame(
        {
            "index": indexes,
            "entity_name": table["entity_name"],
            "image_link": links,
            "group_id": table["group_id"] if "group_id" in table.columns else "",
            "reference": table["entity_value"].str.strip(),
        }
    )


def _read_asked(name: str, schema: Schema, layout: Layout) -> list[int]:
    """The indexes of all rows that a table gives if it is predicted."""
    with argument("references"):
        table = read_attribute_rows(name, schema=schema, layout=layout, columns=("entity_name",))
    return table["index"].tolist()


def _read_labels_split(name: str) -> pd.DataFrame:
    columns = ["index", "entity_name", "image_link", "group_id", "entity_value_raw"]
    return _to_pandas(_load_split(name), columns).rename(columns={"entity_value_raw": "reference"})


def read_entities(name: str, *, schema: Schema, layout: Layout) -> pd.Series:
    """The attribute of each row of a CSV or of a dataset's split. Raises InputError for an unknown one."""
    with argument("weights"):
        if _is_csv(name):
            table = read_attribute_rows(name, schema=schema, layout=layout, columns=("entity_name",))
            entities = table["entity_name"]
        else:
            entities = _to_pandas(_load_split(name), ["entity_name"])["entity_name"]
        if unknown := sorted(set(entities) - set(schema.names)):
            raise InputError(f"{name}: unknown entity_name {unknown[0]!r}; expected one of {', '.join(schema.names)}")
        if entities.empty:
            raise InputError(f"{name} has no rows")
    return entities


def _is_csv(name: str) -> bool:
    return Path(name).is_file() or name.lower().endswith((".csv", ".gz", ".bz2", ".xz", ".zip"))


def _load_split(name: str) -> Dataset:
    return load_split(*_locate_split(name))


def _locate_split(name: str) -> tuple[Location, str]:
    source, colon, split = name.rpartition(":")
    if not colon:
        raise InputError(f"{name} is neither a CSV file nor a split of a dataset, such as user/name:test")
    return locate(source, repo_type="dataset"), split


def _to_pandas(dataset: Dataset, columns: list[str]) -> pd.DataFrame:
    table = dataset.select_columns(columns).to_pandas()
    assert isinstance(table, pd.DataFrame)  # and not an iterator of them, which `batched` would give
    return table
