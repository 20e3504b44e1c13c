"""What build and inspect say about labels that they cannot read, before anything is downloaded."""

from pathlib import Path

import pytest

from dataset_builder import build, inspect
from product_vqa.errors import InputError
from tests.commands import call
from tests.dataset_builder.catalogues import Catalogue
from tests.dataset_builder.files import TRAIN_COLUMNS, jpeg, write_csv
from tests.dataset_builder.image_server import ImageServer

WEIGHTS = "gram, kilogram, microgram, milligram, ounce, pound, ton"


def build_with(labels: list[tuple[str, str]], server: ImageServer, monkeypatch: pytest.MonkeyPatch, folder: Path,
               *more: object) -> None:  # fmt: skip
    server.answers["/a.jpg"] = jpeg()
    table = write_csv(folder / "cat.csv", TRAIN_COLUMNS, [[f"{server.url}/a.jpg", 1, *label] for label in labels])
    call(build.main, monkeypatch, "--train_csv", table, "--image_store", folder / "store", "--allow_private_hosts",
         "--output_dir", folder / "out", "--validation_size", "0", *more)  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            [("item_weight", "341 g"), ("item_weight", "5 hp"), ("item_volume", "12 oz")],
            r"none of the 3 rows has a usable label \(unit_unknown 3; like row 0 \(from 0\): item_weight '341 g' is "
            rf"not a number and one of the units {WEIGHTS}; set --unit_spellings to read 1 of them, like '341 g' as "
            r"'341\.0 gram'\)",
        ),
        (
            [("item_weight", "a lot"), ("item_volume", "5 gram"), ("item_volume", "6 gram")],
            r"\(unit_unsuitable 2, broken 1; like row 1 \(from 0\): item_volume '5 gram': gram is not one of the "
            r"units centilitre, cubic foot, .*, millilitre, pint, quart\)",
        ),
        (
            [("voltage", "[100.0, 240.0] volt")],
            r"\(range_brackets 1; like row 0 \(from 0\): voltage '\[100\.0, 240\.0\] volt' is not a number and one of "
            r"the units kilovolt, millivolt, volt; set --ranges first or last to read an end of each range\)",
        ),
        ([("voltage", " ")], r"like row 0 \(from 0\): voltage has an empty label: .*, or set --unanswered if"),
        ([("voltage", "9" * 200)], rf"voltage '{'9' * 100}\.\.\.' is not a number and one of the units"),
        ([("voltage", "5 horsepower")], r"is not a number and one of the units kilovolt, millivolt, volt\)"),
    ],
)  # fmt: skip
def test_a_refusal_names_reason_example_and_remedy_before_anything_is_downloaded(
    labels: list[tuple[str, str]], message: str,
    server: ImageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with pytest.raises(InputError, match=message):
        build_with(labels, server, monkeypatch, tmp_path)
    assert server.requests.total() == 0
    assert not (tmp_path / "out").exists()


def test_with_the_option_two_meanings_are_named(
    server: ImageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"item_volume '12 oz': 'oz' may be fluid ounce or ounce: write its name\)"):
        build_with([("item_volume", "12 oz")], server, monkeypatch, tmp_path, "--unit_spellings")


@pytest.mark.parametrize(
    ("unreadable", "warning"),
    [
        ([("width", "2 cm")], "1 of 20 labels cannot be read (unit_unknown 1; like row 19 (from 0): width '2 cm'"),
        ([("width", "wide")] * 2, ""),  # a tenth, as happens
        (
            [("width", "wide")] * 3,
            "3 of 20 labels cannot be read (broken 3; like row 17 (from 0): width 'wide' is not",
        ),
    ],
)
def test_a_warning_tells_of_many_or_of_those_that_the_option_reads(
    unreadable: list[tuple[str, str]], warning: str,
    server: ImageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    labels = [("width", "2 inch")] * (20 - len(unreadable)) + unreadable
    build_with(labels, server, monkeypatch, tmp_path)
    found = [message for message in caplog.messages if "cannot be read" in message]
    assert len(found) == bool(warning) and all(message.startswith(f"cat.csv: {warning}") for message in found)
    caplog.clear()
    call(inspect.main, monkeypatch, "--train_csv", tmp_path / "cat.csv")
    assert [message for message in caplog.messages if "cannot be read" in message] == found


def test_labels_of_another_schema_are_explained_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    catalogue = Catalogue(tmp_path, "clothes")
    table = write_csv(
        tmp_path / "rows.csv", TRAIN_COLUMNS, [["0.jpg", "g", "size", "XXL"], ["0.jpg", "g", "size", "M"]]
    )
    call(inspect.main, monkeypatch, "--train_csv", table, "--schema", catalogue.schema)
    assert (
        "size 'XXL' is not one of the values S, M, L, XL; add it to the schema, as a value or as a synonym of one"
        in caplog.text
    )
