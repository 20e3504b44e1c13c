"""adapter_config.json of a stranger: each field has a type and a range."""

from typing import Any

import pytest
from peft import LoraConfig

from product_vqa.errors import InputError
from product_vqa.modeling.adapter_config import check_config, check_weights
from product_vqa.modeling.model_files import Tensor

WEIGHTS = {"x.lora_A.weight": Tensor("F32", (8, 2_000_000)), "x.lora_B.weight": Tensor("F32", (2_000_000, 8))}


def test_a_config_of_peft_with_all_its_fields_passes() -> None:
    content = LoraConfig(r=8, target_modules=["q_proj"], task_type="CAUSAL_LM").to_dict()
    check_config(content | {"peft_type": "LORA", "auto_mapping": None, "target_modules": ["q_proj"]}, name="x")


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
