"""Schemas that are proposed from labels, through the command and its file."""

import csv
import json
import random
import string
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builder import inspect
from dataset_builder.label_table import LabelTable
from dataset_builder.schema_suggestion import suggest_schema
from product_vqa.errors import InputError
from product_vqa.task.attributes import Schema
from product_vqa.task.kinds import LabelError
from product_vqa.task.schema_file import parse_schema, read_schema
from tests.commands import call
from tests.dataset_builder.files import TRAIN_COLUMNS, write_csv

Draw = Callable[[], str]


def suggest(labels: dict[str, dict[str, int]], missing: dict[str, int] | None = None) -> tuple[Schema, str]:
    """The schema that is proposed for these labels, and the text of its file."""
    counts = {name: Counter(of_name) for name, of_name in labels.items()}
    suggestion = suggest_schema(LabelTable("t.csv", 10, counts, missing or {}))
    return parse_schema(suggestion.text, name="suggestion"), suggestion.text


def wide_table(file: Path, columns: dict[str, Draw], *, rows: int = 400) -> Path:
    """A CSV of products; each value is missing from a tenth of them."""
    draw = random.Random(0)
    lines: list[list[object]] = [
        [f"https://shop.example/{number}.jpg", *(value() if draw.random() < 0.9 else "" for value in columns.values())]
        for number in range(rows)
    ]
    return write_csv(file, ["image_link", *columns], lines)


def test_a_nutrition_panel_has_what_its_author_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(1)
    columns: dict[str, Draw] = {
        "energy": lambda: f"{draw.randint(20, 900)} {draw.choice(['kcal', 'kJ'])}",
        "fat": lambda: f"{draw.randint(0, 400) / 10} g",
        "salt": lambda: draw.choice([f"{draw.randint(1, 900)}mg", f"{draw.randint(0, 30) / 10} g"]),
        "servings": lambda: str(draw.randint(1, 24)),
        "organic": lambda: draw.choice(["Yes", "no"]),
    }
    file = wide_table(tmp_path / "panel.csv", columns)
    call(inspect.main, monkeypatch, "--train_csv", file, "--wide", "--suggest_schema", tmp_path / "schema.yaml")
    author = parse_schema(
        """version: 1
units:
  energy: {kilojoule: {size: 1, spellings: [kJ]}, kilocalorie: {size: 4.184, spellings: [kcal]}}
  weight: {gram: {size: 1, spellings: [g]}, milligram: {size: 0.001, spellings: [mg]}}
attributes:
  energy: {kind: quantity, units: energy, decimals: 0}
  fat: {kind: quantity, units: weight}
  salt: {kind: quantity, units: weight}
  servings: {kind: integer, digits: 2}
  organic: {kind: yes_no}
""",
        name="author",
    )
    # The one difference: the proposal has the default number of digits, because larger numbers may follow.
    assert author.differences(read_schema(tmp_path / "schema.yaml")) == ["digits of servings: 2 and 6"]
    out = capsys.readouterr().out
    assert "servings: integer, " in out and "numbers from 1 to 24: up to 2 digits" in out


def test_clothes_have_what_their_author_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(2)
    materials = ["cotton", "polyester", "wool", "elastane", "linen"]
    columns: dict[str, Draw] = {
        "size": lambda: draw.choice(["XS", "S", "M", "L", "XL"]),
        "colour": lambda: draw.choice(
            ["black", "black", "black", "Black", "white", "navy blue", "navy blue", "navyblue", "red"]
        ),
        "material": lambda: ", ".join(draw.sample(materials, draw.choice([1, 1, 2, 3]))),
        "waist": lambda: f"{draw.randint(26, 44)} in",
        "brand": lambda: "".join(draw.choices(string.ascii_lowercase, k=draw.randint(4, 9))).title(),
    }
    file = wide_table(tmp_path / "clothes.csv", columns)
    call(inspect.main, monkeypatch, "--train_csv", file, "--wide", "--suggest_schema", tmp_path / "schema.yaml")
    author = parse_schema(
        """version: 1
units: {length: {inch: {size: 2.54, spellings: [in]}, centimetre: {size: 1, spellings: [cm]}}}
attributes:
  size: {kind: choice, values: [XS, S, M, L, XL]}
  colour: {kind: choice, values: {black: [], white: [], navy blue: [navyblue], red: []}}
  material: {kind: multi_choice, values: [cotton, polyester, wool, elastane, linen]}
  waist: {kind: quantity, units: length, decimals: 0}
  brand: {kind: text}
""",
        name="author",
    )
    schema = read_schema(tmp_path / "schema.yaml")
    # Two differences: values are in the order of their frequency, and there is no unit without a label.
    order, units = author.differences(schema)
    assert order.startswith("values of material: ") and units == "units of waist: only centimetre and no other"
    assert sorted(schema["material"].normalize(", ".join(materials)).split(", ")) == sorted(materials)
    assert schema["colour"].normalize("NAVYBLUE") == "navy blue"


def test_electronics_have_what_their_author_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(3)
    columns: dict[str, Draw] = {
        "storage": lambda: f"{draw.choice([16, 32, 64, 128, 256])} GB",
        "battery": lambda: f"{draw.randrange(1000, 6000, 50)} mAh",
        "refresh rate": lambda: f"{draw.choice([50, 60, 90, 120])}Hz",
        "waterproof": lambda: draw.choice(["yes", "no"]),
        "model": lambda: f"{''.join(draw.choices('ABCDEFGHKLMNPRSTX', k=2))}-{draw.randint(100, 9999)}",
    }
    file = wide_table(tmp_path / "electronics.csv", columns)
    columns_option = "image_link=image_link,refresh_rate=refresh rate"
    options = ["--wide", "--columns", columns_option, "--suggest_schema", tmp_path / "schema.yaml"]
    call(inspect.main, monkeypatch, "--train_csv", file, *options)
    author = parse_schema(
        """version: 1
units:
  data: {gigabyte: {size: 1, spellings: [GB]}}
  charge: {milliampere hour: {size: 1, spellings: [mAh]}}
  frequency: {hertz: {size: 1, spellings: [Hz]}}
attributes:
  storage: {kind: quantity, units: data, decimals: 0}
  battery: {kind: quantity, units: charge, decimals: 0}
  refresh_rate: {kind: quantity, units: frequency, decimals: 0}
  waterproof: {kind: yes_no}
  model: {kind: pattern, pattern: "[A-Z]{2}-[0-9]{3,4}"}
""",
        name="author",
    )
    schema = read_schema(tmp_path / "schema.yaml")
    assert author.differences(schema) == []
    assert schema.names == author.names


def test_what_does_not_fit_is_shown_with_examples_and_counts() -> None:
    labels = {"500 g": 60, "1 kg": 30, "2 scoops": 5, "[1, 2] kg": 3, "about a pound\n# x: [": 2, "n/a": 4}
    _, text = suggest({"item_weight": labels}, {"item_weight": 7})
    assert (
        text
        == r"""# Proposed from the labels of t.csv (10 rows). Correct it, and pass it as --schema.
# Comments count labels. Labels that do not fit are dropped by a build, with their reasons.
# Units that are not in the labels: product_vqa/task/known_units.yaml has lines to copy.
version: 1
units:
  # not in the labels: nanogram, microgram, milligram, ton, carat, grain, ounce, troy ounce, pound, stone, short
  #   ton, long ton
  weight:
    gram: {size: 1, spellings: [g]}
    kilogram: {size: 1000, spellings: [kg]}
attributes:
  # 90 of 104 labels fit
  # gram 60, kilogram 30
  # numbers from 1 to 500: up to 3 digits before the point
  # does not fit: broken 6 (n/a, about a pound\n# x: [)
  # does not fit: unit_unknown 5 (2 scoops)
  # does not fit: range_brackets 3 ([1, 2] kg)
  # 7 without a label; with `not_shown: true`, that may be an answer
  item_weight: {kind: quantity, units: weight, decimals: 0}
"""
    )


def test_units_that_are_not_known_are_to_be_filled_in() -> None:
    schema, text = suggest({"dose": {"2 scoops": 9, "1 scoop": 6, "1 stick": 3}, "pack": {"3 sticks": 4, "5 bags": 4}})
    assert {unit: one.spellings for unit, one in schema.dimensions["dose"].items()} == {
        "scoops": ("scoop",), "stick": ("sticks",), "bags": (),
    }  # fmt: skip
    assert "# fill in: how many scoops each of the others is" in text
    assert schema["pack"].normalize("3 sticks") == "3 stick"
    _, text = suggest({"dose": {"2 scoops": 9}})
    assert "# not a known unit, and the only one here" in text


def test_the_dimension_of_other_units_has_another_name() -> None:
    schema, _ = suggest({"weight": {"2 scoops": 9}, "net weight": {"2 g": 9}})
    assert list(schema.dimensions) == ["weight units", "weight"]


def test_rare_values_are_named() -> None:
    _, text = suggest({"colour": {"red": 30, "blue": 20, "bleu": 1}})
    assert "# once each, a mistake or rare: bleu\n" in text


def test_what_is_not_an_attribute_is_skipped_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["colour", "Colour", "split", "a&b", "about", "none", " x"]
    file = write_csv(
        tmp_path / "t.csv", ["image_link", *names], [["l", "red", "x", "x", "x", "word " * 50, "", "x"]] * 3
    )
    options = ["--train_csv", file, "--wide", "--suggest_schema", tmp_path / "schema.yaml"]
    call(inspect.main, monkeypatch, *options, "--json")
    found = json.loads(capsys.readouterr().out)
    assert list(found["attributes"]) == ["colour"]
    assert found["skipped"]["Colour"] == "its name is that of colour but for case or spaces; rename one"
    assert found["skipped"]["split"].startswith("attributes.split: 'split' is a name of the dataset itself")
    assert "the name 'a&b' has '&'" in found["skipped"]["a&b"]
    assert found["skipped"]["about"] == "0 of 3 labels fit the kind text; is it an attribute?"
    assert found["skipped"]["none"] == "it has no labels"
    assert "begins or ends with a space" in found["skipped"][" x"]
    assert read_schema(tmp_path / "schema.yaml").names == ("colour",)
    assert "# skipped: 'about': 0 of 3 labels fit" in (tmp_path / "schema.yaml").read_text()


def test_a_table_without_attributes_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"t.csv: has no attribute with labels \(split: .*\); see `columns` and `wide`"
    ):
        suggest({"split": {"x": 1}})


def test_a_file_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_csv(tmp_path / "t.csv", TRAIN_COLUMNS, [["l", 1, "size", "M"]])
    schema = tmp_path / "schema.yaml"
    schema.write_text("mine")
    with pytest.raises(InputError, match=r"--suggest_schema .*schema.yaml: exists, and may hold corrections; choose"):
        call(inspect.main, monkeypatch, "--train_csv", file, "--suggest_schema", schema)
    assert schema.read_text() == "mine"
    with pytest.raises(InputError, match=r"missing/schema.yaml"):
        call(inspect.main, monkeypatch, "--train_csv", file, "--suggest_schema", tmp_path / "missing" / "schema.yaml")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "x", "--suggest_schema", "y"], "--suggest_schema needs labels: give --train_csv FILE"),
        (["--train_csv", "x", "--test_csv", "x", "--suggest_schema", "y"], "reads --train_csv only: drop --test_csv"),
    ],
)
def test_the_schema_is_for_labels_alone(monkeypatch: pytest.MonkeyPatch, options: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(inspect.main, monkeypatch, *options)


def test_a_file_stays_within_its_limits() -> None:
    """200 attributes of 1,000 long values would be 13 MB of YAML."""
    values = {f"{number:0>60}x": 5 for number in range(1000)}
    schema, text = suggest({f"a{number}": values for number in range(12)})
    assert len(text) < 1_000_000
    kinds = Counter(attribute.kind.name for attribute in schema.attributes.values())
    assert kinds["choice"] >= 3 and kinds["text"] >= 1


# What YAML, people and tables make of labels.
_TRICKS = st.sampled_from([
    "no", "~", "null", "1e3", "0x1F", "1_000", "2026-01-01", "&a", "*a", "!!python/object", "<<", "- x", "? x", ": x",
    "{a: b}", "[a", "'", '"', "#", "%TAG", "---", "...", "a: b", "a #b", "\x85", "\u2028", "\ufeff", "\u202e",
    "\x1b[31m", "é", "e\u0301", "ﬁ", "\u2126", "<image>", "р\u0061ypal", "١٢ kg", "5 kg", "5kg", "5 KG.",
    "12 mg to 3 g", "-5 °C",
    "[1, 2] g", "1,5 kg", "cotton, wool", "a/b", "a and b", "n/a", "-", "AB-12", "AB-13", "007", "yes", "Yes", "NO",
    "true", "1", "0", "1.0", "-3", "9" * 90, "x" * 64, "x" * 300, "3 scoops", "4 scoop", '5"', "5 %", "5 =x", "5 <b>",
])  # fmt: skip
_LABELS = st.one_of(
    _TRICKS,
    st.text(min_size=1, max_size=12),
    st.builds("{} {}".format, st.integers(-9, 9999), st.sampled_from(["g", "kg", "ml", "GB", "Hz", "pcs", "µ", "="])),
)
_COUNTS = st.dictionaries(_LABELS, st.integers(1, 30), min_size=1, max_size=30)
_NAMES = st.one_of(
    st.sampled_from(["weight", "no", "1.0", "split", "a_b", "a b", "Größe (cm)", "#x"]), st.text(max_size=8)
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(_NAMES, _COUNTS, min_size=1, max_size=6))
def test_whatever_the_labels_the_proposal_is_a_schema_that_fits_them(labels: dict[str, dict[str, int]]) -> None:
    counts = {name: Counter(of_name) for name, of_name in labels.items()}
    counts["always"] = Counter(x=1)  # so that there is an attribute
    suggestion = suggest_schema(LabelTable("t.csv", 10, counts, {}))
    schema = parse_schema(suggestion.text, name="suggestion")
    assert {*schema.names, *suggestion.skipped} == set(counts)
    assert list(schema.names) == [proposal.name for proposal in suggestion.proposals]
    for proposal in suggestion.proposals:
        attribute = schema[proposal.name]
        assert attribute.kind.name == proposal.kind
        num_fit = 0
        for label, count in counts[proposal.name].items():
            try:
                answer = attribute.normalize(label)
            except LabelError:
                continue
            assert attribute.is_valid(answer), (label, answer)
            num_fit += count
        assert num_fit == proposal.num_fit >= proposal.num_labels / 2
    printed = suggestion.as_text() + suggestion.text
    assert all(char.isprintable() or char == "\n" for char in printed)
    json.loads(suggestion.as_json())


def test_the_csv_of_a_spreadsheet_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "t.csv"
    with file.open("w", newline="", encoding="utf-8-sig") as stream:
        csv.writer(stream).writerows([TRAIN_COLUMNS, *(["l", 1, "size", size] for size in "MLML")])
    call(inspect.main, monkeypatch, "--train_csv", file, "--suggest_schema", tmp_path / "schema.yaml")
    assert read_schema(tmp_path / "schema.yaml")["size"].kind.describe() == {"values": ["M", "L"]}
