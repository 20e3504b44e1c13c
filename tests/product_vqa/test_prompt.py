import json
from pathlib import Path

import pytest

from product_vqa.entities import ENTITIES
from product_vqa.prompt import TASK_FILE, check_prompt, format_prompt, save_prompt


def test_each_entity_is_asked_for_in_words() -> None:
    assert format_prompt("item_weight") == "What is the item weight?"
    assert format_prompt("maximum_weight_recommendation") == "What is the maximum weight recommendation?"
    assert len({format_prompt(entity) for entity in ENTITIES}) == 8


def test_an_unknown_entity_is_refused_with_its_name() -> None:
    with pytest.raises(ValueError, match="'colour'"):
        format_prompt("colour")


def test_the_wording_travels_with_the_adapter_and_another_is_refused(tmp_path: Path) -> None:
    save_prompt(tmp_path)
    check_prompt(tmp_path / TASK_FILE, adapter="user/adapter")
    (tmp_path / TASK_FILE).write_text(json.dumps({"prompt_template": "How heavy is it?"}))
    with pytest.raises(ValueError, match="user/adapter was trained with the question 'How heavy is it\\?'"):
        check_prompt(tmp_path / TASK_FILE, adapter="user/adapter")
