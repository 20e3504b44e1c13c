from product_vqa.ocr.unit_shares import count_shares
from product_vqa.task.schema import CHALLENGE
from tests.example_schemas import SCHEMAS


def test_shares_are_of_the_labels_with_a_unit_of_their_attribute() -> None:
    labels = [
        ("item_weight", "500.0 gram", 5),
        ("item_weight", "1.0 kilogram", 2),
        ("item_weight", "2.0 gram", 1),
        ("item_weight", "2.0 volt", 7),
        ("item_weight", "[1.0, 2.0] gram", 7),
        ("item_weight", "", 7),
        ("item_weight", None, 7),
        ("voltage", "12.0 volt", 1),
        ("colour", "1.0 gram", 7),
    ]
    assert count_shares(labels, CHALLENGE) == {
        "item_weight": {"gram": 6 / 8, "kilogram": 2 / 8}, "voltage": {"volt": 1.0}
    }  # fmt: skip
    assert count_shares([], CHALLENGE) == {}


def test_other_kinds_have_no_units() -> None:
    labels = [("colour", "navy blue", 3), ("waist", "80 centimetre", 1)]
    assert count_shares(labels, SCHEMAS["clothes"]) == {"waist": {"centimetre": 1.0}}
