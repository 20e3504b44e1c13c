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
