"""How usual each unit is in the labels of an attribute, for the rules that rank candidates."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

import pyarrow.parquet as pq

from product_vqa.dataset import COLUMNS, DAMAGED, dataset_error, download_splits, find_rows, find_splits
from product_vqa.errors import first_line
from product_vqa.hub import Location
from product_vqa.parquet_files import ParquetError, check_parquet
from product_vqa.task.attributes import Schema
from product_vqa.task.kinds import QuantityKind

_LABEL_COLUMNS = {name: COLUMNS[name] for name in ("entity_name", "entity_value")}


def count_shares(labels: Iterable[tuple[str, str | None, int]], schema: Schema) -> dict[str, dict[str, float]]:
    """Attribute -> unit -> its share of the labels; a label is its entity_name, `500.0 gram`, and its number of rows.

    Labels without a unit of their attribute do not count.
    """
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for name, label, number in labels:
        attribute = schema.attributes.get(name)
        if attribute is None or not isinstance(attribute.kind, QuantityKind):
            continue
        unit = attribute.kind.split(label or "")[1]
        if unit in attribute.kind.units:
            counts[name][unit] += number
    return {name: {unit: number / found.total() for unit, number in found.items()} for name, found in counts.items()}


def load_shares(location: Location, schema: Schema) -> dict[str, dict[str, float]]:
    """Attribute -> unit -> its share of the labels of the split `train`; empty without such a split."""
    if "train" not in find_splits(location):
        return {}
    return count_shares(_count_labels(location), schema)


def _count_labels(location: Location) -> Iterator[tuple[str, str, int]]:
    """The labels of the split `train` by attribute: entity_name, label, number of rows."""
    names = find_rows(location, "train")
    for path, name in zip(download_splits(location, names)["train"], names["train"], strict=True):
        try:
            check_parquet(path, _LABEL_COLUMNS)
            table = pq.read_table(path, columns=list(_LABEL_COLUMNS))
            grouped = table.group_by(["entity_name", "entity_value"]).aggregate([([], "count_all")]).to_pylist()
        except (ParquetError, *DAMAGED) as error:
            raise dataset_error(location, f"{name}: {first_line(error)}") from error
        yield from ((row["entity_name"], row["entity_value"], row["count_all"]) for row in grouped)
