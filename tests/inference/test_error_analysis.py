import pytest

from inference.error_analysis import KINDS, is_within_tolerance, kind_of_mistake

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
