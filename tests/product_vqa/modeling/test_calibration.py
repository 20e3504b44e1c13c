"""Confidences: a known scaling is fitted, applied and measured."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from product_vqa.modeling.answer import Answer
from product_vqa.modeling.calibration import (
    Calibration,
    Scaling,
    fit_calibration,
    fit_scaling,
    load_calibration,
    log_loss,
)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(temperature=st.floats(0.3, 4.0), bias=st.floats(-1.5, 1.5), seed=st.integers(0, 100))
def test_a_known_scaling_is_found_again(temperature: float, bias: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidences = rng.beta(2, 1, size=20_000)
    outcomes = rng.random(20_000) < [*map(Scaling(temperature, bias), confidences)]
    found = fit_scaling(confidences, outcomes)
    assert found.temperature == pytest.approx(temperature, rel=0.2)
    assert found.bias == pytest.approx(bias, abs=0.3)


@settings(max_examples=200, deadline=None)
@given(p=st.floats(0, 1), q=st.floats(0, 1), temperature=st.floats(0.05, 20), bias=st.floats(-10, 10))
def test_scaling_keeps_the_order_and_the_ends(p: float, q: float, temperature: float, bias: float) -> None:
    scaling = Scaling(temperature, bias)
    scaled = [scaling(x) for x in (p, q)]
    assert all(0 <= x <= 1 for x in scaled)
    assert (p <= q) == (scaled[0] <= scaled[1]) or scaled[0] == scaled[1] or p == q
    assert Scaling()(p) == pytest.approx(p, abs=1e-12)
    assert (scaling(0.0), scaling(1.0)) == (0.0, 1.0)
    assert scaling(0.5) == pytest.approx(1 / (1 + np.exp(-bias)))


def test_nothing_to_learn_leaves_confidences_as_they_are() -> None:
    confidences = np.array([0.2, 0.9])
    for outcomes in ([True, True], [False, False]):
        assert fit_scaling(confidences, np.array(outcomes)) == Scaling()
    assert fit_scaling(np.array([]), np.array([], dtype=bool)) == Scaling()


def test_log_loss_by_hand() -> None:
    probabilities, outcomes = np.array([0.8, 0.8, 0.8, 0.8, 0.5, 0.5]), np.array([1, 1, 1, 0, 1, 0], dtype=bool)
    expected = -(3 * np.log(0.8) + np.log(0.2) + 2 * np.log(0.5)) / 6
    assert log_loss(probabilities, outcomes) == pytest.approx(expected)


def test_each_confidence_has_its_own_scaling_and_the_alternatives_too() -> None:
    calibration = Calibration(answer=Scaling(2.0, 0.1), number=Scaling(0.5, -0.2), unit=Scaling(1.5, 0.3))
    other = Answer("2.0 gram", "2.0 gram", 0.2, 0.4, 0.5, 0.25)
    scaled = calibration.apply(Answer("1.0 gram", "1.0 gram", 0.7, 0.8, 0.875, 0.25, (other,)))
    for answer, confidences in ((scaled, (0.7, 0.8, 0.875)), (scaled.alternatives[0], (0.2, 0.4, 0.5))):
        scalings = calibration.answer, calibration.number, calibration.unit
        whole, *parts = [scaling(confidence) for scaling, confidence in zip(scalings, confidences, strict=True)]
        expected = [whole, *(max(whole, part) for part in parts)]  # a right answer has a right number and unit
        assert [answer.confidence, answer.number_confidence, answer.unit_confidence] == expected
        assert answer.allowed_probability == 0.25  # the model's own


def test_the_units_scaling_is_fitted_where_the_number_is_right() -> None:
    """Its confidence is that of the unit given the number, right as often as it says. Wrong numbers tell nothing."""
    rng = np.random.default_rng(0)
    answers = pd.DataFrame(
        {
            "confidence": 0.5,
            "number_confidence": 0.5,
            "unit_confidence": rng.choice([0.85, 0.95], size=400),
            "is_number_right": [True] * 200 + [False] * 200,
        }
    )
    is_unit_right = rng.random(400) < answers["unit_confidence"]
    fitted = fit_calibration(answers.assign(is_right=answers["is_number_right"] & is_unit_right)).unit
    assert fitted(0.9) == pytest.approx(0.9, abs=0.03)


def test_an_answer_without_an_automaton_is_not_calibrated() -> None:
    free = Answer("34 gram", "34.0 gram", 0.9)
    assert Calibration(answer=Scaling(2.0)).apply(free) == free


def test_an_answer_without_a_unit_has_a_scaling_of_its_own() -> None:
    calibration = Calibration(answer=Scaling(2.0, 0.1), value=Scaling(0.5, -0.2))
    other = Answer("wool", "wool", 0.2, allowed_probability=0.3)
    scaled = calibration.apply(Answer("cotton", "cotton", 0.7, allowed_probability=0.25, alternatives=(other,)))
    assert [scaled.confidence, scaled.alternatives[0].confidence] == [*map(calibration.value, (0.7, 0.2))]
    assert (scaled.number_confidence, scaled.unit_confidence, scaled.allowed_probability) == (None, None, 0.25)


def test_the_scaling_of_values_is_fitted_on_the_answers_without_units_alone() -> None:
    rng = np.random.default_rng(0)
    confidences = rng.uniform(0.5, 0.99, size=4_000)
    is_quantity = np.arange(4_000) % 2 == 0
    right = rng.random(4_000) < np.where(is_quantity, confidences, confidences / 2)
    answers = pd.DataFrame({"confidence": confidences, "is_right": right})
    for name in ("number_confidence", "unit_confidence"):
        answers[name] = np.where(is_quantity, confidences, np.nan)
    answers["is_number_right"] = pd.Series(right.tolist(), dtype=object).where(is_quantity, None)
    fitted = fit_calibration(answers)
    assert fitted.answer(0.8) == pytest.approx(0.8, abs=0.05)
    assert fitted.value(0.8) == pytest.approx(0.4, abs=0.05)
    of_quantities = fit_calibration(answers[is_quantity])
    assert of_quantities.value == Scaling()
    assert (fitted.answer, fitted.number, fitted.unit) == (
        of_quantities.answer, of_quantities.number, of_quantities.unit
    )  # fmt: skip
    assert "value" in str(fitted) and "value" not in str(of_quantities)


def test_a_file_of_an_earlier_version_has_no_scaling_of_values(tmp_path: Path) -> None:
    scaling = {"temperature": 2.0, "bias": 0.5}
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps(dict.fromkeys(("answer", "number", "unit"), scaling)))
    assert load_calibration(file) == Calibration(*[Scaling(2.0, 0.5)] * 3)
    file.write_text(json.dumps(dict.fromkeys(("answer", "number", "unit", "value"), scaling)))
    assert load_calibration(file) == Calibration(*[Scaling(2.0, 0.5)] * 4)
