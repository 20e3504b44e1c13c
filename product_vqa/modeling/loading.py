"""Load PaliGemma, its processor and its configuration."""

import logging
from typing import Any, Literal

import httpx2  # huggingface_hub's own client
import torch
from transformers import (
    AutoConfig,
    AutoProcessor,
    BitsAndBytesConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
)

from product_vqa.errors import InputError, first_line
from product_vqa.hub import BRIEF_WAITS_S, Location, retry

# Suffixes alone (`q_proj`) would also adapt SigLIP, 1.5 M parameters more at r=8.
LANGUAGE_MODEL_LINEARS = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
PROJECTOR_LINEAR = r".*multi_modal_projector\.linear"

# The short name `vision_tower` matches nothing and leaves SigLIP quantized.
UNQUANTIZED_MODULES = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]

Dtype = Literal["auto", "bfloat16", "float16", "float32"]


def resolve_dtype(dtype: str, *, device: str | torch.device, trained: str | None = None) -> torch.dtype:
    """The dtype of that name; for `auto` that of the adapter's training (`trained`), where the device has it natively.

    Else bfloat16 where the device is fast at it, float16 on an older GPU, float32 on an older CPU.
    """
    if dtype == "auto" and trained is not None and _is_native(_named_dtype(trained), device=torch.device(device)):
        return _named_dtype(trained)
    if dtype != "auto":
        return _named_dtype(dtype)
    if _is_native(torch.bfloat16, device=torch.device(device)):
        return torch.bfloat16
    return torch.float32 if torch.device(device).type == "cpu" else torch.float16


def _named_dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype


def _is_native(dtype: torch.dtype, *, device: torch.device) -> bool:
    """Whether the device computes in it without emulation, which is slower than float32."""
    if dtype == torch.float32:
        return True
    if device.type == "cpu":
        # With Intel's matrix units a product takes a tenth of float32's time; on CPUs without, it gained nothing.
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return dtype == torch.bfloat16 and bool(capabilities.get("amx_bf16"))
    if device.type == "cuda" and dtype == torch.bfloat16:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return True


def nf4_config(dtype: torch.dtype) -> BitsAndBytesConfig:
    """4-bit NormalFloat with double quantization, for the language model only, of a base in `dtype`."""
    compute_dtype = torch.bfloat16 if dtype == torch.float32 else dtype
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        # FSDP shards by storage type; one type for all parameters lets it.
        bnb_4bit_quant_storage=compute_dtype,
        llm_int8_skip_modules=UNQUANTIZED_MODULES,
    )


def load_processor(location: Location) -> PaliGemmaProcessor:
    """The processor of a base, or of an adapter that brings one. Raises InputError if there is none."""
    try:
        processor = retry(
            lambda: AutoProcessor.from_pretrained(location.name, revision=location.revision), waits_s=BRIEF_WAITS_S
        )
    except (OSError, ValueError, httpx2.TransportError) as error:
        raise InputError(f"{location} holds no processor that can be loaded: {first_line(error)}") from error
    if not isinstance(processor, PaliGemmaProcessor):
        raise InputError(f"{location} holds a {type(processor).__name__}, not a PaliGemmaProcessor")
    return processor


def load_config(location: Location) -> PaliGemmaConfig:
    """The shape of a base. Raises InputError if this is no PaliGemma."""
    try:
        config = retry(
            lambda: AutoConfig.from_pretrained(location.name, revision=location.revision), waits_s=BRIEF_WAITS_S
        )
    except (OSError, ValueError, KeyError, httpx2.TransportError) as error:
        raise InputError(f"{location} holds no model: {first_line(error)}") from error
    if config.model_type != "paligemma":
        raise InputError(f"{location} is a {config.model_type} model; a PaliGemma is needed")
    return config


def load_base_model(
    location: Location,
    *,
    dtype: torch.dtype,
    load_in_4bit: bool = False,
    attn_implementation: str | None = None,
    device: str | torch.device | None = None,
) -> PaliGemmaForConditionalGeneration:
    """PaliGemma (1 or 2, any size) from a folder or a pinned repo, safetensors only.

    The weights are loaded straight onto `device`: in between they would take their size of the host's memory, for
    every process. None is the CPU. Raises InputError if this is no PaliGemma.
    """
    load_config(location)
    try:
        model = retry(
            lambda: PaliGemmaForConditionalGeneration.from_pretrained(
                location.name,
                revision=location.revision or "main",
                dtype=dtype,
                attn_implementation=attn_implementation,
                quantization_config=nf4_config(dtype) if load_in_4bit else None,
                device_map={"": device or "cpu"} if device is not None or load_in_4bit else None,
                use_safetensors=True,
            ),
            waits_s=BRIEF_WAITS_S,
        )
    except (OSError, ValueError, ImportError, httpx2.TransportError) as error:
        raise InputError(f"{location} cannot be loaded: {first_line(error)}") from error
    return model


def dequantize(model: PaliGemmaForConditionalGeneration) -> PaliGemmaForConditionalGeneration:
    """The NF4 base as an ordinary model with the same weights, to merge an adapter into that was trained on it.

    To be called before the first forward pass: on a CPU with AVX512-BF16 that packs the 4-bit weights in another
    order, which bitsandbytes' dequantization does not know, and the model would be another one.
    """
    noisy = logging.getLogger("transformers.integrations.bitsandbytes")
    level = noisy.level
    noisy.setLevel(logging.ERROR)  # it says in which dtype: the base model's
    try:
        model.dequantize()
    finally:
        noisy.setLevel(level)
    model.is_loaded_in_4bit = False  # type: ignore[assignment]  # transformers leaves it True
    return model


def check_image_size(model_config: Any, processor: PaliGemmaProcessor, *, base_model: Location) -> None:
    """Raises InputError if the processor makes other pictures than the base was built for."""
    size, made = model_config.vision_config.image_size, processor.image_processor.size["height"]
    tokens = (size // model_config.vision_config.patch_size) ** 2
    if size != made or tokens != processor.image_seq_length:
        raise InputError(
            f"base {base_model} takes pictures of {size} px ({tokens} image tokens), the processor makes {made} px "
            f"({processor.image_seq_length}): take the processor of the same base"
        )
