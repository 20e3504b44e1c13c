import json
from pathlib import Path

import pytest

from product_vqa.errors import InputError
from product_vqa.task.prompt import DTYPES, TASK_FILE, BaseSettings, format_prompt, load_task, save_task
from product_vqa.task.schema import CHALLENGE, ENTITIES


def test_each_entity_is_asked_for_in_words() -> None:
    assert format_prompt("item_weight", schema=CHALLENGE) == "What is the item weight?"
    assert (
        format_prompt("maximum_weight_recommendation", schema=CHALLENGE)
        == "What is the maximum weight recommendation?"
    )
    assert len({format_prompt(entity, schema=CHALLENGE) for entity in ENTITIES}) == 8


def test_an_unknown_entity_is_refused_with_its_name() -> None:
    with pytest.raises(InputError, match="'colour'"):
        format_prompt("colour", schema=CHALLENGE)


@pytest.mark.parametrize("load_in_4bit", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_base_models_precision_travels_with_the_adapter(tmp_path: Path, dtype: str, load_in_4bit: bool) -> None:
    save_task(tmp_path, BaseSettings(dtype, load_in_4bit))
    assert json.loads((tmp_path / TASK_FILE).read_text())["base_model"] == {
        "dtype": dtype,
        "load_in_4bit": load_in_4bit,
    }
    assert load_task(tmp_path / TASK_FILE, adapter="user/adapter") == BaseSettings(dtype, load_in_4bit)


def test_the_removed_cap_of_the_logits_travels_with_the_adapter(tmp_path: Path) -> None:
    settings = BaseSettings("bfloat16", load_in_4bit=False, disable_logit_softcapping=True)
    save_task(tmp_path, settings)
    assert load_task(tmp_path / TASK_FILE, adapter="user/adapter") == settings


def test_a_task_file_of_an_earlier_version_records_no_settings(tmp_path: Path) -> None:
    (tmp_path / TASK_FILE).write_text(json.dumps({"prompt_template": "What is the {entity}?"}))
    assert load_task(tmp_path / TASK_FILE, adapter="user/adapter") is None


def test_an_adapter_of_another_prompt_is_refused(tmp_path: Path) -> None:
    (tmp_path / TASK_FILE).write_text(json.dumps({"prompt_template": "How heavy is it?"}))
    with pytest.raises(InputError, match="user/adapter was trained with the prompt template 'How heavy is it\\?'"):
        load_task(tmp_path / TASK_FILE, adapter="user/adapter")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "7", "[" * 5000, '{"prompt_template": "What is the {entity}?", "base_model": 7}',
     '{"prompt_template": "What is the {entity}?", "base_model": {"dtype": "int4", "load_in_4bit": true}}',
     '{"prompt_template": "What is the {entity}?", "base_model": {"dtype": "float32", "load_in_4bit": "no"}}',
     '{"prompt_template": "What is the {entity}?", "base_model": {"dtype": "float32", "load_in_4bit": true, '
     '"disable_logit_softcapping": "no"}}',
     '{"prompt_template": "What is the {entity}?", "base_model": {"dtype": "float32"}}'],
)  # fmt: skip
def test_a_broken_task_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / TASK_FILE).write_text(text)
    with pytest.raises(InputError, match=r"user/adapter: its product_vqa\.json is malformed"):
        load_task(tmp_path / TASK_FILE, adapter="user/adapter")
