"""What an adapter's card says of the run, and whose licence it names."""

import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, constants

from product_vqa.hub import Location
from product_vqa.task.schema import ENTITIES
from training.loading import locate_sources
from training.model_card import RunFacts, make_card
from training.options import DatasetOptions, ModelOptions

CONFIG = {"lora_r": 8, "lora_alpha": 16, "dtype": "bfloat16", "load_in_4bit": False}
SCORES = {
    "eval_samples": 100.0,
    "eval_f1_quantity": 0.75, "eval_f1_quantity_low": 0.71, "eval_f1_quantity_high": 0.79,
    "eval_f1": 0.25, "eval_f1_low": 0.21, "eval_f1_high": 0.29,
    "eval_exact_width": 0.5, "eval_exact_voltage": 0.125,
}  # fmt: skip


def facts(**changed: Any) -> RunFacts:
    values = {
        "adapter_id": "user/adapter", "base": Location("user/base", "a" * 40), "base_license": "gemma",
        "dataset": Location("user/dataset", "b" * 40), "image_size": 224, "base_precision": "bfloat16",
        "trainable_parameters": 1000, "train_rows": 100, "entities": list(ENTITIES), "rows_per_step": 4, "steps": 10,
        "epochs": 1.0, "processes": 1, "hardware": "CPU", "minutes": 1.0, "final_loss": 0.5, "scores": SCORES,
        "is_chosen_by": False, "max_new_tokens": 16,
    }  # fmt: skip
    return RunFacts(**(values | changed))


def test_each_score_is_published_under_its_own_name() -> None:
    card = make_card(facts(), CONFIG, train_split="train", eval_split="validation")
    assert {result.metric_name: result.metric_value for result in card.data.eval_results} == {
        "F1, number and unit": 0.75,
        "F1, exact string": 0.25,
    }
    rows = dict(re.findall(r"^\| (.*?) \| (0\.\d{4}).* \|$", card.text, re.MULTILINE))
    assert {name: value for name, value in rows.items() if "loss" not in name} == {
        "F1, number and unit": "0.7500",
        "F1, exact string (the challenge's own)": "0.2500",
        "right number and unit: width": "0.5000",
        "right number and unit: voltage": "0.1250",
    }


@pytest.mark.parametrize(
    ("entities", "question", "says"),
    [
        (["voltage"], "What is the voltage?", "1 attribute can be asked for:\nvoltage."),
        (["width", "depth"], "What is the width?", "2 attributes can be asked for:\nwidth, depth."),
        (list(ENTITIES), "What is the item weight?", "8 attributes can be asked for:\nwidth, "),
    ],
)
def test_a_card_names_what_was_learned(entities: list[str], question: str, says: str) -> None:
    text = make_card(facts(entities=entities), CONFIG, train_split="train", eval_split="validation").text
    assert says in text
    assert set(re.findall(r"What is the [a-z ]+\?", text)) == {question}
    assert "Eight" not in text
    others = set(ENTITIES) - set(entities) - {"width", "voltage"}  # those two are scored
    assert not [name for name in others if name.replace("_", " ") in text]


@pytest.mark.parametrize("entity", ENTITIES)
def test_the_example_answer_is_valid_for_its_question(entity: str) -> None:
    from product_vqa.task.quantity import parse_quantity
    from product_vqa.task.schema import is_suitable

    text = make_card(facts(entities=[entity]), CONFIG, train_split="train", eval_split="validation").text
    answer = re.search(r"it answers like `(.*?)`", text)[1]
    quantity = parse_quantity(answer)
    assert str(quantity) == answer
    assert is_suitable(quantity.unit, entity)


def license_of(base: object, dataset: Path) -> Any:
    options = ModelOptions(model_name_or_path=str(base), base_model_id=None)
    return locate_sources(DatasetOptions(dataset_name=str(dataset)), options).base_license


def test_the_bases_licence_is_inherited_online_and_offline(
    tiny_repos: tuple[str, str], tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    sha = HfApi().model_info("local/tiny-base").sha
    assert license_of("local/tiny-base", tiny_dataset) == "gemma"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert license_of("local/tiny-base", tiny_dataset) == "gemma"
    assert license_of(f"local/tiny-base@{sha}", tiny_dataset) == "gemma"


@pytest.mark.parametrize(
    ("card", "license"),
    [
        (None, None),
        ("# no metadata", None),
        ("---\ntags: [a]\n---\n", None),
        ("---\nlicense: gemma\n---\n", "gemma"),
        ("---\nlicense: [a\n---\n", None),
    ],
)
def test_a_folders_card_names_its_licence_or_none(
    tiny_dataset: Path, tmp_path: Path, card: str | None, license: str | None
) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert license_of(tmp_path, tiny_dataset) == license
