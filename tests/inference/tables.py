"""Small CSVs of labels and predictions."""

from pathlib import Path

LABELS = """image_link,group_id,entity_name,entity_value
http://x/0.jpg,1,item_weight,10 gram
http://x/1.jpg,1,item_weight,500.0 gram
http://x/2.jpg,1,voltage,"[100.0, 240.0] volt"
http://x/3.jpg,1,voltage,230.0 volt
"""


def write_labels(folder: Path) -> Path:
    file = folder / "train.csv"
    file.write_text(LABELS)
    return file


def write_predictions(folder: Path, rows: str) -> Path:
    file = folder / "predictions.csv"
    file.write_text(f"index,prediction\n{rows}")
    return file


def write_many_rows(folder: Path, *, right: list[bool]) -> tuple[Path, Path]:
    """Predictions and labels, two rows per image; a prediction is right where `right` is True."""
    labels = "".join(f"http://x/{n // 2}.jpg,width,{n + 1}.0 inch\n" for n in range(len(right)))
    (folder / "many.csv").write_text(f"image_link,entity_name,entity_value\n{labels}")
    answers = "".join(f"{n},{n + 1 if is_right else 9999}.0 inch\n" for n, is_right in enumerate(right))
    return write_predictions(folder, answers), folder / "many.csv"


# Labels about clothes, as people write them; the attributes are those of tests/inference/schemas.py.
CLOTHES_LABELS = """image_link,group_id,entity_name,entity_value
a,1,size,small
a,1,colour,NAVY
a,1,material,wool & cotton
b,1,size,NA
b,1,colour,
b,1,material,polyester
"""


def write_clothes(folder: Path, schema: str) -> tuple[Path, Path]:
    """The labels and the schema."""
    (folder / "clothes.csv").write_text(CLOTHES_LABELS)
    (folder / "schema.yaml").write_text(schema)
    return folder / "clothes.csv", folder / "schema.yaml"
