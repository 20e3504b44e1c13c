"""The overlap of rows that are written by hand."""

import csv
from pathlib import Path

import pytest

from product_vqa.errors import InputError
from quickstart.overlap import measure_overlap
from quickstart.rendering.printed_numbers import is_held_out

HELD_OUT = [number for number in map(str, range(10, 100)) if is_held_out(number)]
SHOWN = [number for number in map(str, range(10, 100)) if not is_held_out(number)]
# The reference answers, and where each of them was seen.
REFERENCES = {
    f"{HELD_OUT[0]}.0 gram": "training",
    f"{SHOWN[0]}.0 gram": "both",  # pretraining prints every number that is not held out
    f"{SHOWN[1]}.0 gram": "pretraining",
    "5.0 gram": "pretraining",  # a single digit, which is never held out
    f"{HELD_OUT[1]}.0 gram": "nowhere",
    f"{HELD_OUT[0]}.0 kilogram": "nowhere",  # another unit makes another pair
}


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(4):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(b"same" if number in (1, 3) else bytes([number]))
    trained = [reference for reference, seen in REFERENCES.items() if seen in ("training", "both")]
    write(tmp_path / "train.csv", ["image_link", "entity_value"], [[f"u/{n}.jpg", v] for n, v in enumerate(trained)])
    write(tmp_path / "test.csv", ["image_link"], [["u/2.jpg"], ["u/3.jpg"]])
    write(tmp_path / "test_answers.csv", ["index", "entity_value"], [[7 + n, v] for n, v in enumerate(REFERENCES)])
    return tmp_path


def write(file: Path, columns: list[str], rows: list[list[object]]) -> Path:
    with file.open("w", newline="") as lines:
        csv.writer(lines).writerows([columns, *rows])
    return file


def predict(folder: Path, correct: set[str]) -> Path:
    rows = [[7 + n, value if seen in correct else "1.0 inch"] for n, (value, seen) in enumerate(REFERENCES.items())]
    return write(folder / "submission.csv", ["index", "prediction"], rows)


def test_seen_images_and_pairs_are_counted(labels: Path) -> None:
    assert measure_overlap(labels) == {
        "test_pictures": 2,
        "pictures_in_both": 1,
        "test_pairs": 6,
        "pairs_in_training": 2,
        "pairs_in_pretraining": 3,
        "share_seen": 4 / 6,
    }


@pytest.mark.parametrize(
    ("correct", "f1"),
    [({"nowhere"}, 1.0), ({"training", "pretraining", "both"}, 0.0), (set(REFERENCES.values()), 1.0)],
)
def test_f1_on_unseen_pairs_excludes_the_pairs_of_training_and_pretraining(
    labels: Path, correct: set[str], f1: float
) -> None:
    assert measure_overlap(labels, predict(labels, correct))["f1_quantity_unseen"] == f1


def test_a_missing_file_is_reported_with_its_argument(labels: Path) -> None:
    with pytest.raises(InputError, match=r"`predictions` .*none\.csv: no such file"):
        measure_overlap(labels, labels / "none.csv")
    (labels / "test.csv").unlink()
    with pytest.raises(InputError, match=r"`labels` .*test\.csv: no such file"):
        measure_overlap(labels)
