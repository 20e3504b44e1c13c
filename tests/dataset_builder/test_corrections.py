"""Corrections of labels, through the command: what is applied, what is refused, what is recorded."""

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dataset_builder import ProductVqa, build
from product_vqa.errors import InputError
from product_vqa.quoting import as_cell
from tests.commands import call
from tests.dataset_builder.files import TRAIN_COLUMNS, Shop, contents, write_csv

COLUMNS = ["index", "image_link", "entity_name", "entity_value", "decision", "new_value"]


class Corrected:
    """A shop and what is decided about its labels."""

    def __init__(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shop, self.monkeypatch = shop, monkeypatch

    def line(self, position: int, decision: str, new_value: str = "", **other: object) -> list[object]:
        """A decision about the row at a position of train.csv, which is its index too."""
        link, _, name, value = self.shop.train_rows[position]
        values = {"index": position, "image_link": link, "entity_name": name, "entity_value": value,
                  "decision": decision, "new_value": new_value, **other}  # fmt: skip
        return [values[column] for column in COLUMNS]

    def write(self, *lines: list[object], name: str = "corrections.csv") -> Path:
        return write_csv(self.shop.folder / name, COLUMNS, list(lines))

    def build(self, *more: object, name: str = "out") -> Path:
        call(build.main, self.monkeypatch, *self.shop.arguments(), "--output_dir", self.shop.folder / name, *more)
        return self.shop.folder / name


@pytest.fixture
def corrected(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Corrected:
    return Corrected(shop, monkeypatch)


def manifest(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "build.json").read_text())
    return content


def test_corrected_rows_are_those_of_a_csv_with_these_labels(corrected: Corrected) -> None:
    file = corrected.write(corrected.line(1, "correct", "25 ounce"), corrected.line(2, "keep"))
    folder = corrected.build("--corrections", file)
    corrected.shop.train_rows[1][3] = "25 ounce"
    corrected.shop.train_csv = write_csv(
        corrected.shop.folder / "edited.csv", TRAIN_COLUMNS, corrected.shop.train_rows
    )
    expected = contents(corrected.build(name="edited"))
    assert contents(folder).keys() == expected.keys()
    assert {name: data for name, data in contents(folder).items() if name != "left_out.csv"} == {
        name: data for name, data in expected.items() if name != "left_out.csv"
    }


def test_a_dropped_row_is_in_no_split_and_has_its_reason(corrected: Corrected) -> None:
    plain, folder = (
        corrected.build(name="plain"),
        corrected.build("--corrections", corrected.write(corrected.line(4, "drop"))),
    )
    indexes = [
        {index for file in one.glob("rows/[!t]*.parquet") for index in pd.read_parquet(file)["index"]}
        | set(pd.read_parquet(one / "rows/train.parquet")["index"])
        for one in (plain, folder)
    ]
    assert indexes[0] - indexes[1] == {4}
    with (folder / "left_out.csv").open(newline="") as stream:
        reasons = {row["image_link"]: row["reason"] for row in csv.DictReader(stream)}
    assert reasons[str(corrected.shop.train_rows[4][0])] == "dropped_by_correction"
    assert manifest(folder)["rows_left_out"] == {"range_brackets": 1, "dropped_by_correction": 1}
    assert (
        "| dropped_by_correction (somebody looked at the image and dropped the row) | 1 |"
        in (folder / "README.md").read_text()
    )


def test_the_manifest_and_the_card_say_what_was_corrected(corrected: Corrected) -> None:
    lines = [
        corrected.line(1, "correct", "25 ounce"),
        corrected.line(2, "correct", "26 ounce"),
        corrected.line(5, "correct", "5.00 gram"),  # what it is
        corrected.line(4, "drop"),
        corrected.line(6, "keep"),
    ]
    file = corrected.write(*lines)
    folder = corrected.build("--corrections", file)
    recorded = manifest(folder)["corrections"]
    assert recorded["files"][0]["file"] == "corrections.csv" and len(recorded["files"][0]["sha256"]) == 64
    assert {key: recorded[key] for key in ("keep", "correct", "drop")} == {"keep": 2, "correct": 2, "drop": 1}
    card = (folder / "README.md").read_text()
    assert "2 labels were corrected, 1 row was dropped and 2 labels were kept" in card
    assert "--corrections corrections.csv" in card and "as written in the CSV or in a correction" in card


def test_without_corrections_nothing_is_recorded(corrected: Corrected) -> None:
    folder = corrected.build()
    assert "corrections" not in manifest(folder) and "correct" not in (folder / "README.md").read_text()


def test_other_corrections_are_another_build(corrected: Corrected, capsys: pytest.CaptureFixture[str]) -> None:
    plain = manifest(corrected.build())["fingerprint"]
    file = corrected.write(corrected.line(1, "correct", "25 ounce"))
    first = manifest(corrected.build("--corrections", file))["fingerprint"]
    capsys.readouterr()
    corrected.build("--corrections", file)
    assert "unchanged: " in capsys.readouterr().out
    corrected.write(corrected.line(1, "correct", "26 ounce"))
    assert len({plain, first, manifest(corrected.build("--corrections", file))["fingerprint"]}) == 3


def test_a_file_from_a_spreadsheet_or_by_hand_is_read(corrected: Corrected) -> None:
    """Excel's byte order mark and line ends, no index, columns in another order, spaces, and the canonical label."""
    link = corrected.shop.train_rows[1][0]
    text = (
        "decision,entity_value,new_value,image_link,entity_name,remark\r\n"
        f'Correct ,2.0 gram, 25 ounce,{link},item_weight,"a, b"\r\n'
    )
    file = corrected.shop.folder / "by_hand.csv"
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    folder = corrected.build("--corrections", file)
    rows = pd.concat(pd.read_parquet(one) for one in (folder / "rows").glob("[tv][ra]*.parquet"))
    row = rows[(rows["image_link"] == link) & (rows["entity_name"] == "item_weight")].iloc[0]
    assert (row["entity_value"], row["entity_value_raw"]) == ("25.0 ounce", "25 ounce")


def test_rows_that_were_cleared_in_a_spreadsheet_are_none(corrected: Corrected) -> None:
    file = corrected.write(corrected.line(1, "drop"), [""] * 6, [" "] * 6, corrected.line(2, "keep"), [""] * 6)
    counts = manifest(corrected.build("--corrections", file))["corrections"]
    assert (counts["keep"], counts["correct"], counts["drop"]) == (1, 0, 1)
    file = corrected.write([*[""] * 5, "25 ounce"], name="half.csv")
    with pytest.raises(InputError, match=r"half.csv, line 2: decision must be one of keep, correct, drop, got ''"):
        corrected.build("--corrections", file, name="half")


@pytest.mark.parametrize(("separator", "word"), [(";", "semicolons"), ("\t", "tabs")])
def test_another_separator_than_commas_is_named(corrected: Corrected, separator: str, word: str) -> None:
    file = corrected.write(corrected.line(1, "drop"))
    text = file.read_text().replace(",", separator).replace("\n", "\r\n")
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    with pytest.raises(InputError, match=rf"--corrections .*corrections.csv: its columns are separated by {word}, as"):
        corrected.build("--corrections", file)


def test_a_second_file_has_the_labels_that_the_first_one_left(corrected: Corrected) -> None:
    first = corrected.write(corrected.line(1, "correct", "25 ounce"), corrected.line(2, "keep"))
    second = corrected.write(
        corrected.line(1, "correct", "27 ounce", entity_value="25 ounce"), corrected.line(2, "drop"), name="more.csv"
    )
    folder = corrected.build("--corrections", first, second)
    counts = manifest(folder)["corrections"]
    assert [one["file"] for one in counts["files"]] == ["corrections.csv", "more.csv"]
    assert (counts["keep"], counts["correct"], counts["drop"]) == (0, 1, 1)
    assert "--corrections corrections.csv more.csv" in (folder / "README.md").read_text()
    with pytest.raises(InputError, match=r"corrections.csv, line 2: entity_value is '2 gram', but .* '27 ounce'"):
        corrected.build("--corrections", first, second, first, name="other")


@pytest.mark.parametrize("order", [1, -1])
def test_lines_name_the_labels_before_their_file_in_any_order(corrected: Corrected, order: int) -> None:
    """One line writes the label that another one names: two rows swap theirs, a third one gets that of a fourth."""
    rows = corrected.shop.train_rows
    rows.append([rows[1][0], "g9", "item_weight", "60 gram"])
    rows.append([rows[2][0], "g9", "item_weight", "70 gram"])
    write_csv(corrected.shop.train_csv, TRAIN_COLUMNS, rows)
    places = (1, len(rows) - 2, 2, len(rows) - 1)
    one, two, _, four = (str(rows[at][3]) for at in places)
    decisions = [("correct", two), ("correct", one), ("correct", four), ("keep", "")]
    lines = [corrected.line(at, *decision, index="") for at, decision in zip(places, decisions, strict=True)]
    folder = corrected.build("--corrections", corrected.write(*lines[::order]), "--validation_size", "0")
    labels = pd.read_parquet(folder / "rows" / "train.parquet").set_index("index")["entity_value_raw"]
    assert [labels[at] for at in places] == [two, one, four, four]
    counts = manifest(folder)["corrections"]
    assert (counts["keep"], counts["correct"], counts["drop"]) == (1, 3, 0)


def test_a_part_of_the_rows_counts_its_own_corrections(corrected: Corrected) -> None:
    lines = [corrected.line(1, "correct", "25 ounce"), corrected.line(11, "correct", "3 inch")]
    folder = corrected.build("--corrections", corrected.write(*lines), "--entities", "height,width")
    assert manifest(folder)["corrections"]["correct"] == 1


def test_the_python_builder_takes_corrections_too(corrected: Corrected, tmp_path: Path) -> None:
    file = corrected.write(corrected.line(1, "correct", "25 ounce"), corrected.line(4, "drop"))
    builder = ProductVqa(**corrected.shop.options(), corrections=[file], cache_dir=tmp_path / "cache")
    builder.download_and_prepare()
    splits = builder.as_dataset()
    labels = {
        row["index"]: row["entity_value"] for name in ("train", "validation") if name in splits for row in splits[name]
    }
    assert labels[1] == "25.0 ounce" and 4 not in labels


@pytest.mark.parametrize(
    ("position", "change", "message"),
    [
        (1, {"decision": "fix"}, r"line 2: decision must be one of keep, correct, drop, got 'fix'"),
        (1, {"decision": "drop", "new_value": "1 inch"}, r"decision drop has the new_value '1 inch'; clear it, or"),
        (1, {"decision": "correct", "new_value": ""}, r"line 2: new_value '' is not a label of item_weight \("),
        (1, {"decision": "correct", "new_value": "5 volt"}, r"new_value '5 volt' .* \(volt is not one of the units"),
        (1, {"decision": "correct", "new_value": "[1, 2] gram"}, r"new_value .* is not a label of item_weight \("),
        (1, {"entity_value": "9 gram"}, r"line 2: entity_value is '9 gram', but the label of the row is '2 gram'"),
        (1, {"index": 2}, r"no row of --train_csv has index 2, .* \(it has another image_link or entity_name\)"),
        (1, {"index": 99}, r"no row of --train_csv has index 99, .* \(there is none\)"),
        (1, {"index": "one"}, r"index must be a whole number, got 'one'; correct or clear it"),
        (1, {"index": "", "image_link": "x.jpg"}, r"no row of --train_csv has the image_link 'x.jpg' and the entity_"),
        (1, {"index": "", "entity_name": "depth"}, r"no row of --train_csv has the image_link .* 'depth'; are these"),
    ],
)  # fmt: skip
def test_what_does_not_match_is_refused_with_its_line(
    corrected: Corrected, position: int, change: dict[str, object], message: str
) -> None:
    line = corrected.line(position, **{"decision": "keep", **change})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=rf"--corrections .*corrections\.csv, .*{message}"):
        corrected.build("--corrections", corrected.write(line))
    assert not (corrected.shop.folder / "out").exists()


def test_two_decisions_about_a_row_are_refused(corrected: Corrected) -> None:
    file = corrected.write(corrected.line(1, "keep"), corrected.line(1, "drop", index=""))
    with pytest.raises(InputError, match=r"corrections.csv, line 3: this row has a decision already \(.*line 2\)"):
        corrected.build("--corrections", file)
    file = corrected.write(corrected.line(1, "correct", "25 ounce"), corrected.line(1, "drop"))
    with pytest.raises(InputError, match=r"corrections.csv, line 3: this row has a decision already \(.*line 2\)"):
        corrected.build("--corrections", file)
    first, second = (
        corrected.write(corrected.line(1, "drop")),
        corrected.write(corrected.line(1, "keep"), name="2.csv"),
    )
    with pytest.raises(InputError, match=r"2.csv, line 2: an earlier file drops this row"):
        corrected.build("--corrections", first, second)


def test_other_files_and_other_rows_are_refused(corrected: Corrected) -> None:
    shop = corrected.shop
    with pytest.raises(InputError, match=r"needs the columns image_link, .*; decision is missing or occurs twice"):
        corrected.build("--corrections", shop.train_csv)
    file = corrected.write(corrected.line(1, "keep"))
    with pytest.raises(InputError, match=r"--corrections needs --train_csv: rows to predict have no labels"):
        call(build.main, corrected.monkeypatch, "--test_csv", shop.test_csv, "--image_dir", shop.image_dir,
             "--output_dir", shop.folder / "out", "--corrections", file)  # fmt: skip
    everything = corrected.write(*(corrected.line(position, "drop") for position in range(len(shop.train_rows))))
    with pytest.raises(InputError, match=r"--corrections drop all 12 rows of --train_csv train.csv; keep some"):
        corrected.build("--corrections", everything)


def test_a_label_that_a_spreadsheet_would_run_matches_as_it_was_saved(corrected: Corrected) -> None:
    """The page prefixes such a cell with an apostrophe."""
    corrected.shop.train_rows[1][3] = "=2 gram"
    write_csv(corrected.shop.train_csv, TRAIN_COLUMNS, corrected.shop.train_rows)
    line = corrected.line(1, "correct", "25 ounce", entity_value=as_cell("=2 gram"))
    assert manifest(corrected.build("--corrections", corrected.write(line)))["corrections"]["correct"] == 1


def test_merged_shards_have_the_corrections(
    corrected: Corrected, run: Any, csvs: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shard holds images only, so only the merge needs the file; run again, the merge is the same build."""
    rows = list(csv.DictReader((tmp_path / "train.csv").open()))
    line = [0, rows[0]["image_link"], "width", rows[0]["entity_value"], "correct", "99 inch"]
    file = write_csv(tmp_path / "c.csv", COLUMNS, [line])
    run(tmp_path / "one", tmp_path / "merged", "--shard", "1/1")
    run(tmp_path / "one", tmp_path / "merged", "--merge", "1", "--corrections", file)
    assert manifest(tmp_path / "merged")["corrections"]["correct"] == 1
