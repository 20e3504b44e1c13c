"""References: the labels that predictions are compared with, from a CSV or from a split of a dataset."""

from pathlib import Path

import pandas as pd
from datasets import Dataset

from inference.comparison import Comparison
from inference.submission import read_predictions
from inference.tables import check_entities, read_indexes, read_table
from product_vqa.dataset import load_split
from product_vqa.errors import InputError, argument
from product_vqa.hub import Location, locate
from product_vqa.schemas import choose_schema, load_schema
from product_vqa.task.attributes import Schema
from product_vqa.task.schema import CHALLENGE, is_challenge


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


def join(predictions: str | Path, references: str | Path, *, schema: Schema = CHALLENGE) -> pd.DataFrame:
    """Each reference with its prediction: index, entity_name, group_id, image_link, reference, prediction, and more.

    A reference without a prediction has the prediction "". `confidence` and `shown` may be NaN. Raises InputError for
    an index that has no reference or occurs twice, and if there are no references.
    """
    labels = read_references(str(references), schema=schema)
    predicted = read_predictions(predictions, as_written=not is_challenge(schema))
    if unknown := sorted(set(predicted["index"]) - set(labels["index"])):
        raise InputError(
            f"{predictions}: {len(unknown)} of {len(predicted)} indexes, for example {unknown[0]}, are not in "
            f"`references` {references}; are these predictions for another split?"
        )
    table = labels.merge(predicted, on="index", how="left")
    return table.fillna({"prediction": ""})


def read_references(name: str, *, schema: Schema = CHALLENGE) -> pd.DataFrame:
    """index, entity_name, image_link, group_id and reference (the raw label, "" for none).

    For a schema that is not the challenge's, the reference is in canonical form, unless it has none.

    `name` is a CSV or a split of a dataset (`user/name[@revision]:split`, `folder:split`). A CSV without `image_link`
    counts as one image per row, and one without `group_id` as no groups. Raises InputError if there are no rows.
    """
    with argument("references"):
        of_challenge = is_challenge(schema)
        table = _read_labels_csv(name, as_written=not of_challenge) if _is_csv(name) else _read_labels_split(name)
        if table.empty:
            raise InputError(f"{name} has no rows")
        if not of_challenge:
            check_entities(table["entity_name"], table["index"], schema=schema, path=name)
            table["reference"] = _normalize(table, schema)
    return table


def _normalize(table: pd.DataFrame, schema: Schema) -> list[str]:
    comparison = Comparison(schema)
    pairs = zip(table["entity_name"], table["reference"].str.strip(), strict=True)
    return [comparison.canonical(entity_name, label) or label for entity_name, label in pairs]


def _read_labels_csv(name: str, *, as_written: bool) -> pd.DataFrame:
    columns, optional = ("entity_name", "entity_value"), ("index", "image_link", "group_id")
    table = read_table(name, columns=columns, optional=optional, as_written=as_written)
    indexes = read_indexes(table, path=name) if "index" in table.columns else list(range(len(table)))
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


def _read_labels_split(name: str) -> pd.DataFrame:
    columns = ["index", "entity_name", "image_link", "group_id", "entity_value_raw"]
    return _to_pandas(_load_split(name), columns).rename(columns={"entity_value_raw": "reference"})


def read_entities(name: str, *, schema: Schema = CHALLENGE) -> pd.Series:
    """The column entity_name of a CSV or of a dataset's split. Raises InputError for an unknown attribute."""
    with argument("weights"):
        if _is_csv(name):
            table = read_table(name, columns=("entity_name",), as_written=not is_challenge(schema))
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
