import json
from pathlib import Path

import pandas as pd
import pytest

from inference.evaluate import evaluate
from product_vqa.command import InputError
from tests.commands import run_module

LABELS = """image_link,group_id,entity_name,entity_value
http://x/0.jpg,1,item_weight,10 gram
http://x/1.jpg,1,item_weight,500.0 gram
http://x/2.jpg,1,voltage,"[100.0, 240.0] volt"
http://x/3.jpg,1,voltage,230.0 volt
"""


@pytest.fixture
def references(tmp_path: Path) -> Path:
    file = tmp_path / "train.csv"
    file.write_text(LABELS)
    return file


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "predictions.csv"
    file.write_text(f"index,prediction\n{text}")
    return file


def test_scores_by_hand_with_rows_numbered_where_there_is_no_index(tmp_path: Path, references: Path) -> None:
    # 0 right as a quantity only, 1 right, 2 wrong, 3 not answered at all.
    scores = evaluate(write(tmp_path, "1,500.0 gram\n0,10.0 gram\n2,100.0 volt\n"), references)
    assert (scores["rows"], scores["answered"]) == (4, 3)
    assert (scores["true_positives"], scores["false_positives"], scores["false_negatives"]) == (1, 2, 1)
    assert scores["f1"] == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))
    assert scores["f1_quantity"] == pytest.approx(2 * (2 / 3) * (2 / 3) / (4 / 3))
    assert scores["by_entity"]["item_weight"]["f1_quantity"] == 1.0
    assert scores["by_entity"]["voltage"] == scores["by_entity"]["voltage"] | {"rows": 2, "f1": 0.0}


def test_rows_are_joined_by_index_where_there_is_one(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("index,entity_name,entity_value\n70,width,1.0 inch\n30,width,2.0 inch\n")
    assert evaluate(write(tmp_path, "30,2.0 inch\n70,1.0 inch\n"), labels)["f1"] == 1.0


def test_parquet_predictions_are_read_too(tmp_path: Path, references: Path) -> None:
    table = pd.DataFrame({"index": [0, 1], "prediction": ["10 gram", ""], "confidence": [0.5, None]})
    table.to_parquet(tmp_path / "p.parquet")
    scores = evaluate(tmp_path / "p.parquet", references)
    assert scores["true_positives"] == 1
    assert scores["false_negatives"] == 3


def test_a_split_of_a_dataset_is_a_reference(tmp_path: Path, tiny_dataset: Path) -> None:
    predictions = write(tmp_path, "1000,500 gram\n1001,230 volt\n")
    scores = evaluate(predictions, f"{tiny_dataset}:validation")
    assert (scores["rows"], scores["answered"]) == (8, 2)
    assert scores["true_positives"] == 1  # the raw label is `500 gram` and `230.0 volt`
    assert evaluate(predictions, f"{tiny_dataset}:validation")["f1_quantity"] > scores["f1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("7,1.0 gram\n", r"index 7 \(and 0 more\) does not stand in"),
        ("0,1.0 gram\n0,2.0 gram\n", "line 3: index 0 stands in line 2 already"),
        ("zero,1.0 gram\n", "line 2: index 'zero' is not an integer"),
    ],
)
def test_an_unknown_or_repeated_index_is_an_error(tmp_path: Path, references: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(write(tmp_path, text), references)


@pytest.mark.parametrize(
    ("references", "message"),
    [
        ("none.csv", "--references none.csv: no such file"),
        ("user/name", "is neither a .csv file nor a split"),
        ("./none:test", "--references ./none: no such folder"),
    ],
)
def test_references_that_are_not_there_are_named(tmp_path: Path, references: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(write(tmp_path, "0,\n"), references)


def test_the_command_prints_json_and_a_table(tmp_path: Path, references: Path) -> None:
    predictions = write(tmp_path, "0,10 gram\n")
    done = run_module("inference.evaluate", "--predictions", predictions, "--references", references, "--json")
    assert json.loads(done.stdout) == evaluate(predictions, references)
    done = run_module("inference.evaluate", "--predictions", predictions, "--references", references)
    assert "item_weight" in done.stdout
