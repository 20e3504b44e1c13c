"""The predictions of an ensemble as a table."""

import numpy as np
import pytest

from inference.submission import PREDICTIONS
from inference.vote_table import to_table
from inference.vote_weights import decide, default_weights
from tests.inference.vote_files import make_table, make_votes


def test_a_row_has_its_prediction_its_answer_and_the_alternatives() -> None:
    first = make_table(["1 gram", "", "5 gram", "1 volt"], [0.6, None, 0.5, 0.9]).assign(
        entity_name=["item_weight", "width", "item_weight", ""], image_link=["http://x/0", "", "", ""]
    )
    votes = make_votes(
        first, make_table(["2 gram", "", "5.0 gram", "3 volt"]), make_table(["3 gram", "", None, "3 volt"])
    )
    decision = decide(votes, default_weights(3))
    table = to_table(votes, decision, is_left_empty=np.array([False, False, True, False]))
    assert table.schema.equals(PREDICTIONS)
    rows = table.to_pylist()
    assert [row["index"] for row in rows] == [0, 1, 2, 3]
    assert [row["image_link"] for row in rows] == ["http://x/0", None, None, None]
    assert [row["entity_name"] for row in rows] == ["item_weight", "width", "item_weight", None]
    assert [row["prediction"] for row in rows] == ["2.0 gram", "", "", "3.0 volt"]
    assert [row["answer"] for row in rows] == ["2.0 gram", None, "5.0 gram", "3.0 volt"]
    assert rows[1]["confidence"] is rows[1]["alternatives"] is None
    assert [row["confidence"] for row in rows] == [
        None if np.isnan(one) else pytest.approx(one) for one in decision.confidences
    ]
    others = rows[0]["alternatives"]
    assert [one["prediction"] for one in others] == ["3.0 gram", "1.0 gram"]
    assert rows[0]["confidence"] == others[0]["confidence"] > others[1]["confidence"] > 0
    assert rows[2]["alternatives"] == []
    assert [one["prediction"] for one in rows[3]["alternatives"]] == ["1.0 volt"]
    for name in ("number_confidence", "unit_confidence", "allowed_probability", "reason"):
        assert table[name].null_count == 4


def test_a_table_without_any_vote() -> None:
    votes = make_votes(make_table(["", "2 gms"]))
    table = to_table(votes, decide(votes, default_weights(1)), is_left_empty=np.zeros(2, bool))
    assert table["prediction"].to_pylist() == ["", ""]
    assert table["alternatives"].null_count == 2
