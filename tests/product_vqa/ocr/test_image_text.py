import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from product_vqa.ocr.image_text import MAX_BOXES, MAX_CHARS, ImageText, clean_text, make_box, select_boxes
from product_vqa.task.texts import has_invisible

CORNERS = (0.1, 0.2, 0.5, 0.2, 0.5, 0.3, 0.1, 0.3)


def test_the_texts_of_an_image_survive_json() -> None:
    below = tuple(value + 0.4 for value in CORNERS)
    text = ImageText(800, 600, (make_box("Net wt. 500 g", 0.98765, CORNERS), make_box("½ kg", 1, below)))
    assert ImageText.from_dict(json.loads(json.dumps(text.as_dict()))) == text
    assert text.boxes[0].box == (0.1, 0.2, 0.5, 0.3)
    assert ImageText.from_dict(ImageText(1, 1).as_dict()) == ImageText(1, 1)


@given(st.text(max_size=3000))
def test_any_text_becomes_one_line_that_can_be_seen(text: str) -> None:
    cleaned = clean_text(text)
    assert len(cleaned) <= MAX_CHARS and cleaned == " ".join(cleaned.split()) == clean_text(cleaned)
    assert cleaned == "" or (cleaned.isprintable() and not has_invisible(cleaned))


def test_a_text_of_a_megabyte_and_a_thousand_boxes_are_cut() -> None:
    assert clean_text("a" * 10**6) == "a" * MAX_CHARS
    boxes = [make_box(f"{number}", number / 1000, CORNERS) for number in range(1000)]
    kept = select_boxes([*boxes, make_box("\x00", 1, CORNERS)])
    assert {box.text for box in kept} == {f"{number}" for number in range(1000 - MAX_BOXES, 1000)}


def test_boxes_are_within_the_image_and_from_top_to_bottom() -> None:
    beyond = make_box("a", 7, (-1, 0.9, 2, 0.9, 2, 1.5, -1, 1.5))
    assert (beyond.score, beyond.box) == (1, (0, 0.9, 1, 1))
    assert [box.text for box in select_boxes([beyond, make_box("b", 0.5, CORNERS)])] == ["b", "a"]


@pytest.mark.parametrize(
    "change",
    [
        {"width": 0}, {"height": None}, {"width": math.inf}, {"texts": [{"text": "a", "score": 1}]}, {"texts": 3},
        {"texts": [{"text": "a", "score": math.nan, "corners": CORNERS}]},
        {"texts": [{"text": 5, "score": 1, "corners": CORNERS}]},
        {"texts": [{"text": "a", "score": 1, "corners": CORNERS[:6]}]},
        {"texts": [{"text": "a", "score": 1, "corners": (*CORNERS[:7], math.inf)}]},
    ],
)  # fmt: skip
def test_what_is_not_the_text_of_an_image_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^not the"):
        ImageText.from_dict({"width": 10, "height": 10, "texts": [], **change})
