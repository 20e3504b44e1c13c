"""A dataset whose labels are audited: four rows, of which one has a hostile label and one has no image."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from product_vqa.task.features import FEATURES
from tests.tiny import make_image

EVIL = "<script>document.title='taken'</script>"
LINK = f"https://shop.example/{EVIL}.jpg?a=1,2"


def save_audited(folder: Path, *, evil: str = EVIL) -> Path:
    rows = [
        ("https://shop.example/0.jpg", "item_weight", "500.0 gram", "500 gram"),
        (f"https://shop.example/{evil}.jpg?a=1,2", "item_weight", "5.0 gram", f"=5 gram {evil}"),
        ("https://shop.example/2.jpg", "width", "12.0 inch", "12 inch"),
        ("https://shop.example/3.jpg", "voltage", "230.0 volt", "230 volt"),
        ("https://shop.example/3.jpg", "wattage", "", ""),
    ]
    table = [
        {"index": 10 + number, "image": None if number == 2 else make_image(number), "image_link": link,
         "group_id": "1", "entity_name": name, "entity_value": label, "entity_value_raw": raw}
        for number, (link, name, label, raw) in enumerate(rows)
    ]  # fmt: skip
    (folder / "data").mkdir(parents=True)
    Dataset.from_list(table, features=FEATURES).to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    return folder


def save_predictions(file: Path, answers: dict[int, tuple[str, float]]) -> Path:
    """As `inference.predict` writes them, with the label of row 10 as an alternative."""
    rows: list[dict[str, Any]] = [
        {"index": index, "answer": answer, "confidence": share,
         "alternatives": [{"prediction": "500.0 gram", "confidence": 0.05}] if index == 10 else []}
        for index, (answer, share) in answers.items()
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file
