"""What a process and a worker share: the rows, the batches, and the description of a run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from inference import AttributeReader
from inference.batch_predictor import Settings, find_indexes, load_rows, predict_batches
from inference.predict import PredictOptions
from product_vqa.errors import InputError
from product_vqa.hub import Location
from product_vqa.row_selection import ALL_ROWS, RowSelection
from product_vqa.task.features import FEATURES
from tests.inference.challenge import RowBatches
from tests.tiny import make_rows, save_dataset

SETTINGS = Settings("test", ALL_ROWS, "float32", None, "on", allow_empty=False, num_beams=1, min_confidence=0.0)


@pytest.fixture
def location(tmp_path: Path) -> Location:
    return Location(str(save_dataset(tmp_path / "dataset", test=5)))


def test_the_settings_are_those_of_the_options() -> None:
    options = PredictOptions(dataset="d", output="s.csv", split="validation", dtype="float16", load_in_4bit=True,
                             constrain="off", allow_empty=True, num_beams=3, min_confidence=0.5,
                             ground="none")  # fmt: skip
    selection = RowSelection(max_rows=7)
    expected = Settings("validation", selection, "float16", True, "off", allow_empty=True, num_beams=3,
                        min_confidence=0.5)  # fmt: skip
    assert Settings.of(options, selection) == expected


def test_batches_are_cut_in_the_order_of_the_split(location: Location) -> None:
    rows = load_rows(location, SETTINGS)
    indexes = find_indexes(rows, batch_size=2, location=location, split="test")
    assert indexes == [[5000, 5001], [5002, 5003], [5004]]
    selected = load_rows(location, replace(SETTINGS, selection=RowSelection(indexes=frozenset({5001, 5004}))))
    assert find_indexes(selected, batch_size=2, location=location, split="test") == [[5001, 5004]]


def test_an_index_that_occurs_twice_is_refused() -> None:
    rows = Dataset.from_list([*make_rows(2), *make_rows(1)], features=FEATURES)
    with pytest.raises(InputError, match="`dataset` a/b: split test has a duplicate index"):
        find_indexes(rows, batch_size=2, location=Location("a/b"), split="test")


def test_a_split_or_a_selection_without_rows_names_the_dataset(location: Location) -> None:
    with pytest.raises(InputError, match=r"`dataset` .*split"):
        load_rows(location, replace(SETTINGS, split="nothing"))
    with pytest.raises(InputError, match="`dataset` split test: `rows` select none of the 5 rows"):
        load_rows(location, replace(SETTINGS, selection=RowSelection(indexes=frozenset({1}))))


def test_a_description_has_what_a_prediction_depends_on(location: Location, tiny_base: Path) -> None:
    base, given = Location(str(tiny_base)), {"rows": 5, "batch_size": 2, "provenance": {"dtype": "torch.float32"}}
    run = SETTINGS.describe(dataset=location, base_model=base, **given)  # type: ignore[arg-type]
    assert run["dataset"] == str(location) and len(run["dataset_sha256"]) == len(run["base_sha256"]) == 64
    assert {name: run[name] for name in ("split", "constrain", "allow_empty", "num_beams", "min_confidence")} == {
        "split": "test", "constrain": "on", "allow_empty": False, "num_beams": 1, "min_confidence": 0.0,
    }  # fmt: skip
    assert (run["rows"], run["batch_size"], run["dtype"]) == (5, 2, "torch.float32")
    assert "row_selection" not in run
    few = replace(SETTINGS, selection=RowSelection(max_rows=3, seed=4))
    described = few.describe(dataset=location, base_model=base, **given)  # type: ignore[arg-type]
    assert described == run | {"row_selection": {"max_rows": 3, "seed": 4}}


@pytest.mark.slow
def test_batches_of_these_numbers_are_answered_in_this_order(
    adapter_reader: AttributeReader, location: Location
) -> None:
    batches = RowBatches(load_rows(location, SETTINGS), processor=adapter_reader.processor, batch_size=2)

    def predict(numbers: list[int], **changes: Any) -> dict[int, list[dict[str, Any]]]:
        options = {"num_workers": 0, "min_confidence": 0.0} | changes
        tables = predict_batches(adapter_reader, batches, numbers, **options)
        return {number: table.to_pylist() for number, table in tables}

    found = predict([2, 0])
    assert list(found) == [2, 0]
    assert [row["index"] for row in found[0]] == [5000, 5001]
    assert predict([0], num_workers=1)[0] == found[0]
    assert {row["prediction"] for row in predict([0], min_confidence=1.0)[0]} == {""}
