"""Check the adapter_config.json of a LoRA adapter that a stranger made.

peft would import modules that it names, allocate any rank, and initialize weights for hours that are then replaced.
Here, each field has a type and a range. `lora` configures peft with what has passed.
"""

import re
from collections.abc import Mapping
from typing import Any

from product_vqa.errors import InputError
from product_vqa.modeling.model_files import Tensor, is_number, wrong_field
from product_vqa.provenance import ADAPTER_CONFIG, ADAPTER_WEIGHTS

MAX_RANK = 4096
MAX_ALPHA = 1e6
MAX_NAMES = 10_000  # in a list of modules
MAX_PATTERNS = 500
_PLAIN_NAME = re.compile(r"[\w.-]{1,200}")
# Without effect on an adapter that is trained and merged.
_IGNORED = {
    "auto_mapping", "base_model_name_or_path", "eva_config", "inference_mode", "init_lora_weights", "lora_dropout",
    "megatron_core", "peft_type", "peft_version", "qalora_group_size", "revision", "runtime_config", "task_type",
    "loftq_config", "corda_config", "lora_ga_config",
}  # fmt: skip
_SUPPORTED = {
    "alpha_pattern", "exclude_modules", "layers_pattern", "layers_to_transform", "lora_alpha", "modules_to_save", "r",
    "rank_pattern", "target_modules", "use_dora", "use_rslora",
}  # fmt: skip
_DEFAULTS = {"bias": "none"}  # of the fields that are not supported, those that peft sets
# These change the base model's weights before training, and the adapter does not contain the change.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


def check_config(content: Mapping[str, Any], *, name: str) -> None:
    """Raise InputError, which names the field, unless this is a LoRA adapter with fields of the right types.

    `name` is the adapter's.
    """
    peft_type = content.get("peft_type")
    if peft_type != "LORA":
        raise wrong_config(name, "peft_type", peft_type, "LORA")
    _check_unsupported(content, name=name)
    for field, low, high in (("r", 1, MAX_RANK), ("lora_alpha", 0, MAX_ALPHA)):
        value = content.get(field, 8)
        if not is_number(value, low, high) or (field == "r" and type(value) is not int):
            raise wrong_config(name, field, value, f"a number from {low} to {high:g}")
    for field in ("use_dora", "use_rslora"):
        if type(content.get(field) or False) is not bool:
            raise wrong_config(name, field, content[field], "true or false")
    method = content.get("init_lora_weights")
    if isinstance(method, str) and method.lower().startswith(_CHANGES_BASE):
        raise wrong_config(
            name, "init_lora_weights", method, "an adapter whose base model was not changed (convert it with peft)"
        )
    for field, high in (("rank_pattern", MAX_RANK), ("alpha_pattern", MAX_ALPHA)):
        pattern = content.get(field) or {}
        if not isinstance(pattern, Mapping) or len(pattern) > MAX_PATTERNS:
            raise wrong_config(name, field, pattern, f"an object with at most {MAX_PATTERNS} entries")
        for key, value in pattern.items():
            if not is_number(value, 1 if field == "rank_pattern" else 0, high):
                raise wrong_config(name, f"{field}.{key[:50]}", value, f"a number up to {high:g}")
            if field == "rank_pattern" and type(value) is not int:
                raise wrong_config(name, f"{field}.{key[:50]}", value, "an integer")
    for field in ("target_modules", "exclude_modules"):
        value = content.get(field)
        if not (value is None or isinstance(value, str) or _is_list_of_names(value)):
            raise wrong_config(name, field, value, "a list of names of modules, or a regular expression")
    if not content.get("target_modules"):
        raise wrong_config(
            name, "target_modules", content.get("target_modules"), "the modules that the adapter changes"
        )
    for field in ("modules_to_save", "layers_pattern"):
        value = content.get(field)
        if not (value is None or _is_list_of_names([value] if isinstance(value, str) else value)):
            raise wrong_config(name, field, value, "a list of names of modules")
    layers = content.get("layers_to_transform")
    layers = [layers] if type(layers) is int else layers
    if layers is not None and not (isinstance(layers, list) and all(type(one) is int for one in layers)):
        raise wrong_config(name, "layers_to_transform", layers, "a list of integers")


def _check_unsupported(content: Mapping[str, Any], *, name: str) -> None:
    """Raise InputError for a field that has an effect on the model which is not supported here."""
    for field, value in content.items():
        if field in _SUPPORTED | _IGNORED or not value or value == _DEFAULTS.get(field):
            continue
        raise wrong_config(name, str(field)[:50], value, "an adapter without it (it is not supported)")


def wrong_config(name: str, field: str, value: object, expected: str) -> InputError:
    """Return the error for a field of the config of the adapter `name`."""
    return wrong_field(name, ADAPTER_CONFIG, field, value, expected)


def _is_list_of_names(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= MAX_NAMES
        and all(isinstance(one, str) and _PLAIN_NAME.fullmatch(one) for one in value)
    )


def check_weights(content: Mapping[str, Any], tensors: Mapping[str, Tensor], *, name: str) -> None:
    """Raise InputError unless the weights have the ranks that the config states: peft allocates these.

    `content` must have passed `check_config`.
    """
    ranks = {
        tensor.shape[0] for key, tensor in tensors.items() if key.endswith("lora_A.weight") and len(tensor.shape) == 2
    }
    if not ranks:
        raise InputError(f"{name}: its {ADAPTER_WEIGHTS} holds no LoRA weights")
    stated = [("r", content.get("r", 8)), *(content.get("rank_pattern") or {}).items()]
    for field, rank in stated:
        if rank > max(ranks):
            raise wrong_config(name, field[:50], rank, f"at most {max(ranks)}, the rank of its weights")
