"""What an adapter's card says about its training."""

import re
from typing import Any

import pytest

from product_vqa.hub import Location
from product_vqa.task.quantity import parse_quantity
from product_vqa.task.schema import CHALLENGE, ENTITIES, is_suitable
from training.model_card import TrainingFacts, make_card

CONFIG = {
    "lora_r": 8, "lora_alpha": 16, "dtype": "bfloat16", "load_in_4bit": False, "dataset_train_split": "train",
    "dataset_test_split": "validation",
}  # fmt: skip
SCORES = {
    "eval_samples": 100.0,
    "eval_f1_quantity": 0.75, "eval_f1_quantity_low": 0.71, "eval_f1_quantity_high": 0.79,
    "eval_f1": 0.25, "eval_f1_low": 0.21, "eval_f1_high": 0.29,
    "eval_exact_width": 0.5, "eval_exact_voltage": 0.125,
}  # fmt: skip


def facts(**changed: Any) -> TrainingFacts:
    values = {
        "adapter_id": "user/adapter", "base_model": Location("user/base", "a" * 40), "base_license": "gemma",
        "dataset": Location("user/dataset", "b" * 40), "image_size": 224, "base_precision": "bfloat16",
        "trainable_parameters": 1000, "train_rows": 100, "distinct_rows": 100, "entities": list(ENTITIES),
        "samples_per_step": 4, "steps": 10, "epochs": 1.0, "processes": 1, "hardware": "CPU", "minutes": 1.0,
        "final_loss": 0.5, "scores": SCORES, "is_selected_by_scores": False, "max_new_tokens": 16,
        "schema": CHALLENGE,
    }  # fmt: skip
    return TrainingFacts(**(values | changed))


def test_each_score_is_published_under_its_own_name() -> None:
    card = make_card(facts(), CONFIG)
    assert {result.metric_name: result.metric_value for result in card.data.eval_results} == {
        "F1, number and unit": 0.75,
        "F1, exact string": 0.25,
    }
    rows = dict(re.findall(r"^\| (.*?) \| (0\.\d{4}).* \|$", card.text, re.MULTILINE))
    assert {name: value for name, value in rows.items() if "loss" not in name} == {
        "F1, number and unit": "0.7500",
        "F1, exact string (the challenge's score)": "0.2500",
        "right number and unit: width": "0.5000",
        "right number and unit: voltage": "0.1250",
    }


@pytest.mark.parametrize(
    ("entities", "question", "text"),
    [
        (["voltage"], "What is the voltage?", "trained on 1 attribute:\nvoltage."),
        (["width", "depth"], "What is the width?", "trained on 2 attributes:\nwidth, depth."),
        (list(ENTITIES), "What is the item weight?", "trained on 8 attributes:\nwidth, "),
    ],
)
def test_a_card_names_the_trained_attributes(entities: list[str], question: str, text: str) -> None:
    card = make_card(facts(entities=entities), CONFIG).text
    assert text in card
    assert set(re.findall(r"What is the [a-z ]+\?", card)) == {question}
    assert "Eight" not in card
    others = set(ENTITIES) - set(entities) - {"width", "voltage"}  # those two are scored
    assert not [name for name in others if name.replace("_", " ") in card]


@pytest.mark.parametrize("entity", ENTITIES)
def test_the_example_answer_is_valid_for_its_question(entity: str) -> None:
    text = make_card(facts(entities=[entity]), CONFIG).text
    answer = re.search(r"it answers in the form `(.*?)`", text)[1]
    quantity = parse_quantity(answer)
    assert str(quantity) == answer
    assert is_suitable(quantity.unit, entity)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({}, "not trained on these rows, and they did not select the checkpoint. In brackets"),
        ({"is_selected_by_scores": True}, "not trained on these rows, but their scores selected the checkpoint. In"),
        ({"scores": None}, "Not evaluated: the dataset has no split `validation`"),
        (
            {"final_loss": None, "processes": 2},
            "2 processes on CPU |\n| time | 1.0 minutes |\n| final training loss | u",
        ),
    ],
)
def test_a_card_describes_how_the_adapter_was_made(changed: dict[str, Any], text: str) -> None:
    assert text in make_card(facts(**changed), CONFIG).text
