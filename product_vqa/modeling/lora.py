"""Apply a LoRA adapter that a stranger made to its base model.

peft would match the regular expressions of its adapter_config.json with Python's `re`, for which some take forever.
Here they are matched in linear time, and peft gets the names of the modules that matched.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file

from product_vqa.errors import InputError, first_line
from product_vqa.hub import Location
from product_vqa.modeling.adapter import Adapter
from product_vqa.modeling.adapter_config import wrong_config
from product_vqa.modeling.model_files import Tensor
from product_vqa.provenance import ADAPTER_CONFIG, ADAPTER_WEIGHTS

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PaliGemmaForConditionalGeneration, PreTrainedModel

MAX_REGEX_LENGTH = 2000


def apply_adapter(
    model: PaliGemmaForConditionalGeneration, adapter: Adapter, *, base_model: Location, merge: bool
) -> PaliGemmaForConditionalGeneration:
    """Add an adapter to its base model.

    A merged adapter costs no time per step, but cannot be merged into 4-bit weights without loss. Raises InputError if
    the weights are damaged or do not fit the base model.
    """
    from peft import PeftModel  # takes seconds, and imports bitsandbytes where that is installed

    with _loading_errors(adapter, base_model):
        config = make_lora_config(adapter.config, model, adapter.tensors, name=str(adapter.location))
        adapted = PeftModel.from_pretrained(model, str(adapter.folder), config=config)
        applied = adapted.merge_and_unload() if merge else adapted.get_base_model()
    assert isinstance(applied, transformers.PaliGemmaForConditionalGeneration)
    return applied


def apply_adapters(
    model: PaliGemmaForConditionalGeneration, adapters: Mapping[str, Adapter], *, base_model: Location
) -> PeftModel:
    """Add several adapters, by name, to one base model, for `PeftModel.set_adapter`. None of them is merged.

    A name may have letters, digits and `_`. Raises InputError as `apply_adapter` does.
    """
    from peft import PeftModel, set_peft_model_state_dict  # as above

    configs = {}
    for name, adapter in adapters.items():  # of the base model as it is: with an adapter, its modules have other names
        with _loading_errors(adapter, base_model):
            configs[name] = make_lora_config(adapter.config, model, adapter.tensors, name=str(adapter.location))
    first = next(iter(adapters))
    adapted: PeftModel | None = None
    for name, adapter in adapters.items():
        with _loading_errors(adapter, base_model):
            if adapted is None:
                adapted = PeftModel.from_pretrained(
                    model, str(adapter.folder), adapter_name=first, config=configs[first]
                )
                continue
            adapted.add_adapter(name, configs[name])
            weights = load_file(adapter.folder / ADAPTER_WEIGHTS, device=str(model.device))
            found: Any = set_peft_model_state_dict(adapted, weights, adapter_name=name)
            missing = [key for key in found.missing_keys if name in key.split(".")]
            if missing or found.unexpected_keys:
                raise KeyError(f"its weights lack {missing[:1]}, and {list(found.unexpected_keys)[:1]} is unknown")
    assert adapted is not None
    adapted.set_adapter(first, inference_mode=True)
    return adapted


@contextmanager
def _loading_errors(adapter: Adapter, base_model: Location) -> Iterator[None]:
    """Convert what peft raises about an adapter into an InputError."""
    with warnings.catch_warnings():
        # If weights are missing, peft only warns, and the model answers as if it were not trained.
        warnings.filterwarnings("error", message="Found missing adapter keys")
        warnings.filterwarnings(
            "ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning
        )  # peft's own call
        try:
            yield
        except SafetensorError as error:
            raise InputError(
                f"{adapter.location}: its {ADAPTER_WEIGHTS} is damaged ({first_line(error)}): download it again (with "
                "git lfs pull, if it is the pointer of a Git LFS file)"
            ) from error
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, UserWarning) as error:
            # torch lists each weight on a line of its own, after a first line without details.
            mismatches = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
            reason = mismatches[0] if mismatches else first_line(error)
            raise InputError(f"{adapter.location} does not fit base model {base_model}: {reason[:500]}") from error


def make_lora_config(
    content: Mapping[str, Any], model: PreTrainedModel, tensors: Mapping[str, Tensor], *, name: str
) -> LoraConfig:
    """Configure peft to add the adapter to `model`. `content` must have passed `check_config`.

    Raises InputError if no module matches, or peft would allocate much more than the weights hold.
    """
    from peft import LoraConfig

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
        raise wrong_config(
            name, field, f"{pattern[:40]}...", f"a regular expression of at most {MAX_REGEX_LENGTH} characters"
        )
    try:
        found = pc.match_substring_regex(pa.array(names, pa.string()), pattern=pattern).to_pylist()
    except (pa.ArrowException, UnicodeError) as error:
        raise wrong_config(
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
            raise wrong_config(name, "modules_to_save", one, "linear layers, embeddings or multi_modal_projector")
    if not saved:
        raise wrong_config(name, "modules_to_save", wanted, "modules of the base model")
    return saved
