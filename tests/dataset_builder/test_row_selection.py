"""A dataset of a part of the CSVs' rows, through the command."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dataset_builder import build
from product_vqa.errors import InputError
from tests.commands import call
from tests.dataset_builder.files import Shop


def built(folder: Path) -> dict[str, list[int]]:
    """The indexes of each split."""
    return {file.stem: pq.read_table(file)["index"].to_pylist() for file in (folder / "rows").glob("*.parquet")}


def test_a_part_of_each_csv_is_built_and_the_card_says_how(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shop.folder / "out"
    arguments = [*shop.arguments(), "--validation_size", "0", "--output_dir", folder]
    caplog.set_level("INFO")
    call(build.main, monkeypatch, *arguments, "--max_rows", 3, "--entities", "voltage,item_weight,depth")
    found = built(folder)
    assert len(found["train"]) in (2, 3) and set(found["test"]) == {3, 11}  # a range may be among the three
    assert "train.csv: 3 of 12 rows selected" in caplog.text and "test.csv: 2 of 4 rows selected" in caplog.text
    assert json.loads((folder / "build.json").read_text())["row_selection"] == {
        "max_rows": 3, "entities": "depth,item_weight,voltage", "seed": 0,
    }  # fmt: skip
    card = (folder / "README.md").read_text()
    assert "--max_rows 3 --entities depth,item_weight,voltage" in card.replace(" \\\n  ", " ")
    call(build.main, monkeypatch, *arguments)  # another selection is another build
    assert len(built(folder)["train"]) == 11


def test_listed_rows_are_those_of_one_csv(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = shop.folder / "rows.txt"
    listed.write_text("11\n3\n")
    test_only = ["--test_csv", shop.test_csv, "--image_dir", shop.image_dir]
    call(build.main, monkeypatch, *test_only, "--rows", listed, "--output_dir", shop.folder / "out")
    assert built(shop.folder / "out") == {"test": [3, 11]}
    with pytest.raises(InputError, match="--rows lists indexes of one table: give --train_csv or --test_csv"):
        call(build.main, monkeypatch, *shop.arguments(), "--rows", listed, "--output_dir", shop.folder / "both")
    listed.write_text("99\n")
    with pytest.raises(InputError, match=r"test\.csv: --rows select none of the 4 rows"):
        call(build.main, monkeypatch, *test_only, "--rows", listed, "--output_dir", shop.folder / "none")
    assert not (shop.folder / "both").exists() and not (shop.folder / "none").exists()
