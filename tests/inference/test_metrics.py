"""Metrics: scores, their intervals and their kinds of mistakes, computed by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from inference.metrics import (
    calibration_error,
    mark_right,
    mistakes,
    reliability,
    score_table,
    score_weighted,
    sweep,
)
from inference.references import join, read_entities
from product_vqa.errors import InputError
from tests.inference.tables import write_labels, write_many_rows, write_predictions


def test_the_distribution_of_its_own_split_changes_no_score(tmp_path: Path, tiny_dataset: Path) -> None:
    table = join(write_predictions(tmp_path, "1000,500 gram\n1001,230 volt\n"), f"{tiny_dataset}:validation")
    weighted = score_weighted(table, read_entities(f"{tiny_dataset}:validation"))
    assert weighted["f1"] == pytest.approx(score_table(table)["f1"])
    assert weighted["unknown"] == []


def test_weights_without_a_common_attribute_are_refused(tmp_path: Path) -> None:
    """The weighted F1 would be 0, whatever the predictions."""
    table = join(write_predictions(tmp_path, "0,10 gram\n"), write_labels(tmp_path))
    with pytest.raises(InputError, match="the references and `weights` have no attribute in common"):
        score_weighted(table, pd.Series(["width", "depth"]))


def test_amounts_in_other_units_and_rounded_ones_count_in_their_own_scores(tmp_path: Path) -> None:
    predictions = write_predictions(tmp_path, "0,0.01 kilogram\n1,0.495 kilogram\n3,0.23 kilovolt\n")
    scores = score_table(join(predictions, write_labels(tmp_path)))
    assert [scores[name] for name in ("f1", "f1_quantity")] == [0.0, 0.0]
    assert scores["f1_converted"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))  # rows 0 and 3; 1 wrong, 2 not answered
    assert scores["f1_within_2_percent"] == pytest.approx(2 * 3 / (2 * 3 + 0 + 1))
    assert scores["mistakes"] == {"missing": 1, "converted": 2, "other": 1}


def test_scores_by_group_are_those_of_its_rows(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("group_id,entity_name,entity_value\n7,width,1.0 inch\n7,width,2.0 inch\n8,width,3.0 inch\n")
    by_group = score_table(join(write_predictions(tmp_path, "0,1.0 inch\n1,1.0 inch\n2,3.0 inch\n"), labels))[
        "by_group"
    ]
    assert list(by_group) == ["7", "8"]
    assert (by_group["7"]["rows"], by_group["7"]["true_positives"]) == (2, 1)
    assert by_group["8"]["f1"] == 1.0


def test_the_interval_holds_the_score_and_narrows_with_rows(tmp_path: Path) -> None:
    widths = []
    for rows in (40, 1000):
        predictions, references = write_many_rows(tmp_path, right=[n % 4 < 3 for n in range(rows)])
        scores = score_table(join(predictions, references), resamples=500)
        low, high = scores["f1_interval"]
        assert low < scores["f1"] < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 3
    # Two rows per image, right or wrong together: as wide as with half as many rows.
    predictions, references = write_many_rows(tmp_path, right=[n // 2 % 4 < 3 for n in range(1000)])
    together = score_table(join(predictions, references), resamples=500)["f1_interval"]
    assert together[1] - together[0] > 1.2 * widths[1]


def test_the_label_of_another_attribute_of_the_same_image_is_recognized() -> None:
    table = pd.DataFrame(
        {
            "image_link": ["a", "a", "b"],
            "entity_name": ["width", "depth", "width"],
            "reference": ["1.0 inch", "2.0 inch", "3.0 inch"],
            "prediction": ["2.0 inch", "2.0 inch", "1.0 inch"],
        }
    )
    assert list(mistakes(table)) == ["another_entity", None, "right_unit"]


def test_a_row_without_a_confidence_keeps_its_prediction_in_a_sweep() -> None:
    table = pd.DataFrame(
        {"prediction": ["1.0 inch", "2.0 inch"], "reference": ["1.0 inch", "1.0 inch"], "confidence": [None, 0.5]}
    ).astype({"confidence": float})
    points = sweep(table, thresholds=(0.0, 0.9))["points"]
    assert [point["coverage"] for point in points] == [1.0, 0.5]
    assert [point["precision"] for point in points] == [0.5, 1.0]


def test_calibration_error_by_hand() -> None:
    confidences, outcomes = np.array([0.8, 0.8, 0.8, 0.8, 0.5, 0.5]), np.array([1, 1, 1, 0, 1, 0], dtype=bool)
    groups = reliability(confidences, outcomes, bins=3)
    assert [group["rows"] for group in groups] == [2, 2, 2]
    assert groups[0] == {"confidence": 0.5, "share_right": 0.5, "rows": 2}
    assert calibration_error(confidences, outcomes, bins=3) == pytest.approx((0 + abs(1 - 0.8) + abs(0.5 - 0.8)) / 3)


def test_a_label_that_is_not_a_quantity_does_not_count() -> None:
    answers = pd.DataFrame({"prediction": ["1.0 inch", "1.0 inch", "1.0 inch", "", "1.0 foot"]})
    table = mark_right(answers, ["1.0 inch", "2 inch", "[1.0, 2.0] inch", "1.0 inch", "1.0 inch"])
    assert list(table["is_right"]) == [True, False, False]
    assert list(table["is_number_right"]) == [True, False, True]
