import csv
import json
from pathlib import Path

import datasets
import pytest

from dataset_builder import inspect
from product_vqa.errors import InputError
from tests.commands import call, run_here
from tests.dataset_builder.files import TRAIN_COLUMNS, Shop, write_csv


@pytest.mark.slow
def test_the_counts_are_those_of_the_rows(shop: Shop) -> None:
    urls = shop.train_urls
    rows: list[list[object]] = [
        [urls[0], "1", "item_weight", "500 gram"],
        [urls[0], "1", "item_weight", "500.0 litre"],
        [urls[1], "2", "voltage", "[100.0, 240.0] volt"],
        [urls[2], "2", "item_weight", "10 kilogram to 15 kilogram"],
        [urls[3], "2", "item_weight", "2.2e+20 gram"],
        [urls[4], "3", "wattage", "5 horsepower"],
        [urls[5], "3", "wattage", "?"],
    ]
    write_csv(shop.train_csv, TRAIN_COLUMNS, rows)
    tables: list[str | Path] = ["--train_csv", shop.train_csv, "--test_csv", shop.test_csv]
    done = run_here("dataset_builder.inspect", *tables, "--json")
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


def test_without_json_the_counts_are_a_table(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(inspect.main, monkeypatch, "--test_csv", shop.test_csv)
    assert [line.split() for line in capsys.readouterr().out.splitlines()][:4] == [
        ["test"], ["rows", "4"], ["images", "3"], ["groups", "2"],
    ]  # fmt: skip


def test_without_any_file_the_flags_are_named() -> None:
    done = run_here("dataset_builder.inspect")
    assert done.returncode == 2
    assert done.stderr == "error: no rows: give --train_csv FILE, --test_csv FILE or both, or --dataset user/name\n"


def test_a_dataset_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"--dataset .* is not a dataset built by"):
        call(inspect.main, monkeypatch, "--dataset", tmp_path)


def test_suspicious_labels_are_reported_and_written(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[list[object]] = [[f"l{number}", "1", "item_weight", f"{100 + number} gram"] for number in range(30)]
    rows += [["l50", "1", "item_weight", "900000 gram"], ["l0", "1", "item_weight", "101 gram"]]
    write_csv(shop.train_csv, TRAIN_COLUMNS, rows)
    file = shop.folder / "suspicious.csv"
    call(inspect.main, monkeypatch, "--train_csv", shop.train_csv, "--suspicious_csv", file)
    with file.open(newline="") as stream:
        found = sorted((row["reason"], int(row["row"])) for row in csv.DictReader(stream))
    assert found == [("outlier", 30), ("two_answers", 0), ("two_answers", 31)]
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["two_answers", "2"] in lines
    assert ["row", "30:", "item_weight", "900000", "gram"] in lines


def test_labels_of_any_schema_are_counted_by_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = tmp_path / "schema.yaml"
    schema.write_text("""version: 1
units: {data: {gigabyte: {size: 1, spellings: [GB]}}, length: {inch: {size: 1}}}
attributes:
  storage: {kind: quantity, units: data, decimals: 0}
  width: {kind: quantity, units: length}
  colour: {kind: choice, values: [red, blue], not_shown: true}
""")
    rows: list[list[object]] = [
        ["a", "1", "storage", "16 GB"],
        ["a", "1", "storage", "16.5 GB"],
        ["a", "1", "storage", "32GB"],
        ["a", "1", "storage", "5 inch"],
        ["b", "1", "storage", "[16, 32] GB"],
        ["b", "1", "width", "5 inch"],
        ["c", "1", "colour", "RED"],
        ["c", "1", "colour", "purple"],
        ["d", "1", "colour", ""],
    ]
    options = ["--train_csv", write_csv(tmp_path / "train.csv", TRAIN_COLUMNS, rows), "--schema", schema]
    call(inspect.main, monkeypatch, *options, "--json")
    assert json.loads(capsys.readouterr().out)["train"] == {
        "rows": 9,
        "images": 4,
        "groups": 1,
        "rows_by_entity": {"storage": 5, "colour": 3, "width": 1},
        "label_forms": {
            "quantity": {
                "storage": {"fit": 2, "not_an_integer": 1, "unit_unsuitable": 1, "range_brackets": 1},
                "width": {"fit": 1},
            },
            "choice": {"colour": {"fit": 1, "not_a_choice": 1, "not_shown": 1}},
        },
        "suspicious": {"two_answers": 2, "unit_unsuitable": 1},
        "suspicious_examples": {
            "unit_unsuitable": ["row 3: storage 5 inch"],
            "two_answers": ["row 0: storage 16 GB", "row 2: storage 32GB"],
        },
    }
    call(inspect.main, monkeypatch, *options)
    assert ["not_a_choice", "1"] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_a_wide_table_is_counted_like_its_long_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = tmp_path / "schema.yaml"
    schema.write_text("version: 1\nattributes: {size: {kind: choice, values: [S, M]}, pieces: {kind: integer}}\n")
    rows: list[list[object]] = [["a", "s", 3], ["b", "", 4], ["c", "L", "x"]]
    file = write_csv(tmp_path / "wide.csv", ["photo", "size", "Stück"], rows)
    columns = "image_link=photo,pieces=Stück"
    options = ["--train_csv", file, "--schema", schema, "--wide", "--columns", columns]
    call(inspect.main, monkeypatch, *options, "--json")
    assert json.loads(capsys.readouterr().out)["train"]["label_forms"] == {
        "choice": {"size": {"fit": 1, "not_a_choice": 1}},
        "integer": {"pieces": {"fit": 2, "not_a_number": 1}},
    }


def test_a_schema_is_for_csvs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="--schema is for CSVs: a dataset brings its own; give --train_csv FILE"):
        call(inspect.main, monkeypatch, "--dataset", "x", "--schema", "schema.yaml")


def test_a_file_that_could_not_be_written_is_named(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    tables: list[str | Path] = ["--train_csv", shop.train_csv]
    with pytest.raises(InputError, match=r"--suspicious_csv .*: could not be written \(Is a directory\)"):
        call(inspect.main, monkeypatch, *tables, "--suspicious_csv", shop.folder)


def test_what_two_splits_share_is_found_in_any_dataset(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dataset made elsewhere, drawn row by row: no hashes, two URLs in both splits, and two neighbours."""
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
    call(inspect.main, monkeypatch, "--dataset", folder, "--json")
    report = json.loads(capsys.readouterr().out)
    assert report["dataset"]["train"] == {"rows": 6, "rows_by_entity": {"width": 6}}
    (leak,) = report["leaks"]
    assert leak["splits"] == ["train", "validation"]
    assert (leak["components"], leak["crossing"], leak["rows_crossing"]) == (7, 3, 3)
    assert leak["shared"] == {"image_link": 2}
    # Three components of two rows, 4 of 10 rows drawn: each crosses with 1 - 0.4**2 - 0.6**2 = 0.48.
    assert leak["crossing_if_random"] == 1
    assert report["placeholders"] == []
    call(inspect.main, monkeypatch, "--dataset", folder)
    assert "train and validation share 3 of 7 groups of related rows (3 rows;" in capsys.readouterr().out
