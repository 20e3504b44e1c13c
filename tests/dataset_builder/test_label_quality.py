import csv
from pathlib import Path

import pytest

from dataset_builder.csv_reader import Table, read_train_csv
from dataset_builder.label_quality import MIN_LABELS, find_suspicious, write_suspicious
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
