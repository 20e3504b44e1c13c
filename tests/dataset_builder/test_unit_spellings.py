"""Labels as catalogues write them: which are read, which are refused and why, and where the option is recorded."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builder import ProductVqa, build, inspect, unit_spellings
from dataset_builder.labels import judge_label, label_judge
from dataset_builder.unit_spellings import respell
from product_vqa.errors import InputError
from product_vqa.task.kinds import MAX_LABEL_LENGTH, LabelError
from product_vqa.task.schema import CHALLENGE, ENTITIES, UNITS_BY_ENTITY
from tests.commands import ROOT, call
from tests.dataset_builder.files import TRAIN_COLUMNS, Shop, contents, jpeg, write_csv
from tests.dataset_builder.image_server import ImageServer

JUDGE = label_judge(CHALLENGE, unit_spellings=True)
READ = [
    ("item_weight", "341 g", "341.0 gram"),
    ("item_weight", "341g", "341.0 gram"),
    ("item_weight", "0.5 kg", "0.5 kilogram"),
    ("item_weight", " 5\u00a0KG ", "5.0 kilogram"),
    ("item_weight", "5lbs.", "5.0 pound"),
    ("item_weight", "500 GRAMS", "500.0 gram"),
    ("item_weight", "12 OZ", "12.0 ounce"),
    ("item_weight", "3 µg", "3.0 microgram"),
    ("item_weight", "2 t", "2.0 ton"),
    ("item_weight", "1,5 kg", "1.5 kilogram"),
    ("item_weight", "0,500 kg", "0.5 kilogram"),
    ("item_weight", "1234,567 g", "1234.567 gram"),  # thousands would be 1,234,567
    ("item_weight", "1,234.5 g", "1234.5 gram"),
    ("item_weight", "1.234,5 g", "1234.5 gram"),
    ("item_weight", "1,234,567 g", "1234567.0 gram"),
    ("item_weight", "1.500 g", "1.5 gram"),  # a single point is one, as without the option
    ("item_weight", "1.234.567 g", "1234567.0 gram"),
    ("item_weight", "1.234.567,8 g", "1234567.8 gram"),
    ("item_weight", "1,234,567.8 g", "1234567.8 gram"),
    ("item_weight", "123,456,789 g", "123456789.0 gram"),
    ("item_weight", f"1{',000' * 24} gm", f"1{'000' * 24}.0 gram"),  # of 100 characters
    ("item_weight", ".5 kg", "0.5 kilogram"),
    ("item_weight", ",5 kg", "0.5 kilogram"),
    ("item_volume", "330 ml", "330.0 millilitre"),
    ("item_volume", "33CL", "33.0 centilitre"),
    ("item_volume", "1 L", "1.0 litre"),
    ("item_volume", "12 fl oz", "12.0 fluid ounce"),
    ("item_volume", "12 FL. OZ.", "12.0 fluid ounce"),
    ("item_volume", "12 fl.oz", "12.0 fluid ounce"),
    ("item_volume", "2 gal", "2.0 gallon"),
    ("item_volume", "2 UK gal", "2.0 imperial gallon"),
    ("item_volume", "3 cu. ft.", "3.0 cubic foot"),
    ("voltage", "220 V", "220.0 volt"),
    ("voltage", "230 VAC", "230.0 volt"),
    ("voltage", "5 mV", "5.0 millivolt"),
    ("voltage", "1 kv", "1.0 kilovolt"),
    ("wattage", "60w", "60.0 watt"),
    ("wattage", "1.5 kW", "1.5 kilowatt"),
    ("height", "10 cm", "10.0 centimetre"),
    ("height", '5"', "5.0 inch"),
    ("height", "5 in.", "5.0 inch"),
    ("height", "6'", "6.0 foot"),
    ("height", "6’", "6.0 foot"),
]  # fmt: skip
NOT_READ = [
    ("item_weight", "1,500 g", "number_ambiguous"),  # 1500 or 1.5
    ("item_weight", "123,456 g", "number_ambiguous"),
    ("item_weight", "1234,567,890 g", "broken"),
    ("item_weight", f"1{',000' * 24} gms", "broken"),  # of 101 characters
    ("item_weight", "3 gr", "unit_ambiguous"),  # gram or grain
    ("item_volume", "12 oz", "unit_ambiguous"),  # fluid ounce, or the ounce that is a weight
    ("item_volume", "12 ounces", "unit_ambiguous"),
    ("item_volume", "12 ounce", "unit_unsuitable"),  # as without the option
    ("item_weight", "12 fl oz", "unit_unsuitable"),
    ("item_weight", "330 ml", "unit_unsuitable"),
    ("voltage", "5 mv", "unit_ambiguous"),
    ("voltage", "5 MV", "unit_unknown"),  # a megavolt
    ("wattage", "5 mw", "unit_unknown"),
    ("wattage", "5 hp", "unit_unknown"),
    ("item_volume", "100 cc", "unit_unknown"),
    ("voltage", "100-240V", "range_to"),
    ("voltage", "100 V – 240 V", "range_to"),
    ("voltage", "100 to 240 V", "range_to"),
    ("voltage", "[100, 240] V", "range_brackets"),
    ("height", "5'10\"", "broken"),
    ("height", "5 ft - 6 in", "broken"),
    ("height", "1/2 in", "broken"),
    ("height", "10 x 20 cm", "broken"),
    ("item_weight", "-5 kg", "broken"),
    ("item_weight", "5 kg 200 g", "broken"),
    ("item_weight", "1,00,000 g", "broken"),
    ("item_weight", "1,234,5 g", "broken"),
    ("item_weight", "1,234.5,6 g", "broken"),
    ("item_weight", "12.34,5 g", "broken"),
    ("item_weight", "341", "broken"),
    ("item_weight", "g", "broken"),
    ("item_weight", "n/a", "broken"),
    ("item_weight", f"{'1' * MAX_LABEL_LENGTH} g", "broken"),
]  # fmt: skip


@pytest.mark.parametrize(("entity_name", "label", "expected"), READ)
def test_a_label_of_a_catalogue_is_read(entity_name: str, label: str, expected: str) -> None:
    assert JUDGE(entity_name, label) == (expected, "")
    assert judge_label(entity_name, label)[0] == ""  # not without the option


@pytest.mark.parametrize(("entity_name", "label", "reason"), NOT_READ)
def test_what_has_two_meanings_or_none_is_not_read(entity_name: str, label: str, reason: str) -> None:
    assert JUDGE(entity_name, label) == ("", reason)


@pytest.mark.parametrize(
    ("entity_name", "label", "problem"),
    [
        ("item_weight", "1,500 g", "'1,500' may be 1500 or 1.500: write it without a comma"),
        ("item_weight", "3 gr", "'gr' may be gram or grain: write its name"),
        ("item_volume", "12 Oz.", "'Oz.' may be fluid ounce or ounce: write its name"),
        ("item_volume", "12 ounces", "'ounces' may be fluid ounce or ounce: write its name"),
        ("voltage", "5 mv", "'mv' may be megavolt or millivolt: write its name"),
    ],
)
def test_both_meanings_are_named(entity_name: str, label: str, problem: str) -> None:
    with pytest.raises(LabelError) as raised:
        respell(label, CHALLENGE[entity_name].kind)
    assert str(raised.value) == problem


@pytest.mark.parametrize(
    ("label", "first", "last"),
    [
        ("100-240V", "100.0 volt", "240.0 volt"),
        ("1,5 V - 1.2 kV", "", ""),  # with a hyphen, two units are a sum more often than a range
        ("1,5 V to 1.2 kV", "1.5 volt", "1.2 kilovolt"),
        ("[1.5, 3] V", "1.5 volt", "3.0 volt"),
    ],
)
def test_an_end_of_a_range_is_read_where_asked_for(label: str, first: str, last: str) -> None:
    for ranges, expected in (("first", first), ("last", last)):
        assert label_judge(CHALLENGE, ranges=ranges, unit_spellings=True)("voltage", label)[0] == expected


def test_the_page_says_how_labels_are_read() -> None:
    text = (ROOT / "docs" / "dataset.md").read_text()
    table = text.partition("| label | is read as |\n|---|---|\n")[2].partition("\n\n")[0]
    num_labels = 0
    for row in table.splitlines():
        labels, outcomes = (set(re.findall(r"`([^`]+)`", cell)) for cell in row.strip("| ").split(" | "))
        for label in labels - {"item_volume"}:
            judged = {outcome for name in ENTITIES for outcome in JUDGE(name, label)}
            assert judged & outcomes, (label, judged)
            num_labels += 1
    assert num_labels == 28


@given(entity_name=st.sampled_from(ENTITIES), number=st.sampled_from(["0", "5", "2.50", "007", "1e3"]), data=st.data())
def test_what_is_read_without_the_option_is_read_alike_with_it(
    entity_name: str, number: str, data: st.DataObject
) -> None:
    unit = data.draw(st.sampled_from([*CHALLENGE.unit_by_spelling, *UNITS_BY_ENTITY[entity_name]]))
    forms = ["{0} {1}", "{0}{1}", " {0}  {1} ", "[{0}, 9] {1}", "{0} {1} to 9 {1}"]
    label = data.draw(st.sampled_from(forms)).format(number, unit)
    for ranges in ("leave_out", "first", "last"):
        expected = label_judge(CHALLENGE, ranges=ranges)(entity_name, label)
        judged = label_judge(CHALLENGE, ranges=ranges, unit_spellings=True)(entity_name, label)
        assert judged == expected or (not expected[0] and f"{number}{unit}" == label)


@given(entity_name=st.sampled_from(ENTITIES), label=st.text("0123456789.,-–[] togGlLvVmMkK'\"fzni", max_size=30))
def test_any_text_is_read_or_has_a_reason(entity_name: str, label: str) -> None:
    answer, reason = JUDGE(entity_name, label)
    assert bool(answer) != bool(reason)
    assert not answer or CHALLENGE[entity_name].is_valid(answer)


def catalogue(shop: Shop) -> list[list[object]]:
    rows: list[list[object]] = [
        [url, "g", "item_weight", f"{number + 1} g"] for number, url in enumerate(shop.train_urls)
    ]
    rows[4][3] = "3 gr"
    write_csv(shop.train_csv, TRAIN_COLUMNS, rows)
    return rows


def test_a_build_reads_the_labels_of_a_catalogue_and_records_that(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, folder = catalogue(shop), shop.folder / "out"
    arguments = [*shop.arguments(), "--output_dir", folder, "--validation_size", "0"]
    call(build.main, monkeypatch, *arguments, "--unit_spellings")
    built = pq.read_table(folder / "rows" / "train.parquet").to_pylist()
    readable = [number for number in range(len(rows)) if number != 4]
    assert [row["entity_value"] for row in built] == [f"{number + 1}.0 gram" for number in readable]
    assert [row["entity_value_raw"] for row in built] == [f"{number + 1} g" for number in readable]
    manifest = json.loads((folder / "build.json").read_text())
    assert manifest["unit_spellings"] == unit_spellings.spellings_sha256()
    assert manifest["rows_left_out"] == {"unit_ambiguous": 1}
    card = (folder / "README.md").read_text()
    assert "  --unit_spellings \\\n" in card and "| unit_ambiguous (unit with two meanings, like `5 mv`) | 1 |" in card
    assert "Labels were read as catalogues write them, too: `341 g` as `341.0 gram`." in card
    assert not (folder / "schema.yaml").exists()  # still the challenge's

    capsys.readouterr()
    call(build.main, monkeypatch, *arguments, "--unit_spellings")
    assert f"unchanged: {folder}" in capsys.readouterr().out
    rows[0][3] = "1 gram"  # so that the option is not needed for all rows
    write_csv(shop.train_csv, TRAIN_COLUMNS, rows)
    call(build.main, monkeypatch, *arguments)
    assert f"written: {folder}" in capsys.readouterr().out
    assert "unit_spellings" not in (folder / "build.json").read_text() + (folder / "README.md").read_text()
    assert len(pq.read_table(folder / "rows" / "train.parquet")) == 1
    call(build.main, monkeypatch, *arguments, "--unit_spellings")
    assert f"written: {folder}" in capsys.readouterr().out


def test_another_table_of_spellings_is_another_build(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue(shop)
    before = ProductVqa(**shop.options(), unit_spellings=True).config.fingerprint
    monkeypatch.setattr("dataset_builder.fingerprint.spellings_sha256", lambda: "0" * 64)
    assert ProductVqa(**shop.options(), unit_spellings=True).config.fingerprint != before


def test_the_builder_in_python_reads_them_alike(shop: Shop) -> None:
    catalogue(shop)
    cache = shop.folder / "cache"
    builder = ProductVqa(**shop.options(), unit_spellings=True, validation_size=0, cache_dir=cache)
    builder.download_and_prepare()
    assert builder.as_dataset()["train"]["entity_value"][:3] == ["1.0 gram", "2.0 gram", "3.0 gram"]
    with pytest.raises(InputError, match=r"set `unit_spellings` to read 9 of them, like '1 g' as '1\.0 gram'"):
        ProductVqa(**shop.options())


def test_a_wide_table_is_read_alike(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = {"item_weight": ["1,5 kg", ""], "voltage": ["", "12V"]}
    rows = [[shop.train_urls[number], *(cells.get(name, ["", ""])[number] for name in ENTITIES)] for number in (0, 1)]
    table = write_csv(shop.folder / "wide.csv", ["image_link", *ENTITIES], rows)
    call(build.main, monkeypatch, "--train_csv", table, "--wide", "--image_dir", shop.image_dir, "--unit_spellings",
         "--output_dir", shop.folder / "out", "--validation_size", "0")  # fmt: skip
    built = pq.read_table(shop.folder / "out" / "rows" / "train.parquet").to_pylist()
    assert [row["entity_value"] for row in built] == ["1.5 kilogram", "12.0 volt"]


def test_merged_shards_are_read_alike_and_another_option_is_another_dataset(
    server: ImageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers |= {f"/{number}.jpg": jpeg(number) for number in range(6)}
    urls = [f"{server.url}/{number}.jpg" for number in range(6)]
    labels = ['7"', "7 inch"]  # one of them is read without the option
    rows: list[list[object]] = [[url, 1, "width", labels[number % 2]] for number, url in enumerate(urls)]
    table = write_csv(tmp_path / "train.csv", TRAIN_COLUMNS, rows)

    def run(machine: str, output: str, *more: Any) -> None:
        call(build.main, monkeypatch, "--train_csv", table, "--allow_private_hosts", "--validation_size", "0",
             "--image_store", tmp_path / machine, "--output_dir", tmp_path / output, *more)  # fmt: skip

    run("one", "expected", "--unit_spellings")
    run("a", "out", "--shard", "1/2")  # a shard has images only: the merge reads the labels
    run("b", "out", "--shard", "2/2", "--unit_spellings")
    run("a", "out", "--merge", 2, "--unit_spellings")
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")
    capsys.readouterr()
    run("a", "out", "--merge", 2, "--unit_spellings")
    assert "unchanged" in capsys.readouterr().out
    with pytest.raises(InputError, match="lacks 2 of 2 shards"):
        run("a", "out", "--merge", 2)


def test_a_schema_of_its_own_says_how_its_units_are_spelled(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = ROOT / "docs" / "schemas" / "clothes.yaml"
    message = "--unit_spellings is for the challenge's attributes: a schema.yaml has the `spellings` of its units"
    arguments = ["--train_csv", write_csv(shop.folder / "own.csv", TRAIN_COLUMNS, [["a", 1, "waist", "5 cm"]]),
                 "--schema", schema, "--unit_spellings"]  # fmt: skip
    with pytest.raises(InputError, match=message):
        call(build.main, monkeypatch, *arguments, "--image_dir", shop.image_dir, "--output_dir", shop.folder / "out")
    with pytest.raises(InputError, match=message):
        call(inspect.main, monkeypatch, *arguments)


def test_inspect_counts_labels_as_build_reads_them(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = catalogue(shop)
    rows[0][3] = "0 g"
    write_csv(shop.train_csv, TRAIN_COLUMNS, rows)
    call(inspect.main, monkeypatch, "--train_csv", shop.train_csv, "--unit_spellings", "--json")
    counts = json.loads(capsys.readouterr().out)["train"]
    assert counts["label_forms"] == {
        "plain": 9, "range_brackets": 0, "range_to": 0, "exponent": 0, "unit_unknown": 0, "broken": 0,
        "unit_ambiguous": 1, "number_ambiguous": 0,
    }  # fmt: skip
    assert counts["suspicious"] == {"zero": 1}
    with pytest.raises(InputError, match="--unit_spellings needs labels: give --train_csv FILE"):
        call(inspect.main, monkeypatch, "--test_csv", shop.test_csv, "--unit_spellings")
    with pytest.raises(InputError, match="--suggest_schema reads --train_csv only: drop --unit_spellings"):
        call(
            inspect.main, monkeypatch, "--train_csv", shop.train_csv, "--unit_spellings", "--suggest_schema", "x.yaml"
        )
