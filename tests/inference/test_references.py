"""References and predictions, joined by index; what cannot be joined is named."""

import re
from pathlib import Path

import pandas as pd
import pytest

from inference.references import find_schema
from product_vqa.errors import InputError
from product_vqa.tables.layout import Layout
from product_vqa.task.schema import CHALLENGE
from product_vqa.task.schema_file import format_schema, parse_schema
from tests.inference.challenge import join, read_entities, read_references
from tests.inference.schemas import SCHEMAS, TEXTS
from tests.inference.tables import write_clothes, write_labels, write_predictions
from tests.tiny import save_dataset


def test_rows_are_numbered_if_there_is_no_index(tmp_path: Path) -> None:
    table = join(write_predictions(tmp_path, "2,100.0 volt\n"), write_labels(tmp_path))
    assert list(table["index"]) == [0, 1, 2, 3]
    assert list(table["prediction"]) == ["", "", "100.0 volt", ""]
    assert list(table["reference"])[:2] == ["10 gram", "500.0 gram"]
    assert table["confidence"].isna().all()


def test_rows_are_joined_by_index_if_there_is_one(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("index,entity_name,entity_value\n70,width,1.0 inch\n30,width,2.0 inch\n")
    table = join(write_predictions(tmp_path, "30,2.0 inch\n70,1.0 inch\n"), labels)
    assert list(table["prediction"]) == list(table["reference"]) == ["1.0 inch", "2.0 inch"]
    assert list(table["image_link"]) == ["70", "30"]  # an image per row
    assert list(table["group_id"]) == ["", ""]


def test_a_split_of_a_dataset_has_references(tiny_dataset: Path) -> None:
    table = read_references(f"{tiny_dataset}:validation")
    assert list(table.columns) == ["index", "entity_name", "image_link", "group_id", "reference"]
    assert list(table["index"]) == list(range(1000, 1008))
    assert table["reference"][0] == "500 gram"  # the raw label
    assert list(read_entities(f"{tiny_dataset}:validation")) == list(table["entity_name"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("index\n1\n", "`weights` .*test.csv has no column entity_name"),
        ("entity_name\ncolour\n", "`weights` .*test.csv: unknown entity_name 'colour'"),
        ("entity_name\n", "`weights` .*test.csv has no rows"),
        (None, "`weights` .*test.csv: no such file"),
    ],
)
def test_weights_that_cannot_be_used_are_named(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "test.csv"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=message):
        read_entities(str(file))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("7,1.0 gram\n", r"1 of 1 indexes, for example 7, are not in"),
        ("0,1.0 gram\n0,2.0 gram\n", r"line 3: duplicate index 0 \(first seen on line 2\)"),
        ("zero,1.0 gram\n", "line 2: index 'zero' is not an integer"),
    ],
)
def test_an_unknown_or_repeated_index_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        join(write_predictions(tmp_path, text), write_labels(tmp_path))


@pytest.mark.parametrize(
    ("references", "message"),
    [
        ("none.csv", "`references` none.csv: no such file"),
        ("user/name", "is neither a CSV file nor a split"),
        ("./none:test", "`references` ./none: no such folder"),
    ],
)
def test_references_that_are_not_there_are_named(tmp_path: Path, references: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        join(write_predictions(tmp_path, "0,\n"), references)


def test_references_without_rows_are_refused(tmp_path: Path) -> None:
    """Their F1 would be 0, whatever the predictions."""
    (tmp_path / "labels.csv").write_text("index,entity_name,entity_value\n")
    with pytest.raises(InputError, match=r"`references` .*labels.csv has no rows"):
        join(write_predictions(tmp_path, ""), tmp_path / "labels.csv")


def test_confidences_come_along(tmp_path: Path) -> None:
    table = pd.DataFrame({"index": [0, 1], "prediction": ["10 gram", ""], "confidence": [0.5, None]})
    table.to_parquet(tmp_path / "p.parquet")
    joined = join(tmp_path / "p.parquet", write_labels(tmp_path))
    assert joined["confidence"][0] == 0.5
    assert joined["confidence"][1:].isna().all()


@pytest.mark.parametrize("name", ["x.zip", "x.csv.xz", "x.CSV", "x.gz"])
def test_a_compressed_csv_that_does_not_exist_is_not_taken_for_a_dataset(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=rf"`weights` .*{re.escape(name)}: no such file"):
        read_entities(str(tmp_path / name))


def test_labels_of_another_schema_are_in_canonical_form_where_they_have_one(tmp_path: Path) -> None:
    labels, _ = write_clothes(tmp_path, TEXTS["clothes"])
    table = join(write_predictions(tmp_path, "3,NA\n"), labels, schema=SCHEMAS["clothes"])
    assert list(table["reference"]) == ["S", "navy blue", "cotton, wool", "NA", "", "polyester"]
    assert list(table["prediction"]) == ["", "", "", "NA", "", ""]  # which pandas would read as missing


def test_wide_labels_are_the_same_references(tmp_path: Path) -> None:
    """A row for each value; its index is product * 3 + the number of the attribute, as in a dataset."""
    (tmp_path / "wide.csv").write_text("photo,size,material,Farbe,group_id\na,small,wool & cotton,NAVY,1\nb,NA,,,2\n")
    columns = {"image_link": "photo", "colour": "Farbe"}
    rows = read_references(str(tmp_path / "wide.csv"), schema=SCHEMAS["clothes"], layout=Layout(True, columns))
    assert rows.to_numpy().tolist() == [
        [0, "size", "a", "1", "S"], [1, "colour", "a", "1", "navy blue"], [2, "material", "a", "1", "cotton, wool"],
        [3, "size", "b", "2", "NA"],
    ]  # fmt: skip
    asked = read_entities(str(tmp_path / "wide.csv"), schema=SCHEMAS["clothes"], layout=Layout(True, columns))
    assert list(asked) == ["size", "colour", "material"] * 2


def test_labels_of_another_schema_than_the_given_one_are_named(tmp_path: Path) -> None:
    labels, _ = write_clothes(tmp_path, TEXTS["clothes"])
    message = r"`references` .*clothes.csv, line 2: unknown entity_name 'size'; expected one of energy, fat"
    with pytest.raises(InputError, match=message):
        read_references(str(labels), schema=SCHEMAS["nutrition"])
    with pytest.raises(InputError, match=r"`weights` .*clothes.csv, line 2: unknown entity_name 'size'; expected one"):
        read_entities(str(labels), schema=SCHEMAS["nutrition"])


def test_a_schema_is_found_with_the_labels(tmp_path: Path, tiny_dataset: Path) -> None:
    labels, file = write_clothes(tmp_path, TEXTS["clothes"])
    assert find_schema(labels) == CHALLENGE
    assert find_schema(labels, file=str(file)) == SCHEMAS["clothes"]
    assert find_schema(f"{tiny_dataset}:validation") == CHALLENGE
    with pytest.raises(
        InputError, match=r"`schema` .*none.yaml cannot be read as a schema \(No such file or directory\)"
    ):
        find_schema(labels, file=str(tmp_path / "none.yaml"))


def test_the_schema_of_a_dataset_counts(tmp_path: Path) -> None:
    """Its labels are normalized by it: `500 gram` has decimals there, and here it has none."""
    dataset = save_dataset(tmp_path / "dataset")
    text = format_schema(CHALLENGE).replace("item_weight: {", "item_weight: {decimals: 0, ")
    own = parse_schema(text, name="schema.yaml")
    assert own != CHALLENGE
    (dataset / "schema.yaml").write_text(text)
    schema = find_schema(f"{dataset}:validation")
    assert schema == own
    assert read_references(f"{dataset}:validation", schema=schema)["reference"][0] == "500 gram"
    assert find_schema(f"{dataset}:validation", file=str(dataset / "schema.yaml")) == own
    (tmp_path / "other.yaml").write_text(TEXTS["clothes"])
    with pytest.raises(InputError, match=r"`schema` .*other.yaml differs from the schema of .*, which counts \(width"):
        find_schema(f"{dataset}:validation", file=str(tmp_path / "other.yaml"))
    (dataset / "schema.yaml").write_text("version: 2\nattributes: {}\n")
    with pytest.raises(InputError, match=r"`references` .*schema.yaml, line 1: .*'2' is not a version"):
        find_schema(f"{dataset}:validation")
