"""Rows of predictions: in the order of the batch, empty with their reason, and counted in the summary."""

from typing import Any

import pytest

from inference.dataloader import RowBatch
from inference.predictions import count_not_finite, to_table
from inference.submission import PREDICTIONS, summarize
from product_vqa.modeling.answer import Answer


def answer(text: str, confidence: float, *alternatives: Answer) -> Answer:
    return Answer(text, text, confidence, 0.9, 0.8, 0.7, alternatives)


def make_batch(*failures: str | None) -> RowBatch:
    rows: list[dict[str, Any]] = [
        {"index": 10 + row, "image_link": f"https://shop.example/{row}.jpg", "entity_name": "width", "group_id": "1"}
        for row in range(len(failures))
    ]
    return RowBatch(0, rows, list(failures), {})


def test_answers_are_those_of_the_rows_with_an_image() -> None:
    batch = make_batch("no_image", None, "not_a_picture", None)
    other = answer("2.0 inch", 0.25)
    table = to_table(batch, [answer("1.0 inch", 0.5, other), answer("3.0 metre", 0.75)])
    assert table.schema == PREDICTIONS
    columns = table.to_pydict()
    assert columns["index"] == [10, 11, 12, 13]
    assert columns["prediction"] == ["", "1.0 inch", "", "3.0 metre"]
    assert columns["answer"] == [None, "1.0 inch", None, "3.0 metre"]
    assert columns["reason"] == ["no_image", None, "not_a_picture", None]
    assert columns["alternatives"][1] == [{"prediction": "2.0 inch", "confidence": 0.25}]
    assert [columns[name][3] for name in ("confidence", "number_confidence", "unit_confidence")] == [0.75, 0.9, 0.8]
    assert columns["allowed_probability"][3] == 0.7


def test_below_the_threshold_a_prediction_is_empty_and_the_answer_is_kept() -> None:
    batch = make_batch(None, None)
    table = to_table(batch, [answer("1.0 inch", 0.5), answer("2.0 inch", 0.49)], min_confidence=0.5)
    assert table["prediction"].to_pylist() == ["1.0 inch", ""]
    assert table["answer"].to_pylist() == ["1.0 inch", "2.0 inch"]


@pytest.mark.slow
def test_the_summary_counts_every_row_once() -> None:
    failures = [None, None, None, "no_image", "not_a_picture", "image_unreadable: OSError: x", "not_a_picture"]
    answers = [answer("1.0 inch", 0.5), answer("2.0 inch", 0.1), answer("", 0.0)]
    table = to_table(make_batch(*failures), answers, min_confidence=0.2)
    assert summarize(table) == (
        "7 rows, 1 answered; empty: 2 below the threshold or not valid, 1 without an image, "
        "3 whose image cannot be read (not_a_picture 2, image_unreadable 1)"
    )
    assert count_not_finite(table) == 1
    assert summarize(PREDICTIONS.empty_table()).startswith("0 rows, 0 answered")
