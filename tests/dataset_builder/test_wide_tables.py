"""Tables as people have them: one row per product, columns with other names, images in subfolders."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dataset_builder import ProductVqa, build
from product_vqa.errors import InputError
from product_vqa.tables.layout import format_columns, parse_columns
from product_vqa.task.schema_file import parse_schema
from tests.commands import call
from tests.dataset_builder.catalogues import LABELS, SCHEMAS, Catalogue, dropped_of, labels_of
from tests.dataset_builder.files import TRAIN_COLUMNS, Shop, contents, jpeg, write_csv


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_wide_table_becomes_a_row_for_each_of_its_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    catalogue, folder = Catalogue(tmp_path, name), tmp_path / "out"
    arguments = ["--train_csv", catalogue.write_wide(), "--wide", "--validation_size", "0", *catalogue.arguments()]
    call(build.main, monkeypatch, *arguments)
    labels, dropped = LABELS[name]
    assert labels_of(folder) == labels  # an empty cell gives none, but where the schema says "not shown"
    assert dropped_of(folder) == dropped
    assert json.loads((folder / "build.json").read_text())["layout"] == {"wide": True}
    card = (folder / "README.md").read_text()
    assert "  --wide \\\n" in card
    assert f"; for a CSV with one row per product, {len(catalogue.columns)} times that, plus the position" in card
    rows = pq.read_table(folder / "rows" / "train.parquet").to_pylist()
    names = list(parse_schema(SCHEMAS[name], name="s").names)
    for row in rows:
        product, number = divmod(row["index"], len(names))
        assert (f"{product}.jpg", names[number]) == (row["image_link"], row["entity_name"])
        assert row["entity_value_raw"] == catalogue.cells[product][catalogue.columns.index(names[number])]
    assert {row["group_id"] for row in rows} == {""}


def test_a_wide_table_of_products_to_predict_asks_about_every_attribute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = Catalogue(tmp_path, "clothes")
    test = write_csv(tmp_path / "test.csv", ["index", "image_link", "size"], [[7, "0.jpg", "M"], [3, "1.jpg", ""]])
    call(build.main, monkeypatch, "--test_csv", test, "--wide", *catalogue.arguments())
    rows = pq.read_table(tmp_path / "out" / "rows" / "test.parquet").to_pylist()
    assert [(row["index"], row["image_link"], row["entity_name"], row["entity_value"]) for row in rows] == [
        (21, "0.jpg", "size", ""), (22, "0.jpg", "colour", ""), (23, "0.jpg", "material", ""),
        (9, "1.jpg", "size", ""), (10, "1.jpg", "colour", ""), (11, "1.jpg", "material", ""),
    ]  # fmt: skip


def test_columns_may_have_other_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = Catalogue(tmp_path, "clothes")
    table = write_csv(tmp_path / "products.csv", ["photo_url", "Farbe, außen", "size", "material", "sku", "category"],
                      [["0.jpg", "navy", "M", "", 40, "shirts"], ["1.jpg", "", "", "Wool", 20, "socks"]])  # fmt: skip
    columns = 'image_link=photo_url,"colour=Farbe, außen",group_id=category, index=sku'
    arguments = ["--train_csv", table, "--wide", "--columns", columns, "--validation_size", "0"]
    call(build.main, monkeypatch, *arguments, *catalogue.arguments())
    rows = pq.read_table(tmp_path / "out" / "rows" / "train.parquet").to_pylist()
    assert [tuple(row[name] for name in ("index", "group_id", "entity_name", "entity_value")) for row in rows] == [
        (120, "shirts", "size", "M"), (121, "shirts", "colour", "navy blue"), (62, "socks", "material", "wool"),
    ]  # fmt: skip
    written = json.loads((tmp_path / "out" / "build.json").read_text())["layout"]["columns"]
    assert parse_columns(written) == parse_columns(columns)
    assert f"--columns '{written}'" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_wide_table_and_a_long_one_are_read_in_one_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """With `--wide`, the table with a column entity_name is the long one."""
    catalogue, folder = Catalogue(tmp_path, name), tmp_path / "out"
    asked = [(number, catalogue.photos[number % 3], catalogue.columns[number % 2]) for number in range(5)]
    long = write_csv(tmp_path / "asked.csv", ["sku", "image_link", "entity_name"], [list(row) for row in asked])
    arguments = ["--wide", "--validation_size", "0", *catalogue.arguments()]
    tables = ["--train_csv", catalogue.write_wide(), "--test_csv", long, "--columns", "index=sku"]
    call(build.main, monkeypatch, *tables, *arguments)
    train, test = (pq.read_table(folder / "rows" / f"{split}.parquet").to_pylist() for split in ("train", "test"))
    assert {(row["image_link"][0], row["entity_name"], row["entity_value"]) for row in train} == LABELS[name][0]
    assert [(row["index"], row["image_link"], row["entity_name"]) for row in test] == asked

    wide = write_csv(tmp_path / "test.csv", ["image_link"], [["2.jpg"], ["0.jpg"]])
    call(
        build.main,
        monkeypatch,
        "--train_csv",
        catalogue.write_long(),
        "--test_csv",
        wide,
        *arguments[:1],
        *arguments[3:],
    )
    train, test = (pq.read_table(folder / "rows" / f"{split}.parquet").to_pylist() for split in ("train", "test"))
    names = parse_schema(SCHEMAS[name], name="s").names
    assert {(row["image_link"][0], row["entity_name"], row["entity_value"]) for row in train} >= {
        label for label in LABELS[name][0] if label[2]
    }
    assert [(row["image_link"], row["entity_name"]) for row in test] == [
        (photo, attribute) for photo in ("2.jpg", "0.jpg") for attribute in names
    ]


def test_the_challenges_rows_under_other_names_are_the_same_rows(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--image_dir", shop.image_dir, "--validation_size", "0.25"]
    call(build.main, monkeypatch, "--train_csv", shop.train_csv, *options, "--output_dir", shop.folder / "a" / "out")
    names = {name: f"my {name}" for name in TRAIN_COLUMNS}
    write_csv(shop.train_csv, list(names.values()), shop.train_rows)
    call(build.main, monkeypatch, "--train_csv", shop.train_csv, *options, "--output_dir", shop.folder / "b" / "out",
         "--columns", format_columns(names))  # fmt: skip
    assert contents(shop.folder / "a" / "out") == contents(shop.folder / "b" / "out")


def test_another_layout_is_another_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue = Catalogue(tmp_path, "clothes")
    table = write_csv(tmp_path / "products.csv", ["image_link", "size", "colour", "colour2", "material"],
                      [["0.jpg", "M", "navy", "black", "wool"], ["1.jpg", "L", "black", "cream", "wool"]])  # fmt: skip
    arguments = ["--train_csv", table, "--wide", *catalogue.arguments()]
    call(build.main, monkeypatch, *arguments)
    call(build.main, monkeypatch, *arguments)
    assert "unchanged" in capsys.readouterr().out
    call(build.main, monkeypatch, *arguments, "--columns", "colour=colour2")
    assert "unchanged" not in capsys.readouterr().out
    assert ("0", "colour", "black") in labels_of(tmp_path / "out")
    call(build.main, monkeypatch, *arguments, "--columns", "colour=colour2")
    assert "unchanged" in capsys.readouterr().out


REFUSED: list[tuple[list[str], str, str]] = [
    (["--wide"], "image_link,size,colour\n0.jpg,M,navy\n",
     r"products\.csv: no column material; expected image_link, size, colour, material, found image_link, size, "
     "colour; name the column of an attribute with --columns material=COLUMN, or remove it from the schema"),
    (["--wide"], "photo,size,colour,material\n0.jpg,M,navy,wool\n", "no column image_link; .* name other columns with "
                                                                    "--columns image_link=COLUMN"),
    (["--wide", "--columns", "image_link=url"], "photo,size,colour,material\n0.jpg,M,navy,wool\n",
     r"no column url \(image_link\); expected url \(image_link\), size"),
    (["--wide"], "image_link,entity_name,size,colour,material\n0.jpg,n,M,navy,wool\n",
     r"products\.csv: no column entity_value; expected image_link, entity_name, entity_value, found"),
    ([], "image_link,size,colour,material\n0.jpg,M,navy,wool\n", "one column per attribute, set --wide"),
    (["--wide"], "image_link,size,colour,material\n0.jpg,,,\n", "a header but no value in a column of an attribute"),
    (["--wide"], "image_link,size,colour,material\n", "a header but no rows"),
    (["--wide"], "image_link,size,size,colour,material\n0.jpg,M,L,navy,wool\n", "has 2 columns size; rename"),
    (["--wide"], "index,image_link,size,colour,material\n1,0.jpg,M,,\n1,1.jpg,M,,\n",
     r"line 3: duplicate index 1 \(first seen on line 2\)"),
    (["--wide"], "index,image_link,size,colour,material\n9000000000000000000,0.jpg,M,,\n", "line 2: index must be"),
    (["--wide"], f"image_link,size,colour,material\n0.jpg,M,navy,{'w' * 1001}\n",
     "line 2: material has 1001 characters, more than 1000"),
    (["--wide"], "image_link,size,colour,material\n0.jpg,M\n", "line 2: has 2 fields, but the header has 4"),
    (["--columns", "colour=Farbe"], "", r"--columns: unknown 'colour' \(attributes have columns with --wide only\)"),
    (["--wide", "--columns", "Colour=n"], "", "--columns: unknown 'Colour'; choose from index, .*, material"),
    (["--columns", "image_link"], "", "--columns: 'image_link' is not FIELD=COLUMN, such as image_link=photo_url"),
    (["--columns", "index=a,index=b"], "", "--columns: 'index' occurs twice"),
    (["--columns", '"index=a'], "", "--columns .*write image_link=photo_url"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "content", "message"), REFUSED, ids=[case[2][:40] for case in REFUSED])
def test_a_table_that_cannot_be_read_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], content: str, message: str
) -> None:
    catalogue = Catalogue(tmp_path, "clothes")
    (tmp_path / "products.csv").write_text(content or "image_link,entity_name,entity_value\n0.jpg,size,M\n")
    arguments: list[Any] = ["--train_csv", tmp_path / "products.csv", *options, *catalogue.arguments()]
    with pytest.raises(InputError, match=message):
        call(build.main, monkeypatch, *arguments)
    assert not (tmp_path / "out").exists()


def test_a_link_is_a_path_in_the_folder_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = Catalogue(tmp_path, "clothes")
    for number, name in enumerate(["shirts/1.jpg", "socks/1.jpg", "socks/a#b.jpg"]):
        (catalogue.image_dir / name).parent.mkdir(exist_ok=True)
        (catalogue.image_dir / name).write_bytes(jpeg(10 + number))
    (tmp_path / "secret.jpg").write_bytes(jpeg(20))
    links = ["shirts/1.jpg", "socks/1.jpg", "socks/a#b.jpg", "https://shop.example/x/0.jpg", "other/2.jpg",
             "../secret.jpg", "socks/../../secret.jpg", str(tmp_path / "secret.jpg")]  # fmt: skip
    table = write_csv(tmp_path / "rows.csv", ["image_link", "entity_name", "entity_value"],
                      [[link, "size", "M"] for link in links[:6]])  # fmt: skip
    options = ["--train_csv", table, "--validation_size", "0", *catalogue.arguments()]
    call(build.main, monkeypatch, *options)
    stored = {row["image_link"]: row["image"]["bytes"]
              for row in pq.read_table(tmp_path / "out" / "data").to_pylist()}  # fmt: skip
    assert stored == dict(zip(links[:5], [jpeg(10), jpeg(11), jpeg(12), jpeg(0), jpeg(2)], strict=True))
    for link in links[5:]:
        write_csv(table, ["image_link", "entity_name", "entity_value"], [[link, "size", "M"]])
        with pytest.raises(InputError, match=r"none of the 1 images could be loaded .*image_missing.* must be a path"):
            call(build.main, monkeypatch, *options)


def test_products_without_a_group_are_not_taken_for_one(tmp_path: Path) -> None:
    """Neighbours of the same group, attribute and label are probably one product; an empty group says nothing."""
    images = tmp_path / "images"
    images.mkdir()
    for number in range(20):
        (images / f"{number}.jpg").write_bytes(jpeg(number))
    schema = tmp_path / "s.yaml"
    schema.write_text(SCHEMAS["clothes"])
    rows = [[f"{number}.jpg", "size", "M"] for number in range(20)]
    table = write_csv(tmp_path / "rows.csv", ["image_link", "entity_name", "entity_value"], rows)
    builder = ProductVqa(train_csv=table, schema=schema, image_dir=images, validation_size=0.25,
                         cache_dir=tmp_path / "cache")  # fmt: skip
    builder.download_and_prepare()
    assert builder.as_dataset()["validation"].num_rows == 5
