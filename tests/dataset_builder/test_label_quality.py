import csv
from pathlib import Path

import pytest

from dataset_builder.label_quality import LABELS_PER_RARE, MIN_LABELS, MIN_LABELS_OF_CHOICE, write_suspicious
from product_vqa.tables.rows import Table
from product_vqa.task.schema_file import parse_schema
from tests.dataset_builder.challenge import find_suspicious, read_train_csv
from tests.dataset_builder.files import TRAIN_COLUMNS, write_csv


def read(folder: Path, rows: list[list[object]]) -> Table:
    return read_train_csv(write_csv(folder / "train.csv", TRAIN_COLUMNS, rows))


def test_each_suspicious_label_has_its_reason(tmp_path: Path) -> None:
    rows: list[list[object]] = [[f"l{number}", "1", "item_weight", f"{100 + number} gram"] for number in range(30)]
    rows += [
        ["l50", "1", "item_weight", "900000 gram"],  # an outlier among 32 labels in gram
        ["l51", "1", "item_weight", "900000 ounce"],  # the only one in ounce
        ["l52", "1", "height", "0.0 inch"],
        ["l0", "1", "item_weight", "101 gram"],  # row 0 says 100
        ["l1", "1", "item_weight", "101.0 gram"],  # as row 1 says
        ["l53", "1", "voltage", "5 watt"],
        ["l0", "1", "height", "5 inch"],  # another entity
    ]
    found = list(find_suspicious(read(tmp_path, rows)))
    assert [(reason, row.position) for row, reason in found] == [
        ("unit_unsuitable", 35), ("zero", 32), ("outlier", 30), ("two_answers", 0), ("two_answers", 33),
    ]  # fmt: skip
    write_suspicious(found, tmp_path / "suspicious.csv")
    with (tmp_path / "suspicious.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert list(lines[0]) == [
        "reason", "row", "index", "image_link", "group_id", "entity_name", "entity_value",
    ]  # fmt: skip
    assert [(line["reason"], line["row"], line["entity_value"]) for line in lines[:2]] == [
        ("unit_unsuitable", "35", "5 watt"),
        ("zero", "32", "0.0 inch"),
    ]


@pytest.mark.parametrize(("number", "reasons"), [(MIN_LABELS, ["outlier"]), (MIN_LABELS - 1, [])])
def test_among_few_labels_nothing_is_an_outlier(tmp_path: Path, number: int, reasons: list[str]) -> None:
    rows: list[list[object]] = [[f"l{n}", "1", "width", f"{100 + n} inch"] for n in range(number - 1)]
    table = read(tmp_path, [*rows, ["far", "1", "width", "900000 inch"]])
    assert [reason for _, reason in find_suspicious(table)] == reasons


def test_any_labels_are_examined(tmp_path: Path) -> None:
    values = ("", "0 inch", "9" * 400 + " inch", "1e999 inch", "[1, 2] inch")
    rows: list[list[object]] = [["l", "1", "width", value] for value in values]
    reasons = [reason for _, reason in find_suspicious(read(tmp_path, rows * 10))]
    assert reasons.count("zero") == 10


SCHEMA = parse_schema(
    """version: 1
units: {celsius: {degree: {size: 1, spellings: [°C]}}}
attributes:
  storage: {kind: integer}
  temperature: {kind: quantity, units: celsius, signed: true}
  colour: {kind: choice, values: [red, blue, green]}
  material: {kind: multi_choice, values: [cotton, wool, silk], not_shown: true}
  model: {kind: pattern, pattern: "[A-Za-z]{2}[0-9]{1,4}"}
  brand: {kind: text}
""",
    name="schema",
)


def find(folder: Path, rows: list[list[object]]) -> list[tuple[str, int]]:
    table = read_train_csv(write_csv(folder / "train.csv", TRAIN_COLUMNS, rows), schema=SCHEMA)
    return [(reason, row.position) for row, reason in find_suspicious(table, schema=SCHEMA)]


def test_numbers_of_any_kind_have_zeros_and_outliers(tmp_path: Path) -> None:
    rows: list[list[object]] = [[f"l{n}", "1", "storage", 100 + n] for n in range(MIN_LABELS)]
    rows += [[f"l{n}", "1", "temperature", f"{n - 30} °C"] for n in range(61)]  # -30 to 30
    rows += [
        ["a", "1", "storage", 0],  # 81
        ["b", "1", "storage", 900_000],
        ["c", "1", "temperature", "-900000 °C"],
        ["d", "1", "storage", "many"],  # dropped, not suspicious
    ]
    assert find(tmp_path, rows) == [("zero", 81), ("outlier", 82), ("outlier", 83)]


def test_any_kind_has_two_answers(tmp_path: Path) -> None:
    rows: list[list[object]] = [
        ["a", "1", "colour", "red"], ["a", "1", "colour", "Blue"],
        ["b", "1", "colour", "red"], ["b", "1", "colour", "RED"],
        ["c", "1", "model", "ab12"], ["c", "1", "model", "AB12"], ["c", "1", "model", "AB13"],
        ["d", "1", "brand", "Acme"], ["d", "1", "brand", "ACME"],
        ["e", "1", "material", ""], ["e", "1", "material", "wool and cotton"],
        ["f", "1", "material", "wool, cotton"], ["f", "1", "material", "cotton; wool"],
    ]  # fmt: skip
    assert find(tmp_path, rows) == [("two_answers", row) for row in (0, 1, 4, 5, 6, 9, 10)]


@pytest.mark.parametrize(("others", "rare"), [(MIN_LABELS_OF_CHOICE - 1, True), (MIN_LABELS_OF_CHOICE - 2, False)])
def test_values_that_hardly_any_label_has_are_rare(tmp_path: Path, others: int, rare: bool) -> None:
    rows: list[list[object]] = [[f"l{n}", "1", "colour", ("red", "blue")[n % 2]] for n in range(others)]
    rows += [["x", "1", "colour", "green"]]
    rows += [[f"m{n}", "1", "material", ("cotton", "wool")[n % 2]] for n in range(others)]
    rows += [["x", "1", "material", "cotton, silk"], ["y", "1", "material", ""], ["z", "1", "brand", "Acme"]]
    assert find(tmp_path, rows) == ([("rare", others), ("rare", 2 * others + 1)] if rare else [])


def test_more_labels_may_have_a_rare_value(tmp_path: Path) -> None:
    rows: list[list[object]] = [[f"l{n}", "1", "colour", ("red", "blue")[n % 2]] for n in range(LABELS_PER_RARE - 2)]
    rows += [["x", "1", "colour", "green"], ["y", "1", "colour", "green"]]
    assert find(tmp_path, rows) == [("rare", LABELS_PER_RARE - 2), ("rare", LABELS_PER_RARE - 1)]
    assert find(tmp_path, [*rows, ["z", "1", "colour", "green"]]) == []
