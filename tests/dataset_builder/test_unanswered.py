"""Questions without an answer, through the command."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_builder import ProductVqa, build
from product_vqa.errors import InputError
from product_vqa.hub import Location
from product_vqa.schemas import load_schema
from product_vqa.task.schema import CHALLENGE, is_challenge
from tests.commands import call
from tests.dataset_builder.files import TEST_COLUMNS, TRAIN_COLUMNS, jpeg, write_csv

ENTITIES = ("width", "height", "item_weight")
UNITS = {"width": "inch", "height": "inch", "item_weight": "gram"}


class Catalogue:
    """Forty images with one label each about three attributes in turn, one in ten of them with two."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.images = folder, folder / "images"
        self.images.mkdir()
        self.rows: list[list[object]] = []
        for number in range(40):
            (self.images / f"{number}.jpg").write_bytes(jpeg(number))
            names = [ENTITIES[number % 3], *([ENTITIES[(number + 1) % 3]] if number % 10 == 0 else [])]
            self.rows += [[f"{number}.jpg", "g", name, f"{number + 1} {UNITS[name]}"] for name in names]

    def build(self, monkeypatch: pytest.MonkeyPatch, *more: object, name: str = "out") -> Path:
        file = write_csv(self.folder / "train.csv", TRAIN_COLUMNS, self.rows)
        call(build.main, monkeypatch, "--train_csv", file, "--image_dir", self.images, "--output_dir",
             self.folder / name, "--validation_size", "0.25", *more)  # fmt: skip
        return self.folder / name


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path)


def read(folder: Path) -> pd.DataFrame:
    frames = [pd.read_parquet(file).assign(split=file.stem) for file in sorted((folder / "rows").iterdir())]
    return pd.concat(frames, ignore_index=True)


def test_the_share_of_each_attribute_and_labelled_split_is_empty(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = read(catalogue.build(monkeypatch, name="plain"))
    capsys.readouterr()
    folder = catalogue.build(monkeypatch, "--unanswered", "0.4", "--unanswered_from", "labels")
    printed = capsys.readouterr().out
    rows = read(folder)
    answered, empty = rows[rows["entity_value"] != ""], rows[rows["entity_value"] == ""]
    pd.testing.assert_frame_equal(answered.reset_index(drop=True), plain)  # the split is the same
    for (split, name), own in answered.groupby(["split", "entity_name"]):
        added = empty[(empty["split"] == split) & (empty["entity_name"] == name)]
        assert len(added) == round(len(own) * 0.4 / 0.6) > 0
        assert f"{name} {len(added)}" in printed
    asked = {(str(row[0]), str(row[2])) for row in catalogue.rows}
    pairs = list(zip(empty["image_link"], empty["entity_name"], strict=True))
    assert len(set(pairs)) == len(pairs) and not set(pairs) & asked
    assert set(empty["index"]) == set(range(44, 44 + len(empty))) and (empty["entity_value_raw"] == "").all()
    split_of = dict(zip(answered["image_link"], answered["split"], strict=True))
    assert all(split_of[link] == split for link, split in zip(empty["image_link"], empty["split"], strict=True))

    schema = load_schema(Location(str(folder)))
    assert schema.not_shown == tuple(name for name in CHALLENGE.names if name in ENTITIES) and is_challenge(schema)
    manifest = json.loads((folder / "build.json").read_text())
    counts = {split: dict(Counter(own["entity_name"])) for split, own in empty.groupby("split")}
    assert manifest["unanswered"] == {"share": 0.4, "from": "labels", "rows": counts, "first_index": 44}
    card = (folder / "README.md").read_text()
    assert "--unanswered 0.4 --unanswered_from labels" in card and "index from 44 on are not in the CSV" in card
    assert "\n\n\n" not in card and f"| width | {counts['train']['width']} | {counts['validation']['width']} |" in card
    assert not (catalogue.folder / "plain" / "schema.yaml").exists()
    assert "unanswered" not in (catalogue.folder / "plain" / "build.json").read_text()


def test_the_same_seed_adds_the_same_questions_in_whatever_order_the_rows_are(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def questions(folder: Path) -> set[tuple[Any, ...]]:
        rows = read(folder)
        empty = rows[rows["entity_value"] == ""]
        return set(zip(empty["split"], empty["image_link"], empty["entity_name"], strict=True))

    options = ["--unanswered", "0.3", "--unanswered_from", "labels"]
    first = questions(catalogue.build(monkeypatch, *options))
    catalogue.build(monkeypatch, *options)
    assert "unchanged" in capsys.readouterr().out
    assert "--unanswered 0.3" in (catalogue.folder / "out" / "README.md").read_text()
    other = questions(catalogue.build(monkeypatch, *options, "--seed", "1", name="seed"))
    random.Random(0).shuffle(catalogue.rows)
    assert questions(catalogue.build(monkeypatch, *options, name="shuffled")) == first != other
    catalogue.build(monkeypatch, "--unanswered", "0.2", "--unanswered_from", "labels", name="shuffled")
    assert len(questions(catalogue.folder / "shuffled")) < len(first)  # another share: built again


def test_what_an_unreadable_label_or_a_related_image_or_a_test_row_asks_for_is_not_added(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue.rows = catalogue.rows[:9]  # images 0 to 7, and image 0 twice
    (catalogue.images / "copy.jpg").write_bytes(jpeg(3))
    (catalogue.images / "grouped.jpg").write_bytes(jpeg(99))
    catalogue.rows += [
        ["1.jpg", "g", "item_weight", "[1.0, 2.0] gram"],  # printed on it, but a range
        ["copy.jpg", "g", "height", "7 inch"],  # the same image as 3.jpg
        ["grouped.jpg", "of its own", "width", "8 inch"],  # its group is asked for nothing else
    ]
    test = write_csv(catalogue.folder / "test.csv", TEST_COLUMNS, [[5, "2.jpg", "g", "height"]])
    folder = catalogue.build(
        monkeypatch, "--unanswered", "0.9", "--unanswered_from", "labels", "--test_csv", test, "--validation_size", "0"
    )
    rows = read(folder)
    empty = rows[(rows["entity_value"] == "") & (rows["split"] == "train")]
    found = {
        (link.removesuffix(".jpg"), name) for link, name in zip(empty["image_link"], empty["entity_name"], strict=True)
    }
    assert ("1", "item_weight") not in found and ("2", "height") not in found
    assert not found & {("3", "height"), ("copy", "width"), ("grouped", "height"), ("grouped", "item_weight")}
    assert len(found & {("3", "item_weight"), ("copy", "item_weight")}) == 1  # one of two equal images
    assert {("2", "width"), ("1", "width"), ("4", "width"), ("5", "width"), ("5", "height")} <= found


def test_a_file_of_probabilities_decides_where_it_is_sure(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [(f"{number}.jpg", "height", number / 40) for number in range(0, 40, 3)]
    table = pd.DataFrame(
        [*given, ("3.jpg", "height", 0.9), ("6.jpg", "height", None)], columns=["image_link", "entity_name", "shown"]
    )
    files = {"shown.csv": table, "shown.parquet": table}
    table.to_csv(catalogue.folder / "shown.csv", index=False)
    pq.write_table(pa.Table.from_pandas(table.assign(prediction="x")), catalogue.folder / "shown.parquet")
    for name in files:
        folder = catalogue.build(
            monkeypatch, "--unanswered", "0.5", "--unanswered_from", catalogue.folder / name, "--unanswered_below",
            "0.3", name=f"from {name}",
        )  # fmt: skip
        rows = read(folder)
        empty = rows[rows["entity_value"] == ""]
        # 0.jpg is asked for its height; 3.jpg is shown with 0.9 too; from 12 on, the probability is 0.3 and more.
        assert set(zip(empty["image_link"], empty["entity_name"], strict=True)) == {
            ("6.jpg", "height"),
            ("9.jpg", "height"),
        }
        manifest = json.loads((folder / "build.json").read_text())["unanswered"]
        assert (manifest["from"], manifest["below"]) == (name, 0.3) and len(manifest["sha256"]) == 64
        assert str(catalogue.folder) not in (folder / "build.json").read_text()
        assert "--unanswered_below 0.3" in (folder / "README.md").read_text()
        assert load_schema(Location(str(folder))).not_shown == ("height",)
    content = (catalogue.folder / "shown.csv").read_text()
    (catalogue.folder / "shown.csv").write_text(content.replace("6.jpg,height,0.15", "6.jpg,height,0.5"))
    folder = catalogue.build(
        monkeypatch, "--unanswered", "0.5", "--unanswered_from", catalogue.folder / "shown.csv", "--unanswered_below",
        "0.3", name="from shown.csv",
    )  # fmt: skip
    assert list(read(folder).query("entity_value == ''")["image_link"]) == ["9.jpg"]  # the file has changed


def test_empty_labels_say_it_themselves_and_those_beyond_the_share_are_dropped(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    stated: list[list[object]] = [[f"{number}.jpg", "g", ENTITIES[(number + 2) % 3], ""] for number in range(40)]
    catalogue.rows += stated
    plain = catalogue.build(monkeypatch, name="plain")
    assert (read(plain)["entity_value"] != "").all()  # without the option, they are labels that cannot be read
    folder = catalogue.build(monkeypatch, "--unanswered", "0.25")
    rows = read(folder)
    empty = rows[rows["entity_value"] == ""]
    for (split, name), own in rows[rows["entity_value"] != ""].groupby(["split", "entity_name"]):
        kept = ((empty["split"] == split) & (empty["entity_name"] == name)).sum()
        assert kept == round(len(own) / 3), (split, name)
    assert set(empty["index"]) <= set(range(44, 84))  # their own
    dropped = pd.read_csv(folder / "left_out.csv")
    assert set(dropped["reason"]) == {"unanswered_surplus"} and len(dropped) == 40 - len(empty)
    card = (folder / "README.md").read_text()
    assert f"| {len(dropped)} |" in card and "beyond the share" in card and "its label is empty" in card
    assert "first_index" not in json.loads((folder / "build.json").read_text())["unanswered"]


def test_the_builder_without_the_hub_has_the_same_rows(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = catalogue.build(monkeypatch, "--unanswered", "0.3", "--unanswered_from", "labels")
    builder = ProductVqa(
        train_csv=catalogue.folder / "train.csv", image_dir=catalogue.images, validation_size=0.25, unanswered=0.3,
        unanswered_from="labels", cache_dir=catalogue.folder / "cache",
    )  # fmt: skip
    builder.download_and_prepare()
    rows = builder.as_dataset(split="train").remove_columns("image").to_pandas()
    built = read(folder).query("split == 'train'")[list(rows.columns)].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, built)
    assert load_schema(Location(builder.cache_dir)) == load_schema(Location(str(folder)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--unanswered", "0.95"], "at most 0.9, got 0.95"),
        (["--unanswered", "0.3"], "no row of --train_csv .* empty entity_value.*--unanswered_from labels"),
        (["--unanswered", "0.3", "--unanswered_from", "no.csv"], "no.csv"),
        (["--unanswered", "0.3", "--unanswered_from", "narrow.csv"], "narrow.csv: needs the columns .* shown"),
        (["--unanswered", "0.3", "--unanswered_from", "broken.csv"], "broken.csv, line 3: shown must be .* got '7'"),
        (["--unanswered", "0.3", "--unanswered_from", "sure.csv"], "sure.csv has no attribute .* below 0.1"),
        (["--unanswered", "0.3", "--unanswered_below", "2"], "--unanswered_below must be .* got 2"),
    ],
)
def test_what_cannot_be_known_is_refused(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(catalogue.folder)
    for name, rows in {
        "narrow": "image_link,entity_name\n0.jpg,width\n",
        "broken": "image_link,entity_name,shown\n0.jpg,height,0.01\n1.jpg,width,7\n",
        "sure": "image_link,entity_name,shown\n3.jpg,height,0.99\n",
    }.items():
        (catalogue.folder / f"{name}.csv").write_text(rows)
    with pytest.raises(InputError, match=message):
        catalogue.build(monkeypatch, *options)
    assert not (catalogue.folder / "out").exists()


def test_rows_to_predict_get_no_questions(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    test = write_csv(catalogue.folder / "test.csv", TEST_COLUMNS, [[5, "2.jpg", "g", "height"]])
    with pytest.raises(InputError, match="--unanswered needs --train_csv"):
        call(build.main, monkeypatch, "--test_csv", test, "--image_dir", catalogue.images, "--output_dir",
             catalogue.folder / "out", "--unanswered", "0.3")  # fmt: skip
