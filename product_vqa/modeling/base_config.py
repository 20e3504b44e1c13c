"""Read the config.json of a base model that a stranger made.

Only fields that define the computation of a PaliGemma are used, each with a type and a range. The rest, such as code,
kernels, chat templates or the settings of `generate`, has no effect.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import transformers

from product_vqa.errors import InputError
from product_vqa.modeling.model_files import BASE_CONFIG, is_integer, is_number, wrong_field

if TYPE_CHECKING:
    from transformers import PaliGemmaConfig

_INTEGERS = {
    "hidden_size": (1, 32_768),
    "intermediate_size": (1, 262_144),
    "num_hidden_layers": (1, 256),
    "num_attention_heads": (1, 256),
    "num_key_value_heads": (1, 256),
    "head_dim": (1, 1024),
    "vocab_size": (1, 2_000_000),
    "max_position_embeddings": (1, 10_000_000),
    "sliding_window": (1, 10_000_000),
    "image_size": (1, 4096),
    "patch_size": (1, 1024),
    "num_channels": (3, 3),
    "projection_dim": (1, 32_768),
    "image_token_index": (0, 2_000_000),
    "pad_token_id": (0, 2_000_000),
    "bos_token_id": (0, 2_000_000),
    "eos_token_id": (0, 2_000_000),
}
_NUMBERS = {
    "rms_norm_eps": (0.0, 1.0),
    "layer_norm_eps": (0.0, 1.0),
    "attention_dropout": (0.0, 1.0),
    "initializer_range": (0.0, 100.0),
    "query_pre_attn_scalar": (1e-6, 1e6),
    "rope_theta": (1.0, 1e12),
    "final_logit_softcapping": (1e-3, 1e6),
    "attn_logit_softcapping": (1e-3, 1e6),
}
_BOOLEANS = (
    "attention_bias", "tie_word_embeddings", "use_bidirectional_attention", "use_cache", "vision_use_head",
)  # fmt: skip
_ACTIVATIONS = ("gelu_pytorch_tanh", "gelu", "gelu_new", "gelu_fast", "quick_gelu", "relu", "silu")
_MEANS_NONE = ("final_logit_softcapping", "attn_logit_softcapping")  # null differs from the default
_TEXT_MODELS = ("gemma", "gemma2")
_VISION_MODEL = "siglip_vision_model"


def make_config(content: Mapping[str, Any], *, name: str) -> PaliGemmaConfig:
    """Make the config of a PaliGemma from the content of a config.json.

    Raises InputError, which names the field, if that is another model or quantized, or a field has a wrong type or is
    out of range. `name` is the base model's.
    """
    model_type = content.get("model_type")
    if model_type != "paligemma":
        raise InputError(f"{name} is a {str(model_type)[:50]} model; a PaliGemma is needed")
    for part in (content, content.get("text_config"), content.get("vision_config")):
        if isinstance(part, Mapping) and part.get("quantization_config"):
            raise _wrong(name, "quantization_config", "set", "a base model that is not quantized")
    text, vision = _part(content, "text_config", name=name), _part(content, "vision_config", name=name)
    if text.setdefault("model_type", "gemma") not in _TEXT_MODELS:
        raise _wrong(name, "text_config.model_type", text["model_type"], " or ".join(_TEXT_MODELS))
    if vision.setdefault("model_type", _VISION_MODEL) != _VISION_MODEL:
        raise _wrong(name, "vision_config.model_type", vision["model_type"], _VISION_MODEL)
    fields = _fields(content, name=name, prefix="")
    config = transformers.PaliGemmaConfig(**fields, text_config=text, vision_config=vision)
    _check_dimensions(config, name=name)
    return config


def _wrong(name: str, field: str, value: object, expected: str) -> InputError:
    return wrong_field(name, BASE_CONFIG, field, value, expected)


def _part(content: Mapping[str, Any], key: str, *, name: str) -> dict[str, Any]:
    part = content.get(key)
    if not isinstance(part, Mapping):
        raise _wrong(name, key, part, "an object")
    fields = _fields(part, name=name, prefix=f"{key}.")
    if "model_type" in part:
        fields["model_type"] = part["model_type"]
    return fields


def _fields(content: Mapping[str, Any], *, name: str, prefix: str) -> dict[str, Any]:
    """Return the known fields, checked one by one."""
    fields: dict[str, Any] = {}
    for key, value in content.items():
        field = f"{prefix}{key}"
        if value is None:
            if key in _MEANS_NONE:
                fields[key] = None
            continue
        if key in _INTEGERS:
            low, high = _INTEGERS[key]
            if not is_integer(value, low, high):
                raise _wrong(name, field, value, f"an integer from {low} to {high}" if low < high else str(low))
        elif key in _NUMBERS:
            if not is_number(value, *_NUMBERS[key]):
                raise _wrong(name, field, value, "a number from {} to {}".format(*_NUMBERS[key]))
        elif key in _BOOLEANS:
            if type(value) is not bool:
                raise _wrong(name, field, value, "true or false")
        elif key in ("hidden_act", "hidden_activation"):
            if value not in _ACTIVATIONS:
                raise _wrong(name, field, value, f"one of {', '.join(_ACTIVATIONS)}")
        elif key == "layer_types":
            if not isinstance(value, list) or not all(one in ("full_attention", "sliding_attention") for one in value):
                raise _wrong(name, field, value, "a list of full_attention and sliding_attention")
            if len(value) != content.get("num_hidden_layers"):
                raise _wrong(name, field, f"a list of {len(value)}", "one for each layer")
        elif key in ("rope_parameters", "rope_scaling"):
            fields["rope_parameters"] = _rope_parameters(value, name=name, field=field)
            continue
        else:
            continue
        fields[key] = value
    return fields


def _rope_parameters(value: Any, *, name: str, field: str) -> dict[str, Any]:
    rope_type = value.get("rope_type", value.get("type", "default")) if isinstance(value, Mapping) else None
    if rope_type != "default":
        raise _wrong(name, field, value, "an object with the rope_type default")
    theta = value.get("rope_theta", 10_000.0)
    if not is_number(theta, *_NUMBERS["rope_theta"]):
        raise _wrong(name, f"{field}.rope_theta", theta, "a number from {} to {}".format(*_NUMBERS["rope_theta"]))
    return {"rope_type": "default", "rope_theta": float(theta)}


def _check_dimensions(config: PaliGemmaConfig, *, name: str) -> None:
    text: Any = config.text_config
    vision: Any = config.vision_config
    if text.num_attention_heads % text.num_key_value_heads:
        raise _wrong(
            name, "text_config.num_key_value_heads", text.num_key_value_heads,
            f"a divisor of the {text.num_attention_heads} num_attention_heads",
        )  # fmt: skip
    if text.head_dim % 2:
        raise _wrong(name, "text_config.head_dim", text.head_dim, "an even number")
    if vision.hidden_size % vision.num_attention_heads:
        raise _wrong(
            name, "vision_config.num_attention_heads", vision.num_attention_heads,
            f"a divisor of the hidden_size {vision.hidden_size}",
        )  # fmt: skip
    if vision.patch_size > vision.image_size:
        raise _wrong(name, "vision_config.patch_size", vision.patch_size, f"at most image_size {vision.image_size}")
    if config.projection_dim != text.hidden_size:
        raise _wrong(
            name, "projection_dim", config.projection_dim, f"text_config.hidden_size, which is {text.hidden_size}"
        )
    for field in ("pad_token_id", "bos_token_id", "eos_token_id"):
        for part, prefix in ((config, ""), (text, "text_config.")):
            value = getattr(part, field, None)
            if isinstance(value, int) and value >= text.vocab_size:
                raise _wrong(name, prefix + field, value, f"less than vocab_size, which is {text.vocab_size}")


def estimate_parameters(config: PaliGemmaConfig) -> int:
    """Estimate the number of parameters, within a few percent, without making the model."""
    text: Any = config.text_config
    vision: Any = config.vision_config
    heads = text.num_attention_heads + text.num_key_value_heads
    text_layer = text.hidden_size * (2 * heads * text.head_dim + 3 * text.intermediate_size)
    vision_layer = vision.hidden_size * (4 * vision.hidden_size + 2 * vision.intermediate_size)
    patches = math.ceil(vision.image_size / vision.patch_size) ** 2 + 3 * vision.patch_size**2
    return int(
        text.vocab_size * text.hidden_size
        + text.num_hidden_layers * text_layer
        + vision.num_hidden_layers * vision_layer
        + vision.hidden_size * (patches + config.projection_dim)
    )
