"""Metrics: scores, their intervals and their kinds of mistakes, computed by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from inference.metrics import THRESHOLDS, calibration_error, compare, reliability, sweep
from product_vqa.errors import InputError
from product_vqa.task.schema import CHALLENGE
from product_vqa.task.schema_file import format_schema, parse_schema
from tests.inference.challenge import join, mark_right, mistakes, read_entities, score_table, score_weighted
from tests.inference.schemas import SCHEMAS, TEXTS
from tests.inference.tables import write_clothes, write_labels, write_many_rows, write_predictions


def test_the_distribution_of_its_own_split_changes_no_score(tmp_path: Path, tiny_dataset: Path) -> None:
    table = join(write_predictions(tmp_path, "1000,500 gram\n1001,230 volt\n"), f"{tiny_dataset}:validation")
    weighted = score_weighted(table, read_entities(f"{tiny_dataset}:validation"))
    assert weighted["f1"] == pytest.approx(score_table(table)["f1"])
    assert weighted["unknown"] == []


def test_weights_without_a_common_attribute_are_refused(tmp_path: Path) -> None:
    """The weighted F1 would be 0, whatever the predictions."""
    table = join(write_predictions(tmp_path, "0,10 gram\n"), write_labels(tmp_path))
    with pytest.raises(InputError, match=r"^the references and `weights` have no attribute in common$"):
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


def make_table(*rows: tuple[str, ...]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["image_link", "group_id", "entity_name", "reference", "prediction"])


FOUR_ROWS = make_table(
    ("a", "7", "width", "1.0 inch", "1.0 inch"),
    ("a", "7", "height", "2.0 inch", "3.0 inch"),
    ("b", "", "width", "4.0 inch", ""),
    ("c", "8", "height", "5.0 inch", "5 inch"),  # equal as a quantity only
)


def test_a_table_is_scored_in_total_by_entity_and_by_group() -> None:
    scores = score_table(FOUR_ROWS)
    by_entity, by_group = scores.pop("by_entity"), scores.pop("by_group")
    assert scores.pop("mistakes") == {"missing": 1, "right_unit": 1}
    quantities = ("f1_quantity", "f1_converted", "f1_within_2_percent")
    assert scores == {
        "rows": 4, "answered": 3, "true_positives": 1, "false_positives": 2, "false_negatives": 1, "true_negatives": 0,
        "precision": pytest.approx(1 / 3), "recall": 1 / 2, "f1": pytest.approx(2 / 5),
        **dict.fromkeys(quantities, pytest.approx(2 / 3)),
    }  # fmt: skip
    assert by_entity == {
        "width": {
            "rows": 2, "answered": 1, "true_positives": 1, "false_positives": 0, "false_negatives": 1,
            "true_negatives": 0, "precision": 1.0, "recall": 1 / 2, "f1": pytest.approx(2 / 3),
            **dict.fromkeys(quantities, pytest.approx(2 / 3)),
        },
        "height": {
            "rows": 2, "answered": 2, "true_positives": 0, "false_positives": 2, "false_negatives": 0,
            "true_negatives": 0, "precision": 0.0, "recall": 0.0, "f1": 0.0,
            **dict.fromkeys(quantities, pytest.approx(2 / 3)),
        },
    }  # fmt: skip
    assert {name: group["f1"] for name, group in by_group.items()} == {"7": pytest.approx(2 / 3), "8": 0.0}


def test_the_twenty_largest_groups_are_listed() -> None:
    groups = ["small"] + [f"g{n}" for n in range(20) for _ in range(2)]
    scores = score_table(make_table(*(("a", group, "width", "1.0 inch", "1.0 inch") for group in groups)))
    assert scores["by_group"].keys() == {f"g{n}" for n in range(20)}


def test_each_interval_is_that_of_its_own_score() -> None:
    """Every prediction differs from its label as a string, and equals it as a quantity."""
    table = make_table(*((str(n), "", "width", "1.0 inch", "1 inch") for n in range(5)))
    scores = score_table(table, resamples=20)
    assert scores["f1_interval"] == [0.0, 0.0] and scores["f1_quantity_interval"] == [1.0, 1.0]
    scores = score_weighted(table, pd.Series(["width"]), resamples=20)
    assert scores["f1_interval"] == [0.0, 0.0] and scores["f1_quantity_interval"] == [1.0, 1.0]


def test_weighted_scores_by_hand() -> None:
    table = make_table(
        *(("a", "", "width", f"{n}.0 inch", "1.0 inch") for n in (1, 2, 3)),
        ("b", "", "height", "5.0 inch", "5 inch"),
        ("c", "", "voltage", "1.0 volt", "9.0 volt"),  # counts nothing: `entities` has no voltage
    )
    scores = score_weighted(table, pd.Series(["width", "height", "height", "depth"]))
    # Shares 1/4 and 1/2 of three rows and one: a width counts 1/12, a height 6/12.
    # Exact: 1/12 true and 2/12 + 6/12 false positives; as quantities: 7/12 and 2/12.
    assert scores == {
        "f1": pytest.approx(2 / 10), **dict.fromkeys(("f1_quantity", "f1_converted"), pytest.approx(14 / 16)),
        "f1_within_2_percent": pytest.approx(14 / 16), "share_unknown": 0.25, "unknown": ["depth"],
    }  # fmt: skip


def test_two_tables_of_predictions_are_compared() -> None:
    references = [f"{n}.0 inch" for n in (1, 2, 3, 4, 5)]
    ours, theirs = (
        make_table(*((str(n), "", "width", reference, prediction) for n, (reference, prediction) in enumerate(pairs)))
        for pairs in (
            zip([*references, ""], ["1.0 inch", "2.0 inch", "3.0 inch", "9.0 inch", "9.0 inch", ""], strict=True),
            zip([*references, ""], ["1.0 inch", "9.0 inch", "", "4.0 inch", "9.0 inch", ""], strict=True),
        )
    )
    compared = compare(ours, theirs, resamples=200)
    # 2 x 3 / (2 x 3 + 2) and 2 x 2 / (2 x 2 + 2 + 1)
    assert compared["difference"] == pytest.approx(6 / 8 - 4 / 7)
    low, high = compared.pop("difference_interval")
    assert low < compared["difference"] < high and low >= -1 and high <= 1
    assert compared == {"difference": compared["difference"], "only_these_right": 2, "only_other_right": 1}
    same = compare(ours, ours, resamples=20)
    assert same == {"difference": 0.0, "difference_interval": [0.0, 0.0], "only_these_right": 0, "only_other_right": 0}


def test_an_empty_prediction_is_not_right_even_if_the_label_is_empty() -> None:
    empty = make_table(("a", "", "width", "", ""))
    compared = compare(empty, make_table(("a", "", "width", "", "9.0 inch")), resamples=2)
    assert (compared["only_these_right"], compared["only_other_right"]) == (0, 0)


def test_the_label_of_another_attribute_of_the_same_image_is_recognized() -> None:
    table = pd.DataFrame(
        {
            "image_link": ["a", "a", "b"],
            "entity_name": ["width", "depth", "width"],
            "reference": ["1.0 inch", "2.0 inch", "3.0 inch"],
            "prediction": ["2.0 inch", "2.0 inch", "1.0 inch"],
        },
        index=[4, 2, 7],
    )
    assert mistakes(table).to_dict() == {4: "another_entity", 2: None, 7: "right_unit"}


def test_a_row_without_a_confidence_keeps_its_prediction_in_a_sweep() -> None:
    table = pd.DataFrame(
        {"prediction": ["1.0 inch", "2.0 inch"], "reference": ["1.0 inch", "1.0 inch"], "confidence": [None, 0.5]}
    ).astype({"confidence": float})
    points = sweep(table, thresholds=(0.0, 0.9))["points"]
    assert [point["coverage"] for point in points] == [1.0, 0.5]
    assert [point["precision"] for point in points] == [0.5, 1.0]


def test_a_sweep_names_the_lowest_of_the_best_thresholds() -> None:
    table = pd.DataFrame(
        {
            "prediction": ["1.0 inch", "2.0 inch", "9.0 inch", "9.0 inch", ""],
            "reference": ["1.0 inch", "2.0 inch", "3.0 inch", "", "5.0 inch"],
            "confidence": [0.9, 0.5, 0.2, 0.1, 0.0],
        }
    )
    swept = sweep(table, thresholds=iter((0.0, 0.2, 0.3, 0.5, 0.6)))
    assert [tuple(point.values()) for point in swept["points"]] == [
        (0.0, 4 / 5, 2 / 4, 2 / 3, pytest.approx(4 / 7)),
        (0.2, 3 / 5, 2 / 3, 2 / 3, pytest.approx(2 / 3)),
        (0.3, 2 / 5, 1.0, 2 / 4, pytest.approx(2 / 3)),
        (0.5, 2 / 5, 1.0, 2 / 4, pytest.approx(2 / 3)),
        (0.6, 1 / 5, 1.0, 1 / 4, pytest.approx(2 / 5)),
    ]
    assert all(list(point) == ["confidence", "coverage", "precision", "recall", "f1"] for point in swept["points"])
    assert swept["best"]["confidence"] == 0.2  # F1 4/7, 2/3, 2/3, 2/3, 2/5
    assert [point["confidence"] for point in sweep(table)["points"]] == list(THRESHOLDS)
    assert THRESHOLDS[:3] == (0.0, 0.05, 0.1) and THRESHOLDS[-1] == 0.95 and len(THRESHOLDS) == 20


def test_the_better_threshold_is_found_where_f1_differs_by_little() -> None:
    table = pd.DataFrame(
        {
            "prediction": [f"{n}.0 inch" for n in range(100)],
            "reference": [f"{max(n, 1)}.0 inch" for n in range(100)],
            "confidence": [0.1] + [0.9] * 99,
        }
    )
    assert sweep(table, thresholds=(0.0, 0.5))["best"]["confidence"] == 0.0  # 198 / 199, 198 / 199
    assert sweep(table.assign(reference=["", *table["reference"][1:]]), thresholds=(0.0, 0.5))["best"]["f1"] == 1.0


def test_bins_hold_equally_many_answers_in_their_order() -> None:
    confidences, outcomes = np.full(40, 0.5), np.arange(40) < 20
    assert [group["share_right"] for group in reliability(confidences, outcomes, bins=2)] == [1.0, 0.0]
    assert [group["rows"] for group in reliability(confidences, outcomes)] == [4] * 10
    assert len(reliability(confidences[:3], outcomes[:3])) == 3
    assert calibration_error(confidences, outcomes) == 0.5  # ten bins; in a single one the error would be 0
    # The first of ten bins holds two answers, of which one is right.
    assert calibration_error(np.full(11, 0.5), np.arange(11) < 1) == pytest.approx((2 * 0 + 9 * 0.5) / 11)


def test_answers_of_equal_confidence_stay_in_their_order() -> None:
    """The metrics are the same on every machine: numpy's default order depends on the processor."""
    confidences, outcomes = np.arange(200) % 2 * 0.5, np.arange(200) < 100
    groups = reliability(confidences, outcomes, bins=4)
    assert [(group["confidence"], group["share_right"]) for group in groups] == [(0, 1), (0, 0), (0.5, 1), (0.5, 0)]


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
    with pytest.raises(ValueError, match="longer"):
        mark_right(answers, ["1.0 inch"] * 6)


def test_scores_of_another_schema_by_hand(tmp_path: Path) -> None:
    labels, _ = write_clothes(tmp_path, TEXTS["clothes"])
    # size: right as a string. colour: right as a synonym. material: a value is missing. size NA: left empty.
    # colour, not shown: answered. material: a label that the schema does not allow.
    predictions = write_predictions(tmp_path, '0,S\n1,Navy\n2,wool\n4,red\n5,"cotton, silk"\n')
    schema = SCHEMAS["clothes"]
    scores = score_table(join(predictions, labels, schema=schema), schema=schema, resamples=50)
    assert (scores["rows"], scores["answered"]) == (6, 5)
    assert (scores["true_positives"], scores["false_positives"], scores["false_negatives"]) == (1, 4, 1)
    assert scores["f1"] == pytest.approx(2 * 1 / (2 * 1 + 4 + 1))
    for measure in ("f1_quantity", "f1_meaning", "f1_converted", "f1_within_2_percent"):
        assert scores[measure] == pytest.approx(2 * 2 / (2 * 2 + 3 + 1))
    low, high = scores["f1_meaning_interval"]
    assert low <= scores["f1_meaning"] <= high
    assert scores["mistakes"] == {
        "missing": 1, "answered_not_shown": 1, "missing_value": 1, "not_comparable": 1,
    }  # fmt: skip
    assert list(scores["by_kind"]) == ["choice", "multi_choice"]
    choice, several = scores["by_kind"].values()
    assert (choice["rows"], choice["f1_meaning"]) == (4, pytest.approx(2 * 2 / (2 * 2 + 1 + 1)))
    assert choice["mistakes"] == {"missing": 1, "answered_not_shown": 1}
    assert (several["rows"], several["f1"], several["mistakes"]) == (2, 0.0, {"missing_value": 1, "not_comparable": 1})
    assert list(scores["by_entity"]) == ["colour", "material", "size"]
    assert scores["by_entity"]["size"]["f1_meaning"] == pytest.approx(2 / 3)
    weighted = score_weighted(
        join(predictions, labels, schema=schema), pd.Series(["size", "colour"]), schema=schema, resamples=20
    )
    assert weighted["f1_meaning"] == pytest.approx(choice["f1_meaning"])  # the same shares of these two
    assert "f1_meaning_interval" in weighted


def test_scores_of_the_challenge_have_no_new_fields(tmp_path: Path) -> None:
    table = join(write_predictions(tmp_path, "0,10 gram\n1,0.5 kilogram\n"), write_labels(tmp_path))
    scores = score_table(table, resamples=10)
    assert list(scores) == [
        "rows", "answered", "f1", "precision", "recall", "true_positives", "false_positives", "false_negatives",
        "true_negatives", "f1_quantity", "f1_converted", "f1_within_2_percent", "by_entity", "by_group", "mistakes",
        "f1_interval", "f1_quantity_interval",
    ]  # fmt: skip
    same = parse_schema(format_schema(CHALLENGE), name="schema.yaml")
    assert score_table(table, schema=same, resamples=10) == scores


def test_right_answers_about_other_attributes_are_marked() -> None:
    answers = pd.DataFrame(
        [
            ("memory", "16 gigabyte"), ("memory", "16 terabyte"), ("memory", "8 gigabyte"), ("memory", ""),
            ("bluetooth", "yes"), ("bluetooth", "no"), ("brand", "acme"), ("model_number", "not one"),
            ("bluetooth", ""),
        ],
        columns=["entity_name", "prediction"],
    )  # fmt: skip
    labels = ["16 GB", "16 gigabyte", "16 gigabyte", "16 gigabyte", "with", "yes", "ACME", "AB-1234", ""]
    marked = mark_right(answers, labels, schema=SCHEMAS["electronics"])
    assert list(marked.index) == [0, 1, 2, 4, 5, 6, 8]  # the last one is rightly silent
    assert list(marked["is_right"]) == [True, False, False, True, False, False, True]
    assert list(marked["is_number_right"]) == [True, True, False, True, False, False, True]
    assert list(marked["is_shown"]) == [True] * 6 + [False]
