import csv
import json
from pathlib import Path

import datasets
import pytest

from product_vqa.errors import InputError
from tests.dataset_builder.conftest import TRAIN_COLUMNS, Shop, run_command, run_here, write_csv


def test_the_counts_are_those_of_the_rows(shop: Shop, monkeypatch, capsys):
    links = shop.train_links
    rows = [
        [links[0], "1", "item_weight", "500 gram"],
        [links[0], "1", "item_weight", "500.0 litre"],
        [links[1], "2", "voltage", "[100.0, 240.0] volt"],
        [links[2], "2", "item_weight", "10 kilogram to 15 kilogram"],
        [links[3], "2", "item_weight", "2.2e+20 gram"],
        [links[4], "3", "wattage", "5 horsepower"],
        [links[5], "3", "wattage", "?"],
    ]
    write_csv(shop.train_csv, TRAIN_COLUMNS, rows)
    done = run_command(
        "inspect", "--train_csv", shop.train_csv, "--test_csv", shop.test_csv, "--json", cwd=shop.folder
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "train": {
            "rows": 7,
            "images": 6,
            "groups": 3,
            "rows_by_entity": {"item_weight": 4, "wattage": 2, "voltage": 1},
            "label_forms": {
                "plain": 2, "range_brackets": 1, "range_to": 1, "exponent": 1, "unit_unknown": 1, "broken": 1,
            },
            "unit_unsuitable": 1,
            "suspicious": {"unit_unsuitable": 1},
            "suspicious_examples": {"unit_unsuitable": ["row 1: item_weight 500.0 litre"]},
        },
        "test": {
            "rows": 4,
            "images": 3,
            "groups": 2,
            "rows_by_entity": {"width": 1, "voltage": 1, "depth": 1, "item_volume": 1},
        },
    }  # fmt: skip


def test_without_json_the_counts_are_a_table(shop: Shop, monkeypatch, capsys):
    run_here(monkeypatch, "inspect", "--test_csv", shop.test_csv)
    assert [line.split() for line in capsys.readouterr().out.splitlines()][:4] == [
        ["test"], ["rows", "4"], ["images", "3"], ["groups", "2"],
    ]  # fmt: skip


def test_without_any_file_the_flags_are_named(tmp_path: Path):
    done = run_command("inspect", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: no rows: give --train_csv FILE, --test_csv FILE or both, or --dataset user/name\n"


def test_suspicious_labels_are_named_and_written(shop: Shop, monkeypatch, capsys):
    rows = [[f"l{number}", "1", "item_weight", f"{100 + number} gram"] for number in range(30)]
    rows += [
        ["l50", "1", "item_weight", "900000 gram"],  # an outlier among 32 labels in gram
        ["l51", "1", "item_weight", "900000 ounce"],  # the only one in ounce
        ["l52", "1", "height", "0.0 inch"],
        ["l0", "1", "item_weight", "101 gram"],  # row 0 says 100
        ["l1", "1", "item_weight", "101.0 gram"],  # as row 1 says
        ["l53", "1", "voltage", "5 watt"],
        ["l0", "1", "height", "5 inch"],  # another question
    ]
    write_csv(shop.train_csv, TRAIN_COLUMNS, rows)
    file = shop.folder / "suspicious.csv"
    run_here(monkeypatch, "inspect", "--train_csv", shop.train_csv, "--suspicious_csv", file)
    with file.open(newline="") as stream:
        found = sorted((row["reason"], int(row["row"])) for row in csv.DictReader(stream))
    assert found == [("outlier", 30), ("two_answers", 0), ("two_answers", 33), ("unit_unsuitable", 35), ("zero", 32)]
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["two_answers", "2"] in lines
    assert ["row", "30:", "item_weight", "900000", "gram"] in lines


def test_any_labels_are_looked_at(tmp_path: Path, monkeypatch, capsys):
    rows = [["l", "1", "width", value] for value in ("", "0 inch", "9" * 400 + " inch", "1e999 inch", "[1, 2] inch")]
    run_here(monkeypatch, "inspect", "--train_csv", write_csv(tmp_path / "train.csv", TRAIN_COLUMNS, rows * 10))
    assert "zero" in capsys.readouterr().out


def test_what_two_splits_share_is_found_in_any_dataset(shop: Shop, monkeypatch, capsys):
    """A dataset of somebody else's, drawn row by row: no hashes, two links on both sides, and two neighbours."""
    folder = shop.folder / "theirs"
    (folder / "data").mkdir(parents=True)
    for split, numbers in (("train", (0, 1, 2, 5, 6, 8)), ("validation", (0, 1, 3, 7))):
        columns = {
            "index": [10 * number for number in numbers],
            "image_link": [f"l{number}" for number in numbers],
            "group_id": ["g"] * len(numbers),
            "entity_name": ["width"] * len(numbers),
            "entity_value": ["2.0 inch" if number in (2, 3) else f"{number}0.0 inch" for number in numbers],
        }
        datasets.Dataset.from_dict(columns).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    run_here(monkeypatch, "inspect", "--dataset", folder, "--json")
    (leak,) = json.loads(capsys.readouterr().out)["leaks"]
    assert leak["splits"] == ["train", "validation"]
    assert (leak["components"], leak["crossing"], leak["rows_crossing"]) == (7, 3, 3)
    assert leak["shared"] == {"image_link": 2}
    # three components of two rows, 4 of 10 rows drawn: each crosses with 1 - 0.4**2 - 0.6**2 = 0.48
    assert leak["crossing_if_random"] == 1
    run_here(monkeypatch, "inspect", "--dataset", folder)
    assert "train and validation: 3 of 7 components cross, with 3 rows" in capsys.readouterr().out


def test_a_dataset_that_is_none_is_refused(tmp_path: Path, monkeypatch):
    with pytest.raises(InputError, match=r"--dataset .* is not a dataset built by"):
        run_here(monkeypatch, "inspect", "--dataset", tmp_path)
