import json
from pathlib import Path

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
    assert done.stderr == "error: no rows: give --train_csv FILE, --test_csv FILE, or both\n"
