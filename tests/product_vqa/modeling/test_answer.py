"""An answer as JSON, and in place of one an error."""

import json

import pytest
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from product_vqa.modeling.answer import Answer
from product_vqa.modeling.attribute_reader import AttributeReader
from tests.product_vqa.modeling.schemas import ALL_KINDS
from tests.tiny import make_image

NUMBERS = {"quantity", "integer"}


def test_an_answer_is_ready_for_json() -> None:
    other = Answer("2.0 gram", "2.0 gram", 0.2, 0.4, 0.5, 0.25, value="2.0", unit="gram", number=2.0)
    answer = Answer(
        "1.5 gram", "1.5 gram", 0.7, 0.8, 0.875, 0.25, (other,), value="1.5", unit="gram", number=1.5,
        entity_name="item_weight",
    )  # fmt: skip
    assert json.loads(json.dumps(answer.as_dict())) == {
        "text": "1.5 gram",
        "prediction": "1.5 gram",
        "confidence": 0.7,
        "number_confidence": 0.8,
        "unit_confidence": 0.875,
        "allowed_probability": 0.25,
        "alternatives": [
            {"prediction": "2.0 gram", "value": "2.0", "number": 2.0, "unit": "gram", "confidence": 0.2}
        ],
        "value": "1.5",
        "unit": "gram",
        "number": 1.5,
        "entity_name": "item_weight",
        "shown": None,
        "box": None,
        "error": None,
    }  # fmt: skip


def test_an_error_is_an_answer_without_a_prediction() -> None:
    answer = Answer.of_error("items[3]: not_a_picture", entity_name="width")
    assert (answer.prediction, answer.number, answer.confidence) == ("", None, 0.0)
    assert answer.as_dict()["error"] == "items[3]: not_a_picture" and answer.entity_name == "width"


@pytest.mark.parametrize("name", ALL_KINDS.names)
def test_a_number_is_a_float_where_the_attribute_has_one(
    model: PaliGemmaForConditionalGeneration, processor: PaliGemmaProcessor, name: str
) -> None:
    answer = AttributeReader(model, processor, schema=ALL_KINDS).read(make_image(0), name)
    assert answer.entity_name == name
    if answer.prediction and ALL_KINDS[name].kind.name in NUMBERS:
        assert answer.number == float(answer.value)
    else:
        assert answer.number is None
