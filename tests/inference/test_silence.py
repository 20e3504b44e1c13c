"""How silence is scored: by hand, for the challenge and for another schema."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from inference import evaluate as command
from inference.calibrate import apply_calibration, cross_fit, find_threshold, measure_all
from inference.dataloader import RowBatch
from inference.evaluate import evaluate
from inference.metrics import apply_threshold, auroc, mark_right, score_table, sweep
from inference.predictions import to_table
from inference.report import shown_bins
from inference.sources import check_schema
from product_vqa.errors import InputError
from product_vqa.hub import Location
from product_vqa.modeling.answer import Answer
from product_vqa.modeling.calibration import Calibration, Scaling, fit_calibration
from product_vqa.task.schema import CHALLENGE, is_challenge
from tests.commands import call
from tests.inference.schemas import SCHEMAS

SILENT = CHALLENGE.with_not_shown(CHALLENGE.names)
TABLE = pd.DataFrame(
    {
        "index": range(6),
        "entity_name": ["width", "width", "height", "height", "depth", "depth"],
        "group_id": "",
        "image_link": ["a", "b", "a", "b", "a", "b"],
        "reference": ["1.0 inch", "2.0 inch", "", "", "3.0 inch", ""],
        "prediction": ["1.0 inch", "", "", "7.0 inch", "9.0 inch", ""],
        "confidence": [0.9, 0.6, 0.7, 0.8, 0.5, 0.9],
        "shown": [0.99, 0.4, 0.3, 0.6, 0.8, 0.1],
    }
)


def test_scores_of_silence_by_hand() -> None:
    scores = score_table(TABLE, schema=SILENT)
    silence = scores["silence"]
    assert (silence["rows"], silence["na_precision"], silence["na_recall"]) == (3, 2 / 3, 2 / 3)
    assert silence["na_f1"] == pytest.approx(2 / 3)
    # Of 9 pairs of a row with a value and one without: 0.4 < 0.6 alone is the wrong way round; confidence: 0.9 > 0.7,
    # 0.9 > 0.8, 0.9 = 0.9, and no other.
    assert silence["auroc_shown"] == pytest.approx(8 / 9)
    assert silence["auroc_confidence"] == pytest.approx(2.5 / 9)
    answerable = silence["answerable"]
    assert (answerable["rows"], answerable["true_positives"], answerable["false_positives"]) == (3, 1, 1)
    assert answerable["f1"] == pytest.approx(2 * 1 / (2 * 1 + 1 + 1))
    # All rows, as the challenge scores them: a value where there is none is a false positive, silence counts nothing.
    assert (scores["true_positives"], scores["false_positives"], scores["false_negatives"]) == (1, 2, 1)
    assert scores["true_negatives"] == 2 and "f1_meaning" not in scores
    assert scores["mistakes"] == {"missing": 1, "answered_not_shown": 1, "right_unit": 1}
    assert "silence" not in score_table(TABLE[TABLE["reference"] != ""], schema=SILENT)


def test_a_threshold_is_on_both_probabilities() -> None:
    kept = apply_threshold(TABLE, 0.7)["prediction"]
    assert list(kept) == ["1.0 inch", "", "", "", "", ""]  # 0.8 and 0.6, 0.5 and 0.8 are below it
    points = {round(point["confidence"], 2): point for point in sweep(TABLE)["points"]}
    assert points[0.55]["f1"] == pytest.approx(2 * 1 / (2 * 1 + 1 + 2)) and points[0.65]["precision"] == 1.0
    answers = [
        Answer("1 inch", "1.0 inch", confidence, shown=shown)
        for confidence, shown in ((0.9, 0.95), (0.9, 0.5), (0.5, 0.95), (0.9, None), (0.5, None))
    ]
    rows = [{"index": n, "image_link": "a", "entity_name": "width"} for n in range(5)]
    batch = RowBatch(number=0, rows=rows, failures=[None] * 5, inputs={})
    table = to_table(batch, answers, min_confidence=0.7)
    assert [bool(text) for text in table["prediction"].to_pylist()] == [True, False, False, True, False]
    assert table["shown"].to_pylist() == [0.95, 0.5, 0.95, None, None]


def test_auroc_counts_pairs_and_ties_half() -> None:
    assert auroc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True])) == pytest.approx(3.5 / 4)
    assert auroc(np.array([0.1, 0.2]), np.array([True, True])) is None


@pytest.mark.parametrize("name", ["challenge", "nutrition"])
def test_an_answer_where_there_is_nothing_is_wrong_and_silence_there_is_right(name: str) -> None:
    schema, entity, value = (SILENT, "width", "1.0 inch") if name == "challenge" else (
        SCHEMAS["nutrition"].with_not_shown(["fat"]), "fat", "1.0 gram"
    )  # fmt: skip
    predictions = [value, value, "", "", value]
    labels = [value, "", "", value, "2 what"]
    answers = pd.DataFrame({"entity_name": entity, "prediction": predictions, "confidence": 0.5})
    marked = mark_right(answers, labels, schema=schema)
    assert list(marked["is_right"]) == [True, False, True, False]
    assert list(marked["is_number_right"]) == [True, False, True, False]
    assert list(marked["is_shown"]) == [True, False, False, True]
    never_silent = mark_right(answers, labels, schema=schema.with_not_shown(()))
    assert list(never_silent.index) == [0]  # as before: an empty text says nothing


def simulate(number: int, *, seed: int, shown_bias: float = 0.0) -> pd.DataFrame:
    """Answers of an adapter that was trained to be silent; its `shown` and confidences have the log-odds doubled."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(1.0, 2.5, number)
    is_shown = rng.random(number) < 1 / (1 + np.exp(-odds))
    value_odds = rng.normal(2.0, 2.0, number)
    is_value_right = rng.random(number) < 1 / (1 + np.exp(-value_odds))
    is_silent = odds < 0
    shown = 1 / (1 + np.exp(-(2 * odds + shown_bias)))
    confidence = np.minimum(1 / (1 + np.exp(-2 * value_odds)), shown)
    return pd.DataFrame(
        {
            "image_link": [f"{n // 2}" for n in range(number)],
            "prediction": np.where(is_silent, "", "1.0 gram"),
            "confidence": np.where(is_silent, 1 - shown, confidence),
            "shown": shown,
            "number_confidence": confidence,
            "unit_confidence": 1.0,
            "is_shown": is_shown,
            "is_right": np.where(is_silent, ~is_shown, is_shown & is_value_right),
            "is_number_right": np.where(is_silent, ~is_shown, is_shown & is_value_right),
        }
    )


def test_shown_is_calibrated_on_all_rows_and_confidence_on_those_with_an_answer() -> None:
    answers = simulate(4000, seed=0, shown_bias=1.0)
    calibration = fit_calibration(answers)
    assert calibration.shown.temperature == pytest.approx(2.0, rel=0.15)
    assert calibration.shown.bias == pytest.approx(-0.5, abs=0.15)
    given = answers[answers["prediction"] != ""].drop(columns="shown")
    assert fit_calibration(given).answer == calibration.answer
    metrics = measure_all(answers, seed=0)
    shown = metrics["shown_measured"]
    assert (metrics["rows"], shown["rows"]) == (len(given), 4000)
    assert shown["share_shown"] == pytest.approx(answers["is_shown"].mean())
    assert shown["calibration_error"]["after"] < 0.03 < shown["calibration_error"]["before"]
    assert shown["auroc"]["after"] == pytest.approx(shown["auroc"]["before"], abs=0.01)
    assert shown["auroc"]["after"] > 0.8
    assert cross_fit(answers, column="shown").tolist() != answers["shown"].tolist()
    assert "shown_measured" not in measure_all(answers.assign(shown=np.nan)[answers["prediction"] != ""], seed=0)


def test_the_table_is_calibrated_as_the_reader_calibrates() -> None:
    answers = simulate(50, seed=1)
    calibration = Calibration(answer=Scaling(1.5, 0.2), value=Scaling(0.7, 0.1), shown=Scaling(2.0, -0.3))
    answers.loc[::2, "number_confidence"] = np.nan
    scaled = apply_calibration(answers, calibration)
    for row, after in zip(answers.to_dict("records"), scaled.to_dict("records"), strict=True):
        number = None if np.isnan(row["number_confidence"]) else row["number_confidence"]
        answer = Answer("", row["prediction"], row["confidence"], number_confidence=number, unit_confidence=number,
                        allowed_probability=1.0, shown=row["shown"])  # fmt: skip
        read = calibration.apply(answer)
        assert after["shown"] == pytest.approx(read.shown)
        if row["prediction"]:
            assert after["confidence"] == pytest.approx(read.confidence)


def test_the_threshold_of_calibrated_answers_holds_on_others() -> None:
    calibration = fit_calibration(simulate(1000, seed=2))
    threshold = find_threshold(simulate(4000, seed=3), calibration, 0.2)
    assert threshold is not None and threshold.at_most_wrong == 0.2
    fresh = apply_calibration(simulate(50_000, seed=4), calibration)
    is_given = (fresh["prediction"] != "") & (fresh[["confidence", "shown"]].min(axis=1) >= threshold.min_confidence)
    assert is_given.mean() > 0.1 and 1 - fresh["is_right"][is_given].mean() <= 0.2


def test_a_dataset_whose_answers_may_be_empty_is_answered_by_an_adapter_that_is_never_silent() -> None:
    from datasets import Dataset

    rows = Dataset.from_dict({"entity_name": ["width"]})
    adapter, dataset = Location("user/adapter", "1" * 40), Location("user/dataset", "2" * 40)
    assert is_challenge(SILENT)
    check_schema(CHALLENGE, SILENT, rows, dataset=dataset, adapter=adapter)
    check_schema(SILENT, CHALLENGE, rows, dataset=dataset, adapter=adapter)
    with pytest.raises(InputError, match="width is only in one of them"):
        check_schema(SILENT, SCHEMAS["nutrition"], rows, dataset=dataset, adapter=adapter)


@pytest.fixture
def files(tmp_path: Path) -> list[str | Path]:
    TABLE[["index", "prediction", "confidence", "shown"]].to_parquet(tmp_path / "p.parquet")
    labels = TABLE.rename(columns={"reference": "entity_value"})
    labels[["index", "image_link", "entity_name", "entity_value"]].to_csv(tmp_path / "labels.csv", index=False)
    return ["--predictions", tmp_path / "p.parquet", "--references", tmp_path / "labels.csv", "--bootstrap", "0"]


def test_evaluate_prints_how_well_silence_is_kept(
    files: list[str | Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(command.main, monkeypatch, *files)
    printed = capsys.readouterr().out
    assert "NA precision 0.6667, recall 0.6667, F1 0.6667" in printed
    assert "AUROC of shown between the two: 0.8889" in printed
    assert "3 other rows alone: F1 exact 0.5000, quantity 0.5000" in printed
    call(command.main, monkeypatch, *files, "--min_confidence", "0.7", "--json")
    scores = json.loads(capsys.readouterr().out)
    assert (scores["answered"], scores["precision"], scores["silence"]["na_recall"]) == (1, 1.0, 1.0)
    assert evaluate(files[1], files[3])["answered"] == 3
    with pytest.raises(InputError, match="--min_confidence must be 0 to 1"):
        call(command.main, monkeypatch, *files, "--min_confidence", "1.5")
    pd.read_parquet(files[1]).drop(columns=["confidence", "shown"]).to_parquet(files[1])
    with pytest.raises(InputError, match="--min_confidence needs confidences"):
        call(command.main, monkeypatch, *files, "--min_confidence", "0.5")


def test_the_report_bins_both_kinds_of_rows() -> None:
    bins = shown_bins(TABLE.assign(shown=[0.95, 0.45, 0.35, 0.65, 0.85, 0.15]))
    assert [round(one["answerable"], 3) for one in bins] == [0, 0, 0, 0, 0.333, 0, 0, 0, 0.333, 0.333]
    assert [round(one["not_shown"], 3) for one in bins] == [0, 0.333, 0, 0.333, 0, 0, 0.333, 0, 0, 0]
    assert shown_bins(TABLE.assign(shown=np.nan)) == [] == shown_bins(TABLE[TABLE["reference"] != ""])
