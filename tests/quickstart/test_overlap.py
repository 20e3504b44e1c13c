"""What of the test was seen before, counted on rows made by hand."""

import csv
from pathlib import Path

import pytest

from quickstart.overlap import measure_overlap
from quickstart.rendering.printed_numbers import is_held_out

HELD_OUT = [number for number in map(str, range(10, 100)) if is_held_out(number)]
SHOWN = [number for number in map(str, range(10, 100)) if not is_held_out(number)]
# The answers to the test, and where each was seen.
ANSWERS = {
    f"{HELD_OUT[0]}.0 gram": "training",
    f"{SHOWN[0]}.0 gram": "both",  # pretraining prints every number that is not held out
    f"{SHOWN[1]}.0 gram": "pretraining",
    "5.0 gram": "pretraining",  # of one digit, which is never held out
    f"{HELD_OUT[1]}.0 gram": "nowhere",
    f"{HELD_OUT[0]}.0 kilogram": "nowhere",  # another unit is another answer
}


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(4):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(b"same" if number in (1, 3) else bytes([number]))
    trained = [answer for answer, seen in ANSWERS.items() if seen in ("training", "both")]
    write(tmp_path / "train.csv", ["image_link", "entity_value"], [[f"u/{n}.jpg", v] for n, v in enumerate(trained)])
    write(tmp_path / "test.csv", ["image_link"], [["u/2.jpg"], ["u/3.jpg"]])
    write(tmp_path / "test_answers.csv", ["index", "entity_value"], [[7 + n, v] for n, v in enumerate(ANSWERS)])
    return tmp_path


def write(file: Path, columns: list[str], rows: list[list[object]]) -> Path:
    with file.open("w", newline="") as lines:
        csv.writer(lines).writerows([columns, *rows])
    return file


def predict(folder: Path, right: set[str]) -> Path:
    rows = [[7 + n, value if seen in right else "1.0 inch"] for n, (value, seen) in enumerate(ANSWERS.items())]
    return write(folder / "submission.csv", ["index", "prediction"], rows)


def test_what_was_seen_is_counted(labels: Path) -> None:
    assert measure_overlap(labels) == {
        "test_pictures": 2,
        "pictures_in_both": 1,
        "test_pairs": 6,
        "pairs_in_training": 2,
        "pairs_in_pretraining": 3,
        "share_seen": 4 / 6,
    }


@pytest.mark.parametrize(
    ("right", "f1"), [({"nowhere"}, 1.0), ({"training", "pretraining", "both"}, 0.0), (set(ANSWERS.values()), 1.0)]
)
def test_f1_on_what_was_never_seen_counts_no_pair_of_training_or_pretraining(
    labels: Path, right: set[str], f1: float
) -> None:
    assert measure_overlap(labels, predict(labels, right))["f1_quantity_unseen"] == f1
