"""Tables of all formats, through the command: the same rows give the same dataset."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_builder import build, inspect
from product_vqa.errors import InputError
from tests.commands import call
from tests.dataset_builder.catalogues import LABELS, Catalogue, labels_of
from tests.dataset_builder.files import Shop, contents, write_csv


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def as_json_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.parquet", "rows.csv"])
def test_a_table_of_any_format_gives_the_same_dataset(shop: Shop, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    options = ["--image_dir", shop.image_dir, "--validation_size", "0.25"]
    train, test = rows_of(shop.train_csv), rows_of(shop.test_csv)
    for file, rows in ((shop.folder / f"train_{name}", train), (shop.folder / f"test_{name}", test)):
        if name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist(rows), file)
        elif name == "rows.csv":
            write_csv(file, list(rows[0]), [list(row.values()) for row in rows])
        else:
            file.write_bytes(gzip.compress(as_json_lines(rows)) if name.endswith(".gz") else as_json_lines(rows))
    for number, start in enumerate(["train.csv", f"train_{name}"]):
        tables = ["--train_csv", shop.folder / start, "--test_csv", shop.folder / start.replace("train", "test")]
        call(build.main, monkeypatch, *tables, *options, "--output_dir", shop.folder / str(number) / "out")
    first, second = (contents(shop.folder / str(number) / "out") for number in range(2))
    dropped = first.pop("left_out.csv").replace(b"train.csv", f"train_{name}".encode())
    assert second.pop("left_out.csv") == dropped
    assert first == second
    assert json.loads((shop.folder / "1" / "out" / "build.json").read_text())["sources"]["train_csv"]["file"] == (
        f"train_{name}"
    )


def test_products_in_json_lack_what_they_do_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = Catalogue(tmp_path, "clothes")
    rows = [
        {"image_link": "0.jpg", "size": "M", "material": ["wool", "cotton"]},
        {"image_link": "1.jpg", "colour": "navy", "size": None},
    ]
    (tmp_path / "products.jsonl").write_bytes(as_json_lines(rows))
    arguments = ["--train_csv", tmp_path / "products.jsonl", "--wide", "--validation_size", "0"]
    call(build.main, monkeypatch, *arguments, *catalogue.arguments())
    assert labels_of(tmp_path / "out") == {
        ("0", "size", "M"), ("0", "material", "cotton, wool"), ("1", "colour", "navy blue"),
    }  # fmt: skip


def test_a_split_of_a_dataset_is_a_table_with_its_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = Catalogue(tmp_path, "electronics")
    arguments = ["--train_csv", catalogue.write_wide(), "--wide", "--validation_size", "0"]
    call(build.main, monkeypatch, *arguments, *catalogue.arguments())
    again = ["--train_csv", f"{tmp_path / 'out'}:train", "--validation_size", "0", "--image_dir", catalogue.image_dir,
             "--output_dir", tmp_path / "again"]  # fmt: skip
    call(build.main, monkeypatch, *again)
    assert labels_of(tmp_path / "again") == LABELS["electronics"][0]
    assert (tmp_path / "again" / "schema.yaml").read_bytes() == (tmp_path / "out" / "schema.yaml").read_bytes()
    record = (tmp_path / "again" / "build.json").read_text()
    assert json.loads(record)["sources"]["train_csv"]["file"] == "out:train" and str(tmp_path) not in record
    catalogue.schema.write_text(catalogue.schema.read_text().replace("[0-9]{3,4}", "[0-9]{3}"))
    with pytest.raises(InputError, match=r"--schema .*differs from the schema of .*out, .*pattern of model"):
        call(build.main, monkeypatch, *again, "--schema", catalogue.schema)


def test_what_is_not_a_table_is_named(tmp_path: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad.jsonl").write_text('{"image_link": "a"}\nno\n')
    (tmp_path / "few.jsonl").write_text('{"image_link": "a", "entity_name": "width"}\n')
    (tmp_path / "bad.parquet").write_bytes(b"PAR1" + bytes(100))
    pq.write_table(pa.table({"image_link": [b"\xff"], "group_id": ["g"], "entity_name": ["width"],
                             "entity_value": ["1 inch"]}), tmp_path / "binary.parquet")  # fmt: skip
    for name, message in [
        ("bad.jsonl", r"--train_csv .*bad\.jsonl, line 2: not JSON Lines"),
        ("few.jsonl", "few.jsonl: no column group_id, entity_value; expected image_link"),
        ("bad.parquet", "bad.parquet: is a Parquet file that cannot be read .it does not end like a Parquet file"),
        ("binary.parquet", "binary.parquet, row 0: image_link is binary"),
        ("nowhere.parquet", "--train_csv .*nowhere.parquet: no such file"),
        ("nowhere:train", "--train_csv .*nowhere: no such folder"),
    ]:
        with pytest.raises(InputError, match=message):
            call(inspect.main, monkeypatch, "--train_csv", tmp_path / name)
    call(build.main, monkeypatch, *shop.arguments(), "--output_dir", shop.folder / "out")
    with pytest.raises(InputError, match=r"--train_csv .*out has no split 'dev'"):
        call(inspect.main, monkeypatch, "--train_csv", f"{shop.folder / 'out'}:dev")
