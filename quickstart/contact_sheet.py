"""The contact sheet of a quickstart: twelve test images with question, reference answer and prediction."""

import csv
from pathlib import Path

import pyarrow.parquet as pq

from product_vqa.contact_sheet import SheetRow, draw_contact_sheet
from product_vqa.hub import Location
from product_vqa.schemas import load_schema

NUM_IMAGES = 12


def save_contact_sheet(file: Path, *, dataset: Path, references: Path, predictions: Path) -> None:
    """Save rows that are spread evenly over the dataset folder's test split.

    `references` and `predictions` are CSVs with the columns index and entity_value or prediction.
    """
    reference_by_index = _read_column(references, "entity_value")
    prediction_by_index = _read_column(predictions, "prediction")
    (shard,) = (dataset / "data").glob("test-*.parquet")
    table = pq.read_table(shard)
    indices = range(0, len(table), max(1, len(table) // NUM_IMAGES))[:NUM_IMAGES]
    rows = [
        SheetRow(
            image=row["image"],
            entity_name=row["entity_name"],
            entity_value=reference_by_index[str(row["index"])],
            prediction=prediction_by_index[str(row["index"])],
        )
        for row in table.take(list(indices)).to_pylist()
    ]
    draw_contact_sheet(rows, schema=load_schema(Location(str(dataset)))).save(file)


def _read_column(file: Path, name: str) -> dict[str, str]:
    with file.open(newline="") as lines:
        return {row["index"]: row[name] for row in csv.DictReader(lines)}
