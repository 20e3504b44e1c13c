import csv
import json
from pathlib import Path

import datasets
import pytest

from dataset_builder import inspect
from product_vqa.errors import InputError
from tests.commands import call, run_module
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
    done = run_module("dataset_builder.inspect", *tables, "--json")
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
    done = run_module("dataset_builder.inspect", check=False)
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
