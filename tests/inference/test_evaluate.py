import json
from pathlib import Path

import pandas as pd
import pytest

from inference.evaluate import evaluate
from inference.metrics import score_table, score_weighted
from inference.references import join, read_entities
from product_vqa.errors import InputError
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


def test_scores_at_the_mix_of_another_split(tmp_path: Path, references: Path) -> None:
    predictions = write(tmp_path, "1,500.0 gram\n0,10.0 gram\n2,100.0 volt\n")
    test_csv = tmp_path / "test.csv"
    test_csv.write_text("index,entity_name\n" + "".join(f"{n},{e}\n" for n, e in enumerate(
        ["item_weight"] + ["voltage"] * 3 + ["wattage"])))  # fmt: skip
    done = run_module(
        "inference.evaluate", "--predictions", predictions, "--references", references, "--weights", test_csv,
        "--bootstrap", 50, "--json",
    )  # fmt: skip
    weighted = json.loads(done.stdout)["weighted"]
    # Shares of item_weight and voltage: a half each here, 0.2 and 0.6 in test.csv. So they count 0.4 and 1.2.
    assert weighted["f1"] == pytest.approx(2 * 0.4 / (2 * 0.4 + (0.4 + 1.2) + 1.2))
    assert weighted["f1_quantity"] == pytest.approx(2 * 0.8 / (2 * 0.8 + 1.2 + 1.2))
    assert weighted["f1_interval"][0] <= weighted["f1"] <= weighted["f1_interval"][1]
    assert (weighted["unknown"], weighted["share_unknown"]) == (["wattage"], pytest.approx(0.2))


def test_the_mix_of_its_own_split_changes_no_score(tmp_path: Path, tiny_dataset: Path) -> None:
    table = join(write(tmp_path, "1000,500 gram\n1001,230 volt\n"), f"{tiny_dataset}:validation")
    weighted = score_weighted(table, read_entities(f"{tiny_dataset}:validation"))
    assert weighted["f1"] == pytest.approx(score_table(table)["f1"])
    assert weighted["unknown"] == []


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
        ("7,1.0 gram\n", r"index 7 \(and 0 more\) is not in"),
        ("0,1.0 gram\n0,2.0 gram\n", r"line 3: duplicate index 0 \(first seen on line 2\)"),
        ("zero,1.0 gram\n", "line 2: index 'zero' is not an integer"),
    ],
)
def test_an_unknown_or_repeated_index_is_an_error(tmp_path: Path, references: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(write(tmp_path, text), references)


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
        evaluate(write(tmp_path, "0,\n"), references)


def test_the_command_prints_json_and_a_table(tmp_path: Path, references: Path) -> None:
    predictions = write(tmp_path, "0,10 gram\n")
    done = run_module("inference.evaluate", "--predictions", predictions, "--references", references, "--json")
    assert json.loads(done.stdout) == evaluate(predictions, references, bootstrap=1000)
    done = run_module("inference.evaluate", "--predictions", predictions, "--references", references)
    assert "item_weight" in done.stdout


def test_amounts_in_other_units_and_rounded_ones_count_where_it_says_so(tmp_path: Path, references: Path) -> None:
    scores = evaluate(write(tmp_path, "0,0.01 kilogram\n1,0.495 kilogram\n3,0.23 kilovolt\n"), references)
    assert [scores[name] for name in ("f1", "f1_quantity")] == [0.0, 0.0]
    assert scores["f1_converted"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))  # rows 0 and 3; 1 wrong, 2 not answered
    assert scores["f1_within_2_percent"] == pytest.approx(2 * 3 / (2 * 3 + 0 + 1))
    assert scores["mistakes"] == {"missing": 1, "converted": 2, "other": 1}


def test_scores_by_group_are_those_of_its_rows(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("group_id,entity_name,entity_value\n7,width,1.0 inch\n7,width,2.0 inch\n8,width,3.0 inch\n")
    by_group = evaluate(write(tmp_path, "0,1.0 inch\n1,1.0 inch\n2,3.0 inch\n"), labels)["by_group"]
    assert list(by_group) == ["7", "8"]
    assert (by_group["7"]["rows"], by_group["7"]["true_positives"]) == (2, 1)
    assert by_group["8"]["f1"] == 1.0


def many_rows(tmp_path: Path, *, right: list[bool]) -> tuple[Path, Path]:
    labels = "".join(f"http://x/{n // 2}.jpg,width,{n + 1}.0 inch\n" for n in range(len(right)))
    (tmp_path / "many.csv").write_text(f"image_link,entity_name,entity_value\n{labels}")
    answers = "".join(f"{n},{n + 1 if is_right else 9999}.0 inch\n" for n, is_right in enumerate(right))
    return write(tmp_path, answers), tmp_path / "many.csv"


def test_the_interval_holds_the_score_and_narrows_with_rows(tmp_path: Path) -> None:
    widths = []
    for rows in (40, 1000):
        predictions, references = many_rows(tmp_path, right=[n % 4 < 3 for n in range(rows)])
        scores = evaluate(predictions, references, bootstrap=500)
        low, high = scores["f1_interval"]
        assert low < scores["f1"] < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 3
    # Two rows a picture, right or wrong together: as wide as if there were half as many rows.
    predictions, references = many_rows(tmp_path, right=[n // 2 % 4 < 3 for n in range(1000)])
    together = evaluate(predictions, references, bootstrap=500)["f1_interval"]
    assert together[1] - together[0] > 1.2 * widths[1]


def test_two_runs_side_by_side(tmp_path: Path) -> None:
    worse, references = many_rows(tmp_path, right=[n % 2 == 0 for n in range(200)])
    worse = worse.rename(tmp_path / "worse.csv")
    better, _ = many_rows(tmp_path, right=[n % 10 > 0 for n in range(200)])
    arguments = ("--predictions", better, "--compare", worse, "--references", references)
    compared = json.loads(run_module("inference.evaluate", *arguments, "--json").stdout)["compare"]
    assert compared["difference"] == pytest.approx(2 * 180 / (2 * 180 + 20) - 2 * 100 / (2 * 100 + 100))
    assert 0 < compared["difference_interval"][0] < compared["difference"] < compared["difference_interval"][1]
    assert (compared["only_these_right"], compared["only_other_right"]) == (100, 20)
    shown = run_module("inference.evaluate", *arguments).stdout
    assert "100 rows right only here, 20 only in the other" in shown


def test_the_sweep_withholds_what_is_below_each_threshold(tmp_path: Path) -> None:
    """Row 3 is empty in truth: whoever withholds its answer wins."""
    (tmp_path / "labels.csv").write_text(
        "entity_name,entity_value\nwidth,1.0 inch\nwidth,2.0 inch\nwidth,3.0 inch\nwidth,\n"
    )
    pd.DataFrame(
        {
            "index": [0, 1, 2, 3],
            "prediction": ["1.0 inch", "2.0 inch", "9.0 inch", "9.0 inch"],
            "confidence": [0.9, 0.6, 0.5, 0.2],
        }
    ).to_parquet(tmp_path / "p.parquet")
    arguments = ("--predictions", tmp_path / "p.parquet", "--references", tmp_path / "labels.csv", "--sweep")
    sweep = json.loads(run_module("inference.evaluate", *arguments, "--json").stdout)["sweep"]
    by_threshold = {round(point["confidence"], 2): point for point in sweep["points"]}
    assert by_threshold[0.0]["f1"] == pytest.approx(2 * 2 / (2 * 2 + 2))
    assert by_threshold[0.25]["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1))
    assert by_threshold[0.55]["precision"] == 1.0
    assert by_threshold[0.65]["coverage"] == 0.25
    assert sweep["best"] == by_threshold[0.25]
    assert "best" in run_module("inference.evaluate", *arguments).stdout


def test_a_sweep_needs_confidences(tmp_path: Path, references: Path) -> None:
    done = run_module(
        "inference.evaluate", "--predictions", write(tmp_path, "0,10 gram\n"), "--references", references, "--sweep",
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "does not have: give the .parquet file next to it" in done.stderr


def test_a_run_to_compare_with_that_is_not_there_is_named_by_its_flag(tmp_path: Path, references: Path) -> None:
    arguments = ("--predictions", write(tmp_path, "0,10 gram\n"), "--references", references, "--compare", "none.csv")
    done = run_module("inference.evaluate", *arguments, check=False)
    assert done.returncode == 2
    assert "--compare none.csv: no such file" in done.stderr
