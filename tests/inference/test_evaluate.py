"""evaluate, as a function and as a command: scores by hand, JSON, tables and refusals."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from inference import evaluate as command
from inference.evaluate import evaluate
from tests.commands import call, run_here
from tests.inference.schemas import TEXTS
from tests.inference.tables import LABELS, write_clothes, write_labels, write_many_rows, write_predictions

pytestmark = pytest.mark.slow


@pytest.fixture
def references(tmp_path: Path) -> Path:
    return write_labels(tmp_path)


def test_scores_by_hand(tmp_path: Path, references: Path) -> None:
    # Row 0 is right as a quantity only, 1 is right, 2 is wrong, 3 has no prediction.
    scores = evaluate(write_predictions(tmp_path, "1,500.0 gram\n0,10.0 gram\n2,100.0 volt\n"), references)
    assert (scores["rows"], scores["answered"]) == (4, 3)
    assert (scores["true_positives"], scores["false_positives"], scores["false_negatives"]) == (1, 2, 1)
    assert scores["f1"] == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))
    assert scores["f1_quantity"] == pytest.approx(2 * (2 / 3) * (2 / 3) / (4 / 3))
    assert scores["by_entity"]["item_weight"]["f1_quantity"] == 1.0
    assert scores["by_entity"]["voltage"] == scores["by_entity"]["voltage"] | {"rows": 2, "f1": 0.0}


def test_scores_at_the_distribution_of_another_split(tmp_path: Path, references: Path) -> None:
    predictions = write_predictions(tmp_path, "1,500.0 gram\n0,10.0 gram\n2,100.0 volt\n")
    test_csv = tmp_path / "test.csv"
    test_csv.write_text("index,entity_name\n" + "".join(f"{n},{e}\n" for n, e in enumerate(
        ["item_weight"] + ["voltage"] * 3 + ["wattage"])))  # fmt: skip
    done = run_here(
        "inference.evaluate", "--predictions", predictions, "--references", references, "--weights", test_csv,
        "--bootstrap", "50", "--json",
    )  # fmt: skip
    weighted = json.loads(done.stdout)["weighted"]
    # Shares of item_weight and voltage: a half each here, 0.2 and 0.6 in test.csv. So they count 0.4 and 1.2.
    assert weighted["f1"] == pytest.approx(2 * 0.4 / (2 * 0.4 + (0.4 + 1.2) + 1.2))
    assert weighted["f1_quantity"] == pytest.approx(2 * 0.8 / (2 * 0.8 + 1.2 + 1.2))
    assert weighted["f1_interval"][0] <= weighted["f1"] <= weighted["f1_interval"][1]
    assert (weighted["unknown"], weighted["share_unknown"]) == (["wattage"], pytest.approx(0.2))


def test_parquet_predictions_are_read_too(tmp_path: Path, references: Path) -> None:
    table = pd.DataFrame({"index": [0, 1], "prediction": ["10 gram", ""], "confidence": [0.5, None]})
    table.to_parquet(tmp_path / "p.parquet")
    scores = evaluate(tmp_path / "p.parquet", references)
    assert scores["true_positives"] == 1
    assert scores["false_negatives"] == 3


def test_a_split_of_a_dataset_is_a_reference(tmp_path: Path, tiny_dataset: Path) -> None:
    predictions = write_predictions(tmp_path, "1000,500 gram\n1001,230 volt\n")
    scores = evaluate(predictions, f"{tiny_dataset}:validation")
    assert (scores["rows"], scores["answered"]) == (8, 2)
    assert scores["true_positives"] == 1  # the raw label is `500 gram` and `230.0 volt`
    assert evaluate(predictions, f"{tiny_dataset}:validation")["f1_quantity"] > scores["f1"]


def test_the_command_prints_json_and_a_table(tmp_path: Path, references: Path) -> None:
    predictions = write_predictions(tmp_path, "0,10 gram\n")
    done = run_here("inference.evaluate", "--predictions", predictions, "--references", references, "--json")
    assert json.loads(done.stdout) == evaluate(predictions, references, bootstrap=1000)
    done = run_here("inference.evaluate", "--predictions", predictions, "--references", references)
    assert "item_weight" in done.stdout


def test_two_runs_are_compared(tmp_path: Path) -> None:
    worse, references = write_many_rows(tmp_path, right=[n % 2 == 0 for n in range(200)])
    worse = worse.rename(tmp_path / "worse.csv")
    better, _ = write_many_rows(tmp_path, right=[n % 10 > 0 for n in range(200)])
    arguments = ("--predictions", better, "--compare", worse, "--references", references)
    compared = json.loads(run_here("inference.evaluate", *arguments, "--json").stdout)["compare"]
    assert compared["difference"] == pytest.approx(2 * 180 / (2 * 180 + 20) - 2 * 100 / (2 * 100 + 100))
    assert 0 < compared["difference_interval"][0] < compared["difference"] < compared["difference_interval"][1]
    assert (compared["only_these_right"], compared["only_other_right"]) == (100, 20)
    shown = run_here("inference.evaluate", *arguments).stdout
    assert "100 rows are correct only in --predictions, 20 only in --compare" in shown


def test_the_sweep_leaves_predictions_below_each_threshold_empty(tmp_path: Path) -> None:
    """The label of row 3 is empty: without its prediction the score is higher."""
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
    sweep = json.loads(run_here("inference.evaluate", *arguments, "--json").stdout)["sweep"]
    by_threshold = {round(point["confidence"], 2): point for point in sweep["points"]}
    assert by_threshold[0.0]["f1"] == pytest.approx(2 * 2 / (2 * 2 + 2))
    assert by_threshold[0.25]["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1))
    assert by_threshold[0.55]["precision"] == 1.0
    assert by_threshold[0.65]["coverage"] == 0.25
    assert sweep["best"] == by_threshold[0.25]
    assert "best" in run_here("inference.evaluate", *arguments).stdout


def test_a_sweep_needs_confidences(tmp_path: Path, references: Path) -> None:
    done = run_here(
        "inference.evaluate", "--predictions", write_predictions(tmp_path, "0,10 gram\n"), "--references", references,
        "--sweep",
    )  # fmt: skip
    assert done.returncode == 2
    assert "does not have: give the .parquet file next to it" in done.stderr


def test_a_run_to_compare_with_that_is_not_there_is_named_by_its_flag(tmp_path: Path, references: Path) -> None:
    arguments = (
        "--predictions",
        write_predictions(tmp_path, "0,10 gram\n"),
        "--references",
        references,
        "--compare",
        "none.csv",
    )
    done = run_here("inference.evaluate", *arguments)
    assert done.returncode == 2
    assert "--compare none.csv: no such file" in done.stderr


@pytest.mark.parametrize(
    ("labels", "weights", "message"),
    [
        ("entity_name,entity_value\n", None, r"--references .*labels.csv has no rows"),
        (LABELS, "entity_name\nwidth\n", "the references and --weights have no attribute in common"),
    ],
)
def test_a_score_of_nothing_is_an_error(tmp_path: Path, labels: str, weights: str | None, message: str) -> None:
    (tmp_path / "labels.csv").write_text(labels)
    arguments = ["--predictions", write_predictions(tmp_path, ""), "--references", tmp_path / "labels.csv"]
    if weights is not None:
        (tmp_path / "test.csv").write_text(weights)
        arguments += ["--weights", tmp_path / "test.csv"]
    done = run_here("inference.evaluate", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(message, done.stderr)


def test_the_command_scores_another_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, schema = write_clothes(tmp_path, TEXTS["clothes"])
    predictions = write_predictions(tmp_path, "0,S\n1,navy\n2,wool\n4,red\n")
    arguments = ("--predictions", predictions, "--references", labels, "--schema", schema, "--bootstrap", "20")
    call(command.main, monkeypatch, *arguments, "--compare", predictions, "--weights", labels, "--json")
    scores = json.loads(capsys.readouterr().out)
    assert evaluate(predictions, labels, schema=str(schema), bootstrap=20).items() <= scores.items()
    assert scores["compare"]["scores"]["by_kind"] == scores["by_kind"]
    assert scores["weighted"]["f1_meaning"] == pytest.approx(scores["f1_meaning"])
    call(command.main, monkeypatch, *arguments, "--weights", labels)
    shown = capsys.readouterr().out
    assert "F1 exact  canonical    meaning        2 %" in shown
    assert "(multi_choice)" in shown
    assert "F1 by meaning: 95 % confidence interval" in shown
    assert "at the distribution of --weights: F1 exact 0.2857, by meaning 0.5000" in shown
    assert "missing value     of several values some are missing" in shown
    assert "multi_choice: 1 missing, 1 missing value" in shown
