"""config.json of a stranger: the real shapes pass unchanged, everything else is refused by field or has no effect."""

from typing import Any

import pytest

from benchmarks.base_models import ARCHITECTURES, PALIGEMMA_3B, make_base_config
from product_vqa.errors import InputError
from product_vqa.modeling.base_config import estimate_parameters, make_config


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_config_of_a_real_shape_is_made_again_as_it_was(name: str) -> None:
    expected = make_base_config(ARCHITECTURES[name]).to_dict()
    assert make_config(expected, name="x").to_dict() == expected


def test_the_parameters_of_the_real_3b_are_estimated_within_a_percent() -> None:
    assert estimate_parameters(make_base_config(PALIGEMMA_3B)) == pytest.approx(2_923_466_480, rel=0.01)


def test_what_the_computation_does_not_need_has_no_effect() -> None:
    content = make_base_config(PALIGEMMA_3B).to_dict()
    content |= {"auto_map": {"AutoConfig": "x.X"}, "attn_implementation": "user/kernel", "num_labels": 10**9}
    content |= {"torch_dtype": "os.system", "_name_or_path": "/etc", "dtype": 5}
    content["text_config"] |= {"attn_implementation": "user/kernel", "torch_dtype": 5}
    config = make_config(content, name="x")
    assert config.to_dict() == make_base_config(PALIGEMMA_3B).to_dict()
    assert not hasattr(config, "auto_map")


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        (None, "model_type", "gemma", "x is a gemma model; a PaliGemma is needed"),
        (None, "text_config", 5, r"`text_config` in its config\.json is '5'; expected an object"),
        (None, "quantization_config", {"a": 1}, "expected a base model that is not quantized"),
        (None, "projection_dim", 64, "`projection_dim` .* expected text_config.hidden_size, which is 2048"),
        ("text_config", "hidden_size", 10**9, r"`text_config.hidden_size` .* an integer from 1 to 32768"),
        ("text_config", "hidden_size", True, "`text_config.hidden_size`"),
        ("text_config", "num_hidden_layers", 10**6, "`text_config.num_hidden_layers` .* from 1 to 256"),
        ("text_config", "num_key_value_heads", 3, "a divisor of the 8 num_attention_heads"),
        ("text_config", "model_type", "llama", "expected gemma or gemma2"),
        ("text_config", "rope_parameters", {"rope_type": "yarn"}, "an object with the rope_type default"),
        ("text_config", "hidden_act", "os.system", "`text_config.hidden_act`"),
        ("vision_config", "image_size", 10**6, "`vision_config.image_size`"),
        ("vision_config", "patch_size", 0, "`vision_config.patch_size`"),
        ("vision_config", "num_attention_heads", 7, "a divisor of the hidden_size 1152"),
    ],
)
def test_a_field_out_of_range_is_named(part: str | None, field: str, value: Any, message: str) -> None:
    content = make_base_config(PALIGEMMA_3B).to_dict()
    (content if part is None else content[part])[field] = value
    with pytest.raises(InputError, match=message) as refusal:
        make_config(content, name="x")
    assert "\n" not in str(refusal.value)
