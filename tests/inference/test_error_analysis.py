import pytest

from inference.error_analysis import (
    ANSWER_KINDS,
    KINDS,
    is_within_tolerance,
    kind_of_mistake,
    kind_of_mistake_about,
)
from tests.inference.schemas import SCHEMAS

OTHERS = {"height": "20.0 inch", "item_weight": "3 kilogram", "voltage": "[100.0, 240.0] volt"}


@pytest.mark.parametrize(
    ("prediction", "reference", "kind"),
    [
        ("10.0 inch", "10.0 inch", None),
        ("10.0 inch", "10 inch", None),
        ("", "", None),
        ("", "10.0 inch", "missing"),
        ("25.4 centimetre", "10.0 inch", "converted"),
        ("20.0 inch", "10.0 inch", "another_entity"),
        ("3.0 kilogram", "10.0 inch", "another_entity"),
        ("10.0 foot", "10.0 inch", "right_number"),
        ("100.0 inch", "10.0 inch", "power_of_ten"),
        ("1.05 inch", "105.0 inch", "power_of_ten"),
        ("15.0 inch", "105.0 inch", "right_unit"),
        ("0.0 inch", "10.0 inch", "right_unit"),
        ("11.0 foot", "10.0 inch", "other"),
        ("whatever", "10.0 inch", "other"),
        ("100.0 volt", "[100.0, 240.0] volt", "not_comparable"),
        ("5.0 watt", "5.0 horsepower", "not_comparable"),
        ("5.0 watt", "", "not_comparable"),
    ],
)
def test_each_kind(prediction: str, reference: str, kind: str | None) -> None:
    assert kind_of_mistake(prediction, reference, others=OTHERS) == kind
    assert kind is None or kind in KINDS


@pytest.mark.parametrize(
    ("prediction", "reference", "is_within"),
    [
        ("102.0 gram", "100.0 gram", True),
        ("98.0 gram", "100.0 gram", True),
        ("102.1 gram", "100.0 gram", False),
        ("97.9 gram", "100.0 gram", False),
        ("16.9 fluid ounce", "500.0 millilitre", True),
        ("17.3 fluid ounce", "500.0 millilitre", False),  # 511.6 millilitre
        ("100.0 gram", "100.0 inch", False),
    ],
)
def test_two_percent_are_forgiven_and_no_more(prediction: str, reference: str, is_within: bool) -> None:
    assert is_within_tolerance(prediction, reference) == is_within


@pytest.mark.parametrize(
    ("schema", "attribute", "prediction", "reference", "kind"),
    [
        ("nutrition", "energy", "100.0 kilojoule", "100.0 kilojoule", None),
        ("nutrition", "energy", "", "100.0 kilojoule", "missing"),
        ("nutrition", "energy", "", "", None),
        ("nutrition", "energy", "100.0 kilojoule", "", "not_comparable"),  # it has no `not_shown`: a label is missing
        ("nutrition", "energy", "100.0 kilojoule", None, "not_comparable"),
        ("nutrition", "energy", None, "100.0 kilojoule", "invalid"),
        ("nutrition", "energy", None, None, "not_comparable"),
        ("nutrition", "energy", "100.0 kilocalorie", "418.4 kilojoule", "converted"),
        ("nutrition", "energy", "7.0 kilojoule", "100.0 kilojoule", "another_entity"),
        ("nutrition", "energy", "100.0 kilocalorie", "100.0 kilojoule", "right_number"),
        ("nutrition", "energy", "10.0 kilojoule", "100.0 kilojoule", "power_of_ten"),
        ("nutrition", "energy", "150.0 kilojoule", "100.0 kilojoule", "right_unit"),
        ("nutrition", "energy", "150.0 kilocalorie", "100.0 kilojoule", "other"),
        ("nutrition", "servings", "", "24", "shown_left_empty"),
        ("nutrition", "servings", "24", "", "answered_not_shown"),
        ("nutrition", "servings", None, "", "answered_not_shown"),
        ("nutrition", "servings", "240", "24", "power_of_ten"),
        ("nutrition", "servings", "25", "24", "other_value"),
        ("clothes", "colour", "red", "white", "other_value"),
        ("clothes", "material", "cotton", "cotton, wool", "missing_value"),
        ("clothes", "material", "cotton, wool, silk", "cotton, wool", "extra_value"),
        ("clothes", "material", "cotton, silk", "cotton, wool", "other_value"),
        ("electronics", "bluetooth", "no", "yes", "other_value"),  # though another attribute's label is "no"
        ("electronics", "brand", "acme", "ACME", "another_case"),
        ("electronics", "brand", "no", "acme", "another_entity"),
        ("electronics", "model_number", "AB-1235", "AB-1234", "near_miss"),
        ("electronics", "model_number", "AB-123", "AB-1234", "near_miss"),
        ("electronics", "model_number", "AB-124", "AB-1234", "near_miss"),
        ("electronics", "model_number", "CD-123", "AB-1234", "other_value"),  # three characters
        ("electronics", "brand", "cat", "cab", "other_value"),  # too short for two of them to say anything
        ("electronics", "brand", "abcde", "abcXY", "near_miss"),
        ("electronics", "brand", "Abcde", "bcdef", "near_miss"),
    ],
)
def test_each_kind_about_other_attributes(
    schema: str, attribute: str, prediction: str | None, reference: str | None, kind: str | None
) -> None:
    others = {"7.0 kilojoule", "no", "", None}
    assert kind_of_mistake_about(SCHEMAS[schema][attribute], prediction, reference, others=others) == kind
    assert kind is None or kind in ANSWER_KINDS
