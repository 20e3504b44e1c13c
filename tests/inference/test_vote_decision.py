"""Which answer the votes decide on: probabilities by hand, ties, spellings, and what never changes the decision."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.submission import PREDICTIONS
from inference.vote_decision import DEFAULT_CONFIDENCE, decide, find_answers, log_odds, softmax, to_table
from inference.vote_weights import VoteWeights
from tests.inference.challenge import default_weights
from tests.inference.vote_files import chosen, make_table, make_votes

TEXTS = ("1 kilogram", "1000 gram", "1000.0 gram", "2 gram", "2.0 gram", "3 ounce", "", "2 gms", "[1, 2] gram")
texts = st.sampled_from(TEXTS)
Row = tuple[str, str | None, str | None]  # the first file has all rows, the others may lack some
rows = st.lists(st.tuples(texts, st.none() | texts, st.none() | texts), min_size=1, max_size=6)
confidences = st.one_of(st.none(), st.floats(0, 1))


def decide_texts(*files: list[str | None], weights: VoteWeights | None = None) -> list[str]:
    votes = make_votes(*(make_table(one) for one in files))
    return chosen(votes, decide(votes, weights or default_weights(len(files))).choices)


def test_one_vote_alone_is_as_likely_right_as_its_confidence() -> None:
    votes = make_votes(make_table(["1 gram", "2 gram", "3 gram", ""], [0.9, 0.2, None, None]))
    decision = decide(votes, default_weights(1))
    assert chosen(votes, decision.choices) == ["1.0 gram", "2.0 gram", "3.0 gram", ""]
    assert decision.confidences[:3] == pytest.approx([0.9, 0.2, DEFAULT_CONFIDENCE])
    assert np.isnan(decision.confidences[3])


def test_probabilities_by_hand() -> None:
    """Scores: -1 + 2 * 1 + logit(0.5) + logit(0.8) for the first answer, and logit(0.9) for the second."""
    votes = make_votes(make_table(["1 gram"], [0.5]), make_table(["2 gram"], [0.9]), make_table(["1 gram"], [0.8]))
    decision = decide(votes, default_weights(3))
    first, second = np.exp(1) * 4, 9
    total = first + second + 1
    assert decision.probabilities == pytest.approx([first / total, second / total])
    assert chosen(votes, decision.choices) == ["1.0 gram"]
    assert decision.confidences == pytest.approx([first / total])


def test_answers_and_who_votes_for_them() -> None:
    votes = make_votes(
        make_table(["1 kilogram", "", "5 gram"], [0.5, None, 0.5]),
        make_table(["1000 gram", "7 gram", "6 gram"]),
        make_table(["2 gram", "7 gram", None], [0.5, 0.5, None]),
    )
    answers = find_answers(votes)
    assert answers.rows.tolist() == [0, 0, 1, 2, 2]
    assert answers.starts.tolist() == [0, 2, 3]
    without = np.log(DEFAULT_CONFIDENCE / (1 - DEFAULT_CONFIDENCE))
    assert answers.features == pytest.approx(
        np.array(
            [
                [1, 1, 1, 0, 0, without, 0],
                [1, 0, 0, 1, 0, 0, 0],
                [1, 0, 1, 1, 0, without, 0],
                [1, 1, 0, 0, 0, 0, 0],
                [1, 0, 1, 0, 0, without, 0],
            ]
        )
    )


def test_extreme_confidences_have_finite_log_odds() -> None:
    found = log_odds(np.array([0.0, 1.0, 0.5, np.nan]))
    assert found == pytest.approx([-np.log(999), np.log(999), 0, np.log(7 / 3)])


def test_softmax_of_each_row() -> None:
    probabilities, of_none = softmax(np.log([1.0, 2.0, 6.0]), np.array([0, 2]))
    assert probabilities == pytest.approx([1 / 4, 2 / 4, 6 / 7])
    assert of_none == pytest.approx([1 / 4, 1 / 7])
    large, of_none = softmax(np.array([1e6, 1e6, -1e6]), np.array([0, 2]))
    assert large == pytest.approx([0.5, 0.5, 0])
    assert of_none == pytest.approx([0, 1])
    assert [len(one) for one in softmax(np.empty(0), np.empty(0, int))] == [0, 0]


def test_the_majority_wins_and_of_a_tie_the_smallest_amount() -> None:
    assert decide_texts(["3 gram"], ["5 gram"], ["5 gram"]) == ["5.0 gram"]
    assert decide_texts(["5 gram"], ["3 gram"]) == ["3.0 gram"]
    assert decide_texts(["2 gram"], ["1 kilogram"], ["1 gram"]) == ["1.0 gram"]


def test_equal_amounts_vote_together_and_are_spelled_like_most_of_them() -> None:
    assert decide_texts(["1 kilogram"], ["1000 gram"], ["2 gram"]) == ["1000.0 gram"]
    assert decide_texts(["1 kilogram"], ["1000 gram"], ["1 kilogram"]) == ["1.0 kilogram"]
    assert decide_texts(["1 kilogram"], ["1 kilogram"], ["1000 gram"], ["1000.0 gram"], ["2 gram"]) == ["1000.0 gram"]
    weights = replace(default_weights(3), vote=np.tile([3.0, 1.0, 1.0], (9, 1)))
    assert decide_texts(["1 kilogram"], ["1000 gram"], ["1000 gram"], weights=weights) == ["1.0 kilogram"]


def test_the_weights_are_those_of_the_attribute() -> None:
    votes = make_votes(make_table(["5 inch"]), make_table(["3 inch"]), entity_name="width")
    weights = default_weights(2)
    weights.vote[0, 0] += 0.1  # width is the first attribute
    assert chosen(votes, decide(votes, weights).choices) == ["5.0 inch"]
    votes = make_votes(make_table(["5 inch"]), make_table(["3 inch"]), entity_name="depth")
    assert chosen(votes, decide(votes, weights).choices) == ["3.0 inch"]


@pytest.mark.parametrize(("confidence", "is_answered"), [(0.21, True), (0.19, False)])
def test_a_prediction_is_empty_where_that_is_expected_to_score_higher(confidence: float, is_answered: bool) -> None:
    """With F1 = 2/3 and half of the wrong rows empty, p (2 - 2/3) > (1 - p) / 2 * 2/3 if p > 1/5."""
    votes = make_votes(make_table(["5 gram"], [confidence]))
    weights = replace(default_weights(1), share_empty=np.full(9, 0.5), f1=2 / 3)
    decision = decide(votes, weights)
    assert chosen(votes, decision.choices) == ["5.0 gram" if is_answered else ""]
    assert decision.confidences == pytest.approx([confidence])


@given(found=rows, order=st.permutations(range(3)), data=st.data())
def test_the_order_of_files_and_rows_does_not_matter(
    found: list[tuple], order: list[int], data: st.DataObject
) -> None:
    columns = [[row[file] for row in found] for file in range(3)]
    sure = [data.draw(st.lists(confidences, min_size=len(found), max_size=len(found))) for _ in range(3)]
    tables = [make_table(column, own) for column, own in zip(columns, sure, strict=True)]
    votes = make_votes(*tables)
    expected = decide(votes, default_weights(3))

    shuffled = make_votes(*(tables[file].iloc[::-1] for file in order))
    decision = decide(shuffled, default_weights(3))
    assert chosen(shuffled, decision.choices) == chosen(votes, expected.choices)
    assert decision.confidences == pytest.approx(expected.confidences, nan_ok=True)


@settings(max_examples=40)
@given(found=rows, data=st.data())
def test_an_answer_that_all_votes_are_for_is_kept(found: list[Row], data: st.DataObject) -> None:
    """Whatever the weights are, if no label is empty."""
    votes = make_votes(*(make_table([row[file] for row in found]) for file in range(3)))
    numbers = st.floats(-5, 5)
    weights = replace(
        default_weights(3),
        vote=np.tile(data.draw(st.tuples(numbers, numbers, numbers)), (9, 1)),
        slope=np.tile(data.draw(st.tuples(numbers, numbers, numbers)), (9, 1)),
        f1=data.draw(st.floats(0, 1)),
    )
    decision = decide(votes, weights)
    for row, choice in enumerate(decision.choices):
        own = set(votes.choices[row].tolist()) - {-1}
        assert choice in own if own else choice == -1, "an answer of a file, if there is one"
        if len(own) == 1:
            assert own == {choice}


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
