import gzip
from collections import Counter
from pathlib import Path

import pytest

from dataset_builder.label_table import MAX_COLUMNS, MAX_LABEL_LENGTH
from product_vqa.errors import InputError
from product_vqa.tables.layout import Layout
from tests.dataset_builder.challenge import read_label_table
from tests.dataset_builder.files import TRAIN_COLUMNS, write_csv


def test_a_long_table_has_a_label_in_each_row(tmp_path: Path) -> None:
    rows: list[list[object]] = [
        ["l1", 1, "colour", " red "],
        ["l2", 1, "size", "M"],
        ["l3", 1, "colour", "red"],
        ["l4", 1, "colour", ""],
    ]
    file = tmp_path / "labels.csv.gz"
    file.write_bytes(gzip.compress(write_csv(tmp_path / "labels.csv", TRAIN_COLUMNS, rows).read_bytes()))
    table = read_label_table(file)
    assert (table.name, table.num_rows) == ("labels.csv.gz", 4)
    assert list(table.labels.items()) == [("colour", Counter({"red": 2})), ("size", Counter({"M": 1}))]
    assert dict(table.num_missing) == {"colour": 1}


def test_a_wide_table_has_a_column_for_each_attribute(tmp_path: Path) -> None:
    header = ["", "index", "image_link", "group_id", "colour", "size"]
    rows: list[list[object]] = [[0, 7, "l1", "g", "red", ""], [1, 8, "l2", "g", "blue", "M"]]
    table = read_label_table(write_csv(tmp_path / "wide.csv", header, rows), layout=Layout(is_wide=True))
    assert table.labels == {"colour": Counter(red=1, blue=1), "size": Counter(M=1)}
    assert dict(table.num_missing) == {"size": 1}


def test_columns_get_our_names(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "t.csv", ["photo_url", "Colour, main", "Größe"], [["l", "red", "M"]])
    layout = Layout.of(wide=True, columns='image_link=photo_url, "colour=Colour, main"')
    assert read_label_table(file, layout=layout).labels == {"colour": Counter(red=1), "Größe": Counter(M=1)}
    layout = Layout.of(wide=False, columns='"entity_name=Colour, main",entity_value=Größe')
    assert read_label_table(file, layout=layout).labels == {"red": Counter(M=1)}


@pytest.mark.parametrize(
    ("content", "wide", "columns", "message"),
    [
        ("", False, {}, "is empty"),
        ("entity_name,entity_value\n", False, {}, "has a header but no rows"),
        ("entity_name,value\nsize,M\n", False, {}, "no column entity_value, found .*=value; or set `wide`"),
        ("image_link;size\nl;M\n", True, {}, "columns are separated by semicolons, .*; save it with commas"),
        ("photo,size\nl,M\n", True, {}, "no column image_link, found photo, size; .* image_link=size"),
        ("image_link,size\nl,M\n", True, {"size": "Size"}, r"no column Size, found image_link, size; name it"),
        ("image_link,size,size\nl,M,L\n", True, {}, "has 2 columns size"),
        ("image_link,size,Size\nl,M,L\n", True, {"size": "Size"}, "has 2 columns size"),
        ("image_link,size\nl,M,L\n", True, {}, "line 2: has 3 fields, but the header has 2"),
        ('image_link,size\nl,"M\nl,L\n', True, {}, "lines 2 to 3: not a valid CSV .*is a double quote never closed"),
        ("image_link,group_id\nl,1\n", True, {}, "has no column of an attribute, found image_link, group_id"),
        (",".join(["image_link", *map(str, range(MAX_COLUMNS))]), True, {}, "has 1001 columns, more than 1000"),
        (
            "entity_name,entity_value\n" + "".join(f"a{number},M\n" for number in range(MAX_COLUMNS + 1)),
            False, {}, "more than 1000 attributes in entity_name",
        ),
    ],
)  # fmt: skip
def test_other_tables_are_refused(
    tmp_path: Path, content: str, wide: bool, columns: dict[str, str], message: str
) -> None:
    file = tmp_path / "table.csv"
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        read_label_table(file, layout=Layout(wide, columns))


def test_a_file_that_is_not_a_csv_is_named(tmp_path: Path) -> None:
    (tmp_path / "bytes.csv").write_bytes(b"entity_name,entity_value\nsize,\xff\n")
    with pytest.raises(InputError, match=r"`train_csv` .*bytes.csv, after line [0-9]: not UTF-8 text"):
        read_label_table(tmp_path / "bytes.csv")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"entity_name,entity_value\n" * 9)[:-9])
    with pytest.raises(InputError, match=r"cut.csv.gz: broken gzip"):
        read_label_table(tmp_path / "cut.csv.gz")


def test_long_texts_are_cut(tmp_path: Path) -> None:
    rows: list[list[object]] = [["l", "x" * 5000], ["l", "x" * 6000]]
    table = read_label_table(
        write_csv(tmp_path / "t.csv", ["image_link", "description"], rows), layout=Layout(is_wide=True)
    )
    assert table.labels == {"description": Counter({"x" * (MAX_LABEL_LENGTH + 1): 2})}
