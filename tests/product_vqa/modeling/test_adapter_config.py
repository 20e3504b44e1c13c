"""adapter_config.json of a stranger: what peft would do with it, without its regular expressions and allocations."""

import time
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PaliGemmaForConditionalGeneration

from benchmarks.base_models import PALIGEMMA_3B, make_base_config
from product_vqa.errors import InputError
from product_vqa.modeling.adapter_config import check_config, check_weights, make_lora_config
from product_vqa.modeling.loading import LANGUAGE_MODEL_LINEARS
from product_vqa.modeling.model_files import Tensor

WEIGHTS = {"x.lora_A.weight": Tensor("F32", (8, 2_000_000)), "x.lora_B.weight": Tensor("F32", (2_000_000, 8))}


@pytest.fixture(scope="module")
def model() -> PaliGemmaForConditionalGeneration:
    config = make_base_config(PALIGEMMA_3B)
    config.text_config.num_hidden_layers, config.vision_config.num_hidden_layers = 3, 2
    with torch.device("meta"):
        return PaliGemmaForConditionalGeneration(config)


def adapted(model: PaliGemmaForConditionalGeneration, config: LoraConfig) -> dict[str, tuple[int, float]]:
    """Rank and scaling of each module that peft adapts; the model is as before."""
    peft_model = get_peft_model(model, config)
    found = {
        name: (module.r["default"], module.scaling["default"])
        for name, module in peft_model.base_model.model.named_modules()
        if hasattr(module, "lora_A")
    }
    peft_model.unload()
    return found


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": LANGUAGE_MODEL_LINEARS},
        {"target_modules": ["q_proj", "up_proj"]},
        {"target_modules": ["layers.1.self_attn.q_proj"]},
        {"target_modules": "all-linear"},
        {"target_modules": ["q_proj"], "layers_to_transform": [0, 2]},
        {"target_modules": ["q_proj"], "layers_to_transform": 1, "layers_pattern": "layers"},
        {"target_modules": ["q_proj", "v_proj"], "exclude_modules": ".*vision_tower.*"},
        {"target_modules": ["q_proj"], "exclude_modules": ["layers.0.self_attn.q_proj"]},
        {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"v_proj": 2, "layers.1.self_attn.q_proj": 4}},
        {"target_modules": ["q_proj"], "alpha_pattern": {".*language_model.*q_proj": 64}, "use_rslora": True},
        {"target_modules": r"(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:k_proj|v_proj).*?)"},
    ],
    ids=str,
)
def test_it_adapts_what_peft_adapts(model: PaliGemmaForConditionalGeneration, fields: dict[str, Any]) -> None:
    expected = adapted(model, LoraConfig(r=8, lora_alpha=16, **fields))
    content = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, **fields}
    check_config(content, name="x")
    assert adapted(model, make_lora_config(content, model, WEIGHTS, name="x")) == expected
    assert expected


def test_a_config_of_peft_with_all_its_fields_passes() -> None:
    content = LoraConfig(r=8, target_modules=["q_proj"], task_type="CAUSAL_LM").to_dict()
    check_config(content | {"peft_type": "LORA", "auto_mapping": None, "target_modules": ["q_proj"]}, name="x")


@pytest.mark.parametrize("field", ["target_modules", "exclude_modules", "rank_pattern"])
@pytest.mark.parametrize("regex", ["(([a-z._0-9])+)+!", "(.*)*x", "(a|a)*b", "([a-z.]*)*\\d!", "(?:.*?.*?.*?)+!"])
def test_no_regular_expression_takes_long(model: PaliGemmaForConditionalGeneration, field: str, regex: str) -> None:
    content: dict[str, Any] = {"peft_type": "LORA", "target_modules": ["q_proj"]}
    content[field] = {regex: 4} if field == "rank_pattern" else regex
    check_config(content, name="x")
    start = time.monotonic()
    if field == "target_modules":
        with pytest.raises(InputError, match=r"Target modules .* not found in the base model"):
            make_lora_config(content, model, WEIGHTS, name="x")
    else:
        assert len(make_lora_config(content, model, WEIGHTS, name="x").target_modules) == 5  # type: ignore[arg-type]
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("peft_type", "IA3"), ("r", 10**9), ("r", "8"), ("r", None), ("lora_alpha", 1e308), ("lora_alpha", True),
        ("target_modules", None), ("target_modules", [1]), ("target_modules", ["(a+)+"]),
        ("rank_pattern", {"q": 10**9}),
        ("alpha_pattern", {"q": "x"}), ("layer_replication", [[0, 2], [0, 2]]), ("megatron_config", {"a": 1}),
        ("trainable_token_indices", [1]), ("target_parameters", ["x"]), ("init_lora_weights", "pissa_niter_4"),
        ("bias", "all"), ("lora_bias", True), ("use_dora", "yes"), ("modules_to_save", [5]), ("unknown", 1),
        ("layers_to_transform", ["0"]), ("fan_in_fan_out", True),
    ],
)  # fmt: skip
def test_a_field_that_is_wrong_or_not_supported_is_named(field: str, value: Any) -> None:
    content = {"peft_type": "LORA", "target_modules": ["q_proj"], field: value}
    with pytest.raises(InputError, match=rf"^x: `{field}[\w.]*` in its adapter_config\.json is ") as refusal:
        check_config(content, name="x")
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 300


def test_a_rank_that_the_weights_do_not_have_is_refused_before_peft_allocates_it() -> None:
    content = {"peft_type": "LORA", "target_modules": ["q_proj"], "r": 4000}
    with pytest.raises(InputError, match=r"`r` .* is '4000'; expected at most 8, the rank of its weights"):
        check_weights(content, WEIGHTS, name="x")
    with pytest.raises(InputError, match="holds no LoRA weights"):
        check_weights(content, {"x": Tensor("F32", (1,))}, name="x")


def test_weights_that_are_too_few_for_the_modules_are_refused(model: PaliGemmaForConditionalGeneration) -> None:
    content = {"peft_type": "LORA", "target_modules": "all-linear", "r": 4000}
    few = {"x.lora_A.weight": Tensor("F32", (4000, 1))}
    check_weights(content, few, name="x")
    with pytest.raises(InputError, match=r"size mismatch: its adapter_model\.safetensors holds 4000 numbers, but"):
        make_lora_config(content, model, few, name="x")


def test_only_layers_and_the_projector_can_be_saved_as_a_whole(model: PaliGemmaForConditionalGeneration) -> None:
    content = {"peft_type": "LORA", "target_modules": ["q_proj"]}
    for wanted in (["multi_modal_projector"], "lm_head"):
        config = make_lora_config(content | {"modules_to_save": wanted}, model, WEIGHTS | {
            "lm_head": Tensor("F32", (257_216, 2048))
        }, name="x")  # fmt: skip
        assert config.modules_to_save in (["model.multi_modal_projector"], ["lm_head"])
    for wanted in (["language_model"], ["none"]):
        with pytest.raises(InputError, match="`modules_to_save`"):
            make_lora_config(content | {"modules_to_save": wanted}, model, WEIGHTS, name="x")
