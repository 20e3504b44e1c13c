import csv
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from dataset_builder import build
from product_vqa.task.schema_file import format_schema, parse_schema
from quickstart.rendering.drawing import SIZE
from quickstart.rendering.levels import HARD, PLAIN
from quickstart.rendering.schema_writer import write_schema_labels
from tests.commands import call
from tests.example_schemas import FOLDER, SCHEMAS

# A pack may show no serving size and no salt, and a table says the latter by an empty cell.
NUTRITION = parse_schema(
    (FOLDER / "nutrition.yaml")
    .read_text()
    .replace("  salt: {", "  salt: {not_shown: true, missing_is_not_shown: true, "),
    name="nutrition.yaml",
)


def write(folder: Path, name: str | None = None, *, rows: int = 60, seed: int = 5, wide: bool = False) -> Path:
    write_schema_labels(
        folder, schema=SCHEMAS[name] if name else NUTRITION, train_rows=rows, test_rows=rows, seed=seed, level=PLAIN, base_url="http://x/i/",
        wide=wide,
    )  # fmt: skip
    return folder


def read(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("long"), rows=180)


@pytest.mark.parametrize("name", SCHEMAS)
def test_all_labels_normalize_and_all_references_are_canonical(name: str, tmp_path: Path) -> None:
    schema, checked = SCHEMAS[name], 0
    write(tmp_path, name)
    for row in read(tmp_path / "train.csv"):
        assert schema[row["entity_name"]].normalize(row["entity_value"]) is not None
        checked += 1
    for row in read(tmp_path / "test_answers.csv"):
        assert schema[row["entity_name"]].is_valid(row["entity_value"])
        checked += 1
    assert checked == 120


def test_a_long_table_has_the_challenges_columns_and_equal_shares(long: Path) -> None:
    train, test, answers = (read(long / name) for name in ("train.csv", "test.csv", "test_answers.csv"))
    assert list(train[0]) == ["image_link", "group_id", "entity_name", "entity_value"]
    assert list(test[0]) == ["index", "image_link", "group_id", "entity_name"]
    assert list(answers[0]) == ["index", "entity_name", "entity_value"]
    assert [row["index"] for row in test] == [row["index"] for row in answers]
    for rows in (train, test):
        assert len(rows) == 180
        shares = Counter(row["entity_name"] for row in rows)
        assert set(shares) == set(NUTRITION.names)
        assert max(shares.values()) - min(shares.values()) <= 2
    links = {row["image_link"] for row in train + test}
    assert links == {f"http://x/i/{file.name}" for file in (long / "images").iterdir()}
    assert not {row["image_link"] for row in train} & {row["image_link"] for row in test}
    with Image.open(next((long / "images").iterdir())) as image:
        assert (image.format, image.size) == ("JPEG", (SIZE, SIZE))


def test_only_attributes_with_not_shown_have_empty_answers(long: Path) -> None:
    for name in ("train.csv", "test_answers.csv"):
        empty = Counter(row["entity_name"] for row in read(long / name) if not row["entity_value"])
        assert set(empty) == {"serving_size", "salt"}
        assert all(1 <= count <= 10 for count in empty.values())  # of 20


def test_a_wide_table_has_a_row_per_image_and_a_column_per_attribute(tmp_path: Path) -> None:
    write(tmp_path, wide=True)
    train = read(tmp_path / "train.csv")
    assert list(train[0]) == ["image_link", "group_id", *NUTRITION.names]
    assert len({row["image_link"] for row in train}) == len(train)
    labels = [(name, row[name]) for row in train for name in NUTRITION.names if row[name] or name == "salt"]
    shares = Counter(name for name, _ in labels)
    # A missing value of salt means that it is not shown: it is asked of every image, on top of the rows of the others.
    assert shares.pop("salt") == len(train) and 0 < Counter(labels)["salt", ""] < len(train) / 2
    assert set(shares) == set(NUTRITION.names) - {"salt"} and 58 <= shares.total() < 64
    assert max(shares.values()) - min(shares.values()) <= 2
    for name, value in labels:
        assert NUTRITION[name].normalize(value) or name == "salt"
    # A missing serving size makes no row, so no label says that it is not shown.
    empty = {row["entity_name"] for row in read(tmp_path / "test_answers.csv") if not row["entity_value"]}
    assert empty == {"salt"}


def test_a_wide_table_whose_attributes_are_all_asked_of_every_image_ends(tmp_path: Path) -> None:
    attributes = "\n".join(
        f"  {name}: {{kind: yes_no, not_shown: true, missing_is_not_shown: true}}" for name in ("vegan", "organic")
    )
    schema = parse_schema(f"version: 1\nattributes:\n{attributes}\n", name="labels.yaml")
    write_schema_labels(
        tmp_path, schema=schema, train_rows=20, test_rows=0, level=PLAIN, base_url="http://x", wide=True
    )
    assert 10 <= len(read(tmp_path / "train.csv")) <= 20


def test_a_wide_train_csv_and_a_long_test_csv_make_one_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the quickstart builds it, but from the folder of images."""
    write(tmp_path, wide=True)
    schema, out = tmp_path / "schema.yaml", tmp_path / "out"
    schema.write_text(format_schema(NUTRITION))
    tables = ("--train_csv", tmp_path / "train.csv", "--test_csv", tmp_path / "test.csv", "--wide", "--schema", schema)
    images = ("--image_dir", tmp_path / "images", "--output_dir", out, "--validation_size", "0")
    call(build.main, monkeypatch, *tables, *images)
    train, test = (pq.read_table(out / "rows" / f"{split}.parquet").to_pylist() for split in ("train", "test"))
    asked_of_every_image = sum(row["entity_name"] == "salt" for row in train)
    assert 58 <= len(train) - asked_of_every_image < 64 and len(test) == 60
    assert (out / "left_out.csv").read_text().count("\n") == 1  # the header: every label has a canonical form
    assert {row["entity_name"] for row in train if not row["entity_value"]} == {"salt"}
    asked = [(row["index"], row["entity_name"]) for row in read(tmp_path / "test.csv")]
    assert [(str(row["index"]), row["entity_name"]) for row in test] == asked


def test_a_few_attributes_and_rows_are_enough(tmp_path: Path) -> None:
    schema = parse_schema("version: 1\nattributes: {new: {kind: yes_no, not_shown: true}}", name="schema.yaml")
    write_schema_labels(tmp_path, schema=schema, train_rows=12, test_rows=0, level=HARD, base_url="http://x")
    assert {row["entity_value"] for row in read(tmp_path / "train.csv")} == {"yes", "no", ""}
    assert read(tmp_path / "test.csv") == []


def test_the_same_seed_writes_the_same_files(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write(tmp_path / name, "electronics", rows=12, seed=seed)
    files = {
        name: {str(file.relative_to(tmp_path / name)): file.read_bytes() for file in (tmp_path / name).rglob("*.*")}
        for name in "abc"
    }
    assert files["a"] == files["b"]
    assert len(files["a"]) > 12
    assert files["a"]["train.csv"] != files["c"]["train.csv"]
