from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from product_vqa.ocr import candidates
from product_vqa.ocr.candidate import Candidate
from product_vqa.ocr.candidates import MAX_CANDIDATES, MAX_READINGS, find_candidates
from product_vqa.ocr.image_text import ImageText, make_box, select_boxes
from product_vqa.task.attributes import Schema
from product_vqa.task.schema import CHALLENGE
from product_vqa.task.schema_file import parse_schema
from tests.example_schemas import SCHEMAS

Placed = tuple[str, float, float, float, float]  # text, and left, top, right, bottom in px of a 1000 x 1000 image


def image_text(*placed: Placed, size: int = 1000) -> ImageText:
    boxes = [
        make_box(text, 0.99, [value / 1000 for value in (left, top, right, top, right, bottom, left, bottom)])
        for text, left, top, right, bottom in placed
    ]
    return ImageText(size, size, select_boxes(boxes))


def answers(
    text: ImageText, name: str, *, schema: Schema = CHALLENGE, shares: Mapping[str, float] | None = None
) -> list[str]:
    return [candidate.answer for candidate in find_candidates(text, schema[name], unit_shares=shares)]


def test_the_words_next_to_a_quantity_decide() -> None:
    text = image_text(
        ("Protein 24 g", 100, 100, 400, 140),
        ("Net Wt. 500 g", 100, 200, 400, 240),
        ("per serving 30 g", 100, 300, 400, 340),
    )
    assert answers(text, "item_weight")[0] == "500.0 gram"
    assert set(answers(text, "item_weight")) == {"500.0 gram", "24.0 gram", "30.0 gram"}
    assert answers(text, "item_volume") == [] == answers(text, "voltage")


def test_the_unit_that_labels_usually_have_decides_between_two() -> None:
    text = image_text(("NET WT 16 OZ (454g)", 100, 100, 600, 140))
    assert answers(text, "item_weight", shares={"gram": 0.6, "ounce": 0.08})[0] == "454.0 gram"
    assert answers(text, "item_weight", shares={"gram": 0.01, "ounce": 0.9})[0] == "16.0 ounce"


def test_a_number_and_its_unit_in_two_boxes() -> None:
    nearby = image_text(("500", 100, 100, 200, 150), ("g", 210, 105, 240, 150), ("2024", 600, 800, 700, 830))
    below = image_text(("500", 100, 100, 200, 150), ("ml", 120, 155, 180, 185))
    (first, *others) = find_candidates(nearby, CHALLENGE["item_weight"])
    assert (first.answer, first.evidence, first.box) == ("500.0 gram", "joined", (0.1, 0.1, 0.24, 0.15))
    assert all(other.evidence == "number" for other in others)
    assert answers(below, "item_volume")[0] == "500.0 millilitre"


def test_letters_and_order_say_which_side_a_length_is() -> None:
    letters = image_text(("L30 x W20 x H10 cm", 100, 100, 700, 140))
    found = {name: answers(letters, name)[0] for name in ("depth", "width", "height")}
    assert found == {"depth": "30.0 centimetre", "width": "20.0 centimetre", "height": "10.0 centimetre"}
    order = image_text(("30 x 20 x 10 cm", 100, 100, 700, 140))
    assert answers(order, "height")[0] == "10.0 centimetre"


def test_a_height_is_next_to_the_product_and_a_width_below_it() -> None:
    text = image_text(("80 cm", 20, 480, 120, 520), ("45 cm", 450, 950, 550, 990), ("Chair", 400, 20, 600, 60))
    assert answers(text, "height")[0] == "80.0 centimetre"
    assert answers(text, "width")[0] == "45.0 centimetre"


def test_pieces_are_not_a_weight() -> None:
    assert answers(image_text(("6 x 500 g", 100, 100, 400, 140)), "item_weight") == ["500.0 gram"]


def test_the_units_and_not_the_name_of_a_dimension_say_what_a_product_is() -> None:
    schema = parse_schema(
        """
version: 1
units:
  measures: {Zentimeter: {size: 1, spellings: [cm]}}
  length: {gram: {size: 1, spellings: [g]}}
  capacity: {fluid ounce: {size: 1}, cup: {size: 8}}
attributes:
  width: {kind: quantity, units: measures}
  weight: {kind: quantity, units: length}
  volume: {kind: quantity, units: capacity}
""",
        name="schema.yaml",
    )
    text = image_text(("30 x 20 x 10 cm", 1, 1, 700, 40), ("6 x 500 g", 1, 100, 400, 140), ("8 oz", 1, 200, 90, 240))
    found = {name: answers(text, name, schema=schema) for name in schema.names}
    assert set(found["width"][:3]) == {"30.0 Zentimeter", "20.0 Zentimeter", "10.0 Zentimeter"}
    assert found["weight"][0] == "500.0 gram" and "6.0 gram" not in found["weight"]
    assert found["volume"][0] == "8.0 fluid ounce"


def test_other_kinds_than_quantities() -> None:
    clothes, electronics = SCHEMAS["clothes"], SCHEMAS["electronics"]
    text = image_text(
        ("Colour: NAVY blue", 1, 1, 300, 40), ("Model AB-1234C/56.", 1, 50, 300, 90), ("8 cores", 1, 100, 90, 130)
    )
    assert answers(text, "colour", schema=clothes)[0] == "navy blue"
    assert answers(text, "model_number", schema=electronics) == ["AB-1234C/56"]
    assert answers(text, "cores", schema=electronics) == ["8"]
    assert answers(text, "bluetooth", schema=electronics) == []
    assert answers(text, "brand", schema=clothes) == []


def test_values_of_a_line_or_of_neighbouring_lines_count_together() -> None:
    def found(*placed: Placed) -> list[str]:
        return answers(image_text(*placed), "material", schema=SCHEMAS["clothes"])

    assert found(("20% merino WOOL, 80% Cotton", 100, 100, 600, 140)) == ["cotton, wool", "wool", "cotton"]
    below = (("80% Wool", 100, 100, 300, 140), ("20% Cotton", 100, 145, 300, 185))
    assert found(*below) == ["cotton, wool", "wool", "cotton"]
    right = (("Wool 80%", 100, 100, 300, 140), ("Polyester 20%", 320, 100, 600, 140))
    assert found(*right)[0] == "wool, polyester"
    (both, *_) = find_candidates(image_text(*right), SCHEMAS["clothes"]["material"])
    assert (both.evidence, both.box) == ("joined", (0.1, 0.1, 0.6, 0.14))
    three = found(*below, ("Lining: linen", 100, 700, 400, 740))
    assert set(three) == {"cotton, wool", "wool", "cotton", "linen", "cotton, wool, linen"}
    assert three[0] == "cotton, wool" and three[-1] == "cotton, wool, linen"


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.text(alphabet="0123456789.,/-x gkmloz\"'½ACBDnet:wt", max_size=30)
            | st.lists(st.sampled_from(["cotton", "merino", "Wool", "navy", "blue", "linen", "XL", "&"])).map(
                " ".join
            ),
            st.lists(st.floats(0, 1), min_size=8, max_size=8),
        ),
        max_size=25,
    )
)
def test_candidates_of_any_text_are_valid_answers(boxes: list[tuple[str, list[float]]]) -> None:
    text = ImageText(640, 480, select_boxes(make_box(one, 0.9, corners) for one, corners in boxes))
    for schema in (CHALLENGE, *SCHEMAS.values()):
        for attribute in schema.attributes.values():
            found = find_candidates(text, attribute)
            assert len(found) <= MAX_CANDIDATES
            assert len({one.answer for one in found}) == len(found)
            assert [one.rank_score for one in found] == sorted((one.rank_score for one in found), reverse=True)
            for one in found:
                assert one.answer and attribute.is_valid(one.answer) and not attribute.excess(one.answer)


@pytest.mark.parametrize(
    ("height", "step"), [(1, 2), (400, 1), (900, 0)], ids=["one under another", "overlapping", "in one place"]
)
@pytest.mark.parametrize(
    ("schema", "name", "lines"),
    [
        ("challenge", "height", ["1 cm 2 3 4 5 6 7 8 9 10 " * 8] * 500),
        ("challenge", "height", ["20 cm 1 " * 30, "cm"] * 250),
        ("challenge", "item_weight", ["1 2 3 4 5 6 7 8 9 10 " * 9, "g"] * 250),
        ("challenge", "item_weight", ["net weight max up to " * 9, "1 g 2 kg " * 30] * 250),
        ("clothes", "material", ["cotton wool linen " * 11] * 500),
        ("electronics", "model_number", ["AB-1234C/56 " * 16] * 500),
        ("electronics", "cores", ["8 " * 100] * 500),
    ],
)
def test_five_hundred_lines_of_quantities_units_or_values_end(
    schema: str, name: str, lines: list[str], height: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more readings are ranked than MAX_READINGS, whose time is bounded."""
    ranked: list[str] = []

    def count(candidate: Candidate, *others: object) -> float:
        ranked.append(candidate.answer)
        return 0.0

    monkeypatch.setattr(candidates, "rank", count)
    attribute = {"challenge": CHALLENGE, **SCHEMAS}[schema][name]
    text = image_text(*[(line, 1, number * step, 900, number * step + height) for number, line in enumerate(lines)])
    assert 0 < len(find_candidates(text, attribute)) <= MAX_CANDIDATES
    assert len(ranked) <= MAX_READINGS
