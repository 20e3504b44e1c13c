"""What equals a reference in each measure, for three schemas of other catalogues and for the challenge."""

import pandas as pd
import pytest

from inference.comparison import Comparison
from product_vqa.task.schema import CHALLENGE
from product_vqa.task.schema_file import parse_schema
from tests.inference.schemas import SCHEMAS

EXACT, CANONICAL, MEANING, ROUNDED = "f1", "f1_quantity", "f1_meaning", "f1_within_2_percent"


@pytest.mark.parametrize(
    ("schema", "attribute", "prediction", "reference", "strictest"),  # the strictest measure that forgives it
    [
        ("nutrition", "fat", "3.5 gram", "3.5 gram", EXACT),
        ("nutrition", "fat", "3.5g", "3.5 gram", CANONICAL),
        ("nutrition", "fat", "3500.0 milligram", "3.5 gram", MEANING),
        ("nutrition", "energy", "100.0 kilocalorie", "418.4 kilojoule", MEANING),
        ("nutrition", "energy", "100.0 kilocalorie", "420.0 kilojoule", ROUNDED),
        ("nutrition", "energy", "102.0 kilojoule", "100.0 kilojoule", ROUNDED),
        ("nutrition", "energy", "102.1 kilojoule", "100.0 kilojoule", None),
        ("nutrition", "fat", "3.5 kilojoule", "3.5 gram", None),
        ("nutrition", "fat", "3.5", "3.5 gram", None),
        ("nutrition", "servings", "24.0", "24", CANONICAL),
        ("nutrition", "servings", "100", "101", None),  # no amount, whose last digit may be rounded
        ("clothes", "colour", "Navy", "navy blue", CANONICAL),
        ("clothes", "colour", "red", "navy blue", None),
        ("clothes", "size", "one size", "NA", CANONICAL),
        ("clothes", "material", "wool/cotton", "cotton, wool", CANONICAL),
        ("clothes", "material", "cotton", "cotton, wool", None),
        ("electronics", "memory", "1 terabyte", "1000 gigabyte", MEANING),
        ("electronics", "memory", "1 terabyte", "1024 gigabyte", None),
        ("electronics", "memory", "16 GB", "16 gigabyte", CANONICAL),
        ("electronics", "refresh_rate", "0.12 kilohertz", "120.0 hertz", MEANING),
        ("electronics", "bluetooth", "with", "yes", CANONICAL),
        ("electronics", "bluetooth", "no", "yes", None),
        ("electronics", "model_number", "AB-1234", "AB-1234", EXACT),
        ("electronics", "model_number", "AB-1234", "AB-1235", None),
        ("electronics", "brand", "acme", "ACME", MEANING),
        ("electronics", "brand", "acme  inc", "acme inc", CANONICAL),
        ("electronics", "brand", "acme", "acne", None),
    ],
)
def test_each_measure_forgives_what_the_stricter_ones_forgive_and_no_more(
    schema: str, attribute: str, prediction: str, reference: str, strictest: str | None
) -> None:
    comparison = Comparison(SCHEMAS[schema])
    measures = ("f1", "f1_quantity", "f1_meaning", "f1_converted", "f1_within_2_percent")
    assert comparison.measures == measures
    forgiving = measures[measures.index(strictest) :] if strictest else ()
    found = [name for name in measures if comparison.is_equal(name, attribute, prediction, reference)]
    assert found == list(forgiving)


def test_capitals_of_a_pattern_do_not_count_where_it_allows_both() -> None:
    text = "version: 1\nattributes:\n  code: {kind: pattern, pattern: '[A-Za-z]{2}[0-9]{2}'}\n"
    comparison = Comparison(parse_schema(text, name="schema.yaml"))
    assert comparison.is_equal("f1_meaning", "code", "ab12", "AB12")
    assert not comparison.is_equal("f1_quantity", "code", "ab12", "AB12")


def test_the_measures_of_the_challenge_are_its_own() -> None:
    comparison = Comparison(CHALLENGE)
    assert comparison.measures == ("f1", "f1_quantity", "f1_converted", "f1_within_2_percent")
    found = {
        name: comparison.is_equal(name, "item_weight", prediction, reference)
        for name, prediction, reference in [
            ("f1", "10 gram", "10.0 gram"),
            ("f1_quantity", "10 gram", "10.0 gram"),
            ("f1_converted", "0.01 kilogram", "10 gram"),
            ("f1_within_2_percent", "0.0101 kilogram", "10 gram"),
        ]
    }
    assert found == {"f1": False, "f1_quantity": True, "f1_converted": True, "f1_within_2_percent": True}
    # Of a unit that the challenge does not have: the metric reads any word as a unit.
    assert comparison.is_equal("f1_quantity", "wattage", "5 horsepower", "5.0 horsepower")


def test_equal_predictions_are_written_as_their_references() -> None:
    table = pd.DataFrame(
        [("fat", "3.5 g", "3.5 gram"), ("servings", "24.0", " 24"), ("fat", "", "3.5 gram"), ("fat", "1 g", "")],
        columns=["entity_name", "prediction", "reference"],
    )
    comparison = Comparison(SCHEMAS["nutrition"])
    assert comparison.write_as_references(table, "f1") == ["3.5 g", "24.0", "", "1 g"]
    assert comparison.write_as_references(table, "f1_quantity") == ["3.5 gram", "24", "", "1 g"]


def test_canonical_forms_and_those_that_have_none() -> None:
    comparison = Comparison(SCHEMAS["clothes"])
    assert comparison.canonical("colour", "CRIMSON") == "red"
    assert comparison.canonical("colour", "") == ""  # not shown
    assert comparison.canonical("size", "") is None
    assert comparison.canonical("size", "XXL") is None


def test_mistakes_are_found_in_canonical_forms() -> None:
    comparison = Comparison(SCHEMAS["nutrition"])
    find = comparison.find_mistake
    assert find("fat", "3.5 g", "3.5 gram") is None
    assert find("fat", "120.0 milligram", "3.5 gram", others={"salt": "120 mg", "servings": ""}) == "another_entity"
    assert find("fat", "no idea", "3.5 gram") == "invalid"
    assert find("fat", "no idea", "no idea") is None
    assert find("fat", "3.5 gram", "a lot") == "not_comparable"
    assert find("servings", "", "") is None
    assert Comparison(CHALLENGE).find_mistake("width", "10.0 foot", "10.0 inch") == "right_number"
