import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from product_vqa.ocr.quantities import MAX_QUANTITIES, UnitFinder, find_quantities, normalize_text, read_number
from product_vqa.task.kinds import QuantityKind
from product_vqa.task.schema import CHALLENGE
from tests.example_schemas import SCHEMAS


def kind_of(name: str) -> QuantityKind:
    kind = CHALLENGE[name].kind
    assert isinstance(kind, QuantityKind)
    return kind


def found(text: str, name: str) -> list[str]:
    """The quantities with a unit, `number unit`, and `?` for a number without one."""
    return [
        f"{one.number:f} {one.unit or '?'}" for one in find_quantities(normalize_text(text), UnitFinder(kind_of(name)))
    ]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("item_weight", "NET WT. 16 OZ (454g)", ["16 ounce", "454 gram"]),
        ("item_weight", "NETWT16OZ", ["16 ounce"]),
        ("item_weight", "5lbs.", ["5 pound"]),
        ("item_weight", "1 1/2 LB", ["1.5 pound"]),
        ("item_weight", "1½lb", ["1.5 pound"]),
        ("item_weight", "½ kg", ["0.5 kilogram"]),
        ("item_weight", "1,5 KG", ["1.5 kilogram"]),
        ("item_weight", "1,500 g", ["1500 gram"]),
        ("item_weight", ".5 kg", ["0.5 kilogram"]),
        ("item_weight", "Vitamin B12 500mcg", ["500 microgram"]),
        ("item_weight", "500Mg", ["500 milligram"]),
        ("item_weight", "12 FL OZ", ["12 ?"]),
        ("item_weight", "28 OZ (1 LB 12 0Z)", ["28 ounce", "1 pound", "12 ounce"]),
        ("item_weight", "2LBS0.20Z(912g)", ["2 pound", "0.2 ounce", "912 gram"]),
        ("item_weight", "300 Ibs.", ["300 pound"]),
        ("item_weight", "5Ib (2 kg)", ["5 pound", "2 kilogram"]),
        ("item_weight", "65 1bs", ["65 pound"]),
        ("item_weight", "550Z", ["550 ?"]),
        ("item_weight", "model 10 0ZX", ["10 ?", "0 ?"]),
        ("item_volume", "16 FL 0Z", ["16 fluid ounce"]),
        ("item_weight", "16-oz", ["16 ounce"]),
        ("item_weight", "500 g NET", ["500 gram"]),
        ("item_weight", "500gNET", ["500 gram"]),
        ("item_volume", "16.9 FL OZ (500 mL)", ["16.9 fluid ounce", "500 millilitre"]),
        ("item_volume", "16.9FL.OZ.", ["16.9 fluid ounce"]),
        ("item_volume", "8 oz", ["8 fluid ounce"]),
        ("item_volume", "1 L", ["1 litre"]),
        ("item_volume", "3 cubic feet", ["3 cubic foot"]),
        ("item_volume", "2 imp gal", ["2 imperial gallon"]),
        ("voltage", "100-240V~50/60Hz", ["100 volt", "240 volt", "50 ?", "60 ?"]),
        ("voltage", "DC12V", ["12 volt"]),
        ("voltage", "5 mV", ["5 millivolt"]),
        ("wattage", "1.2KW", ["1.2 kilowatt"]),
        ("wattage", "1000W", ["1000 watt"]),
        ("width", '5.5" x 8"', ["5.5 inch", "8 inch"]),
        ("width", "10″", ["10 inch"]),
        ("width", "30 x 20 x 10 cm", ["30 centimetre", "20 centimetre", "10 centimetre"]),
        ("width", "H102 x W330mm", ["102 millimetre", "330 millimetre"]),
        ("height", "6 ft 2 in", ["6 foot", "2 inch"]),
        ("height", "305MM", ["305 millimetre"]),
    ],
)
def test_quantities_are_read_as_packs_print_them(name: str, text: str, expected: list[str]) -> None:
    quantities = found(text, name)
    if text.startswith("100-240V"):
        quantities = [one for one in quantities if one.endswith("volt")]
        expected = [one for one in expected if one.endswith("volt")]
    assert quantities == expected


def test_axes_ranges_and_products_are_marked() -> None:
    width = kind_of("width")
    first, second = find_quantities("H102 x W330mm", UnitFinder(width))
    assert (first.axis, first.position, first.has_own_unit) == ("h", 0, False)
    assert (second.axis, second.position, second.count, second.has_own_unit) == ("w", 1, 2, True)
    assert [one.axis for one in find_quantities("30cm(L) x 20cm(W) x 5cm(H)", UnitFinder(width))] == ["l", "w", "h"]
    low, high = find_quantities("100-240V", UnitFinder(kind_of("voltage")))
    assert (low.in_range, high.in_range, low.unit, low.has_own_unit) == (True, True, "volt", False)
    assert not find_quantities("12V", UnitFinder(kind_of("voltage")))[0].in_range


def test_a_schema_of_its_own_has_its_spellings() -> None:
    kind = SCHEMAS["electronics"]["battery"].kind
    assert isinstance(kind, QuantityKind)
    assert [(one.number, one.unit) for one in find_quantities("5000MAH battery", UnitFinder(kind))] == [
        (Decimal(5000), "milliampere hour")
    ]


def test_a_text_that_is_a_unit() -> None:
    assert UnitFinder(kind_of("item_weight")).find_complete("(GRAMS)") == "gram"
    assert UnitFinder(kind_of("item_weight")).find_complete("kg") == "kilogram"
    assert UnitFinder(kind_of("item_weight")).find_complete("kg net") is None
    assert UnitFinder(kind_of("item_weight")).find_complete("") is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1/3", None), ("1/0", None), ("3/4", "0.75"), ("2-1/2", "2.5"), ("9" * 40 + "/1", None),
        ("9" * 40 + " 1/2", None), ("1/" + "1" * 40, None),
    ],
)  # fmt: skip
def test_fractions(text: str, number: str | None) -> None:
    assert read_number(text) == (None if number is None else Decimal(number))


@given(st.text(alphabet="0123456789.,/-x× gkmlozVW\"'½()~toH:[]", max_size=80))
def test_any_text_is_read_without_an_error(text: str) -> None:
    normalized = normalize_text(text)
    for name in ("item_weight", "item_volume", "height"):
        quantities = find_quantities(normalized, UnitFinder(kind_of(name)))
        assert len(quantities) <= MAX_QUANTITIES
        for one in quantities:
            assert 0 <= one.start < one.end <= len(normalized) and one.number >= 0
            assert one.unit is None or one.unit in kind_of(name).units


@given(st.from_regex(r"[0-9]{1,6}\.[0-9]{1,4}", fullmatch=True), st.sampled_from(sorted(CHALLENGE.names)), st.data())
def test_canonical_answers_are_found(number: str, name: str, data: st.DataObject) -> None:
    unit = data.draw(st.sampled_from(kind_of(name).units))
    assert found(f"{number} {unit}", name) == [f"{Decimal(number):f} {unit}"]


def test_a_number_of_a_thousand_digits_ends() -> None:
    assert json.dumps(
        [str(one.number)[:3] for one in find_quantities("9" * 1000 + " g", UnitFinder(kind_of("item_weight")))]
    )
