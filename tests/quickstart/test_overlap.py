"""The overlap of rows that are written by hand."""

import csv
from pathlib import Path

import pytest

from product_vqa.errors import InputError
from product_vqa.task.schema import CHALLENGE
from product_vqa.task.schema_file import format_schema, parse_schema
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
    assert measure_overlap(labels, schema=CHALLENGE) == {
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
    assert measure_overlap(labels, predict(labels, correct), schema=CHALLENGE)["f1_quantity_unseen"] == f1


def test_a_missing_file_is_reported_with_its_argument(labels: Path) -> None:
    with pytest.raises(InputError, match=r"`predictions` .*none\.csv: no such file"):
        measure_overlap(labels, labels / "none.csv", schema=CHALLENGE)
    (labels / "test.csv").unlink()
    with pytest.raises(InputError, match=r"`labels` .*test\.csv: no such file"):
        measure_overlap(labels, schema=CHALLENGE)


def test_answers_about_another_schema_are_counted_by_attribute(tmp_path: Path) -> None:
    schema = parse_schema(
        "version: 1\nunits: {data: {gigabyte: {size: 1, spellings: [GB]}}}\nattributes:\n"
        "  memory: {kind: quantity, units: data}\n  disk: {kind: quantity, units: data}\n"
        "  code: {kind: pattern, pattern: '[A-Z]{2}'}\n  new: {kind: yes_no, not_shown: true}\n",
        name="schema.yaml",
    )
    (tmp_path / "images").mkdir()
    for number in range(2):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(bytes([number]))
    references = [
        ("memory", f"{HELD_OUT[0]}.0 gigabyte", "training"),
        ("disk", f"{HELD_OUT[0]}.0 gigabyte", "nowhere"),  # trained for another attribute
        ("disk", f"{SHOWN[0]}.0 gigabyte", "pretraining"),
        ("code", "AB", "training"),
        ("code", "CD", "nowhere"),
        ("new", "yes", "training"),
        ("new", "", "training"),
    ]
    write(tmp_path / "test.csv", ["image_link"], [["u/0.jpg"]])
    write(
        tmp_path / "test_answers.csv",
        ["index", "entity_name", "entity_value"],
        [[number, name, value] for number, (name, value, _) in enumerate(references)],
    )
    predictions = write(
        tmp_path / "submission.csv",
        ["index", "prediction"],
        [[number, value if seen == "nowhere" else "wrong"] for number, (_, value, seen) in enumerate(references)],
    )
    expected = {
        "test_pictures": 1, "pictures_in_both": 0, "test_pairs": 7, "pairs_in_training": 4, "pairs_in_pretraining": 1,
        "share_seen": 5 / 7, "f1_quantity_unseen": 1.0,
    }  # fmt: skip
    long = [["u/1.jpg", "memory", f"{HELD_OUT[0]} GB"], ["u/1.jpg", "code", "AB"], ["u/1.jpg", "new", "Yes"]]
    write(tmp_path / "train.csv", ["image_link", "entity_name", "entity_value"], [*long, ["u/1.jpg", "new", ""]])
    assert measure_overlap(tmp_path, predictions, schema=schema) == expected
    wide = [["u/1.jpg", f"{HELD_OUT[0]} GB", "", "AB", "yes"]]  # an empty cell need not mean "not shown"
    write(tmp_path / "train.csv", ["image_link", *schema.names], wide)
    # Now ("new", "") is not seen, and "wrong" is predicted there: 2 of 3 predictions are right, and 2 of 2 references.
    changed = {"pairs_in_training": 3, "share_seen": 4 / 7, "f1_quantity_unseen": pytest.approx(0.8)}
    assert measure_overlap(tmp_path, predictions, schema=schema) == expected | changed
    text = format_schema(schema).replace("not_shown: true", "not_shown: true, missing_is_not_shown: true")
    means_not_shown = parse_schema(text, name="schema.yaml")
    assert means_not_shown["new"].missing_is_not_shown
    wide.append(["u/1.jpg", "", "", "", ""])
    write(tmp_path / "train.csv", ["image_link", *schema.names], wide)
    assert measure_overlap(tmp_path, predictions, schema=means_not_shown) == expected


def test_f1_on_unseen_answers_is_none_where_all_were_seen(labels: Path) -> None:
    file = labels / "train.csv"
    file.write_text("image_link,entity_value\n" + "".join(f"u/0.jpg,{value}\n" for value in REFERENCES))
    assert measure_overlap(labels, predict(labels, set()), schema=CHALLENGE)["f1_quantity_unseen"] is None
