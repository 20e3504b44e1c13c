"""Read the adapter_config.json of a LoRA adapter that a stranger made, and configure peft with it.

peft would run regular expressions from the file with Python's `re`, in which some take forever, import modules that it
names, allocate any rank, and initialize weights for hours that are then replaced. Here, each field has a type and a
range. Regular expressions are matched in linear time, and peft gets the names of the modules that matched.
"""

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from peft import LoraConfig
from transformers import PreTrainedModel

from product_vqa.errors import InputError, first_line
from product_vqa.modeling.model_files import Tensor, is_number, wrong_field
from product_vqa.provenance import ADAPTER_CONFIG, ADAPTER_WEIGHTS

MAX_RANK = 4096
MAX_ALPHA = 1e6
MAX_NAMES = 10_000  # in a list of modules
MAX_PATTERNS = 500
MAX_REGEX_LENGTH = 2000
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
# These change the base model's weights before training, and the adapter does not contain the change.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


def check_config(content: Mapping[str, Any], *, name: str) -> None:
    """Raise InputError, which names the field, unless this is a LoRA adapter with fields of the right types.

    `name` is the adapter's.
    """
    peft_type = content.get("peft_type")
    if peft_type != "LORA":
        raise _wrong(name, "peft_type", peft_type, "LORA")
    _check_unsupported(content, name=name)
    for field, low, high in (("r", 1, MAX_RANK), ("lora_alpha", 0, MAX_ALPHA)):
        value = content.get(field, 8)
        if not is_number(value, low, high) or (field == "r" and type(value) is not int):
            raise _wrong(name, field, value, f"a number from {low} to {high:g}")
    for field in ("use_dora", "use_rslora"):
        if type(content.get(field) or False) is not bool:
            raise _wrong(name, field, content[field], "true or false")
    method = content.get("init_lora_weights")
    if isinstance(method, str) and method.lower().startswith(_CHANGES_BASE):
        raise _wrong(
            name, "init_lora_weights", method, "an adapter whose base model was not changed (convert it with peft)"
        )
    for field, high in (("rank_pattern", MAX_RANK), ("alpha_pattern", MAX_ALPHA)):
        pattern = content.get(field) or {}
        if not isinstance(pattern, Mapping) or len(pattern) > MAX_PATTERNS:
            raise _wrong(name, field, pattern, f"an object with at most {MAX_PATTERNS} entries")
        for key, value in pattern.items():
            if not is_number(value, 1 if field == "rank_pattern" else 0, high):
                raise _wrong(name, f"{field}.{key[:50]}", value, f"a number up to {high:g}")
            if field == "rank_pattern" and type(value) is not int:
                raise _wrong(name, f"{field}.{key[:50]}", value, "an integer")
    for field in ("target_modules", "exclude_modules"):
        value = content.get(field)
        if not (value is None or isinstance(value, str) or _is_list_of_names(value)):
            raise _wrong(name, field, value, "a list of names of modules, or a regular expression")
    if not content.get("target_modules"):
        raise _wrong(name, "target_modules", content.get("target_modules"), "the modules that the adapter changes")
    for field in ("modules_to_save", "layers_pattern"):
        value = content.get(field)
        if not (value is None or _is_list_of_names([value] if isinstance(value, str) else value)):
            raise _wrong(name, field, value, "a list of names of modules")
    layers = content.get("layers_to_transform")
    layers = [layers] if type(layers) is int else layers
    if layers is not None and not (isinstance(layers, list) and all(type(one) is int for one in layers)):
        raise _wrong(name, "layers_to_transform", layers, "a list of integers")


def _check_unsupported(content: Mapping[str, Any], *, name: str) -> None:
    """Raise InputError for a field that has an effect on the model which is not supported here."""
    defaults = {one.name: one.default for one in fields(LoraConfig) if one.default is not MISSING}
    for field, value in content.items():
        if field in _SUPPORTED | _IGNORED or not value or value == defaults.get(field, MISSING):
            continue
        raise _wrong(name, str(field)[:50], value, "an adapter without it (it is not supported)")


def _wrong(name: str, field: str, value: object, expected: str) -> InputError:
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
            raise _wrong(name, field[:50], rank, f"at most {max(ranks)}, the rank of its weights")


def make_lora_config(
    content: Mapping[str, Any], model: PreTrainedModel, tensors: Mapping[str, Tensor], *, name: str
) -> LoraConfig:
    """Configure peft to add the adapter to `model`. `content` must have passed `check_config`.

    Raises InputError if no module matches, or peft would allocate much more than the weights hold.
    """
    modules = dict(model.named_modules())
    names = [module for module in modules if module]
    linears = [module for module in names if _features(modules[module]) is not None]
    target = content["target_modules"]
    if isinstance(target, str) and target.lower() == "all-linear":
        output = model.get_output_embeddings()
        found = [module for module in linears if modules[module] is not output]
    else:
        found = _select(names, target, field="target_modules", name=name)
    if content.get("exclude_modules"):
        excluded = set(_select(names, content["exclude_modules"], field="exclude_modules", name=name))
        found = [module for module in found if module not in excluded]
    found = _select_layers(found, content)
    if not found:
        raise InputError(f"Target modules {str(target)[:200]} not found in the base model")
    saved = _select_saved(modules, content.get("modules_to_save"), name=name)
    config = LoraConfig(
        r=content.get("r", 8),
        lora_alpha=content.get("lora_alpha", 8),
        lora_dropout=0.0,
        target_modules=found,
        modules_to_save=saved or None,
        rank_pattern=_match_pattern(found, content.get("rank_pattern"), field="rank_pattern", name=name),
        alpha_pattern=_match_pattern(found, content.get("alpha_pattern"), field="alpha_pattern", name=name),
        use_rslora=bool(content.get("use_rslora")),
        use_dora=bool(content.get("use_dora")),
        inference_mode=True,
    )
    ranks = config.rank_pattern or {}
    needed = sum(ranks.get(module, config.r) * sum(_features(modules[module]) or ()) for module in found)
    needed += sum(parameter.numel() for module in saved for parameter in modules[module].parameters())
    held = sum(tensor.size for tensor in tensors.values())
    if needed > 8 * held + 1_000_000:
        raise InputError(
            f"size mismatch: its {ADAPTER_WEIGHTS} holds {held} numbers, but its {ADAPTER_CONFIG} needs {needed}"
        )
    return config


def _features(module: torch.nn.Module) -> tuple[int, int] | None:
    """Return the sizes of a linear layer's input and output; None for another module."""
    return (module.in_features, module.out_features) if isinstance(module, torch.nn.Linear) else None


def _select(names: list[str], wanted: str | Iterable[str], *, field: str, name: str) -> list[str]:
    """Select names as peft does: a text is a regular expression for the complete name, a list holds ends of names."""
    if isinstance(wanted, str):
        return _match(names, rf"\A(?:{wanted})\z", field=field, name=name)
    ends = set(wanted)
    return [one for one in names if any(end in ends for end in _ends(one))]


def _ends(name: str) -> Iterable[str]:
    parts = name.split(".")
    return (".".join(parts[start:]) for start in range(len(parts)))


def _match(names: list[str], pattern: str, *, field: str, name: str) -> list[str]:
    """Return the names in which RE2 finds the pattern. Unlike Python's `re`, it takes linear time for any pattern."""
    if len(pattern) > MAX_REGEX_LENGTH:
        raise _wrong(
            name, field, f"{pattern[:40]}...", f"a regular expression of at most {MAX_REGEX_LENGTH} characters"
        )
    try:
        found = pc.match_substring_regex(pa.array(names, pa.string()), pattern=pattern).to_pylist()
    except (pa.ArrowException, UnicodeError) as error:
        raise _wrong(
            name, field, pattern, f"a list of names, or a regular expression of RE2 ({first_line(error)[:100]})"
        ) from error
    return [one for one, matches in zip(names, found, strict=True) if matches]


def _select_layers(found: list[str], content: Mapping[str, Any]) -> list[str]:
    """Select the modules in the layers of `layers_to_transform`, if that is set."""
    layers = content.get("layers_to_transform")
    if layers is None or layers == []:
        return found
    layers = [layers] if isinstance(layers, int) else layers
    patterns = content.get("layers_pattern") or []
    containers = [patterns] if isinstance(patterns, str) else patterns
    selected = []
    for one in found:
        parts = one.split(".")
        indexes = [
            int(part)
            for before, part in itertools.pairwise(parts)
            if part.isdecimal() and (not containers or before in containers)
        ]
        if indexes and indexes[-1] in layers:
            selected.append(one)
    return selected


def _match_pattern(found: list[str], pattern: Mapping[str, Any] | None, *, field: str, name: str) -> dict[str, Any]:
    """Return the value of each module that a key matches; the first such key counts."""
    values: dict[str, Any] = {}
    for key, value in (pattern or {}).items():
        for one in _match(found, rf"\A(.*\.)?(?:{key})\z", field=field, name=name):
            values.setdefault(one, value)
    return values


def _select_saved(modules: Mapping[str, torch.nn.Module], wanted: Any, *, name: str) -> list[str]:
    """Return the names of the modules that the adapter replaces: linear layers, embeddings or the projector."""
    if not wanted:
        return []
    saved = _select(
        [one for one in modules if one], [wanted] if isinstance(wanted, str) else wanted, field="", name=name
    )
    for one in saved:
        is_projector = one.endswith("multi_modal_projector")
        if not is_projector and not isinstance(modules[one], torch.nn.Linear | torch.nn.Embedding):
            raise _wrong(name, "modules_to_save", one, "linear layers, embeddings or multi_modal_projector")
    if not saved:
        raise _wrong(name, "modules_to_save", wanted, "modules of the base model")
    return saved
