"""Load a PaliGemma base model, its config and its processor, and choose the dtype."""

import logging
from typing import Any

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

# Suffixes alone (`q_proj`) would also adapt SigLIP, with 1.5 M more parameters at r=8.
LANGUAGE_MODEL_LINEARS = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
PROJECTOR_LINEAR = r".*multi_modal_projector\.linear"

# The short name `vision_tower` matches nothing, so SigLIP would be quantized.
UNQUANTIZED_MODULES = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]


def resolve_dtype(dtype: str, *, device: str | torch.device, trained: str | None = None) -> torch.dtype:
    """Return the dtype of that name; for "auto", choose one.

    "auto" is the dtype in which the adapter was trained (`trained`), if the device supports it natively. Otherwise it
    is bfloat16 if the device supports that natively, float16 on an older GPU, and float32 on an older CPU.
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
    """Return whether the device computes in `dtype` natively. Emulation is slower than float32."""
    if dtype == torch.float32:
        return True
    if device.type == "cpu":
        # With Intel's matrix units (AMX), a product takes a tenth of float32's time. On other CPUs, it gained nothing.
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return dtype == torch.bfloat16 and bool(capabilities.get("amx_bf16"))
    if device.type == "cuda" and dtype == torch.bfloat16:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return True


def nf4_config(dtype: torch.dtype) -> BitsAndBytesConfig:
    """Configure 4-bit NormalFloat with double quantization, for the language model only; the rest is in `dtype`."""
    compute_dtype = torch.bfloat16 if dtype == torch.float32 else dtype
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        # FSDP can only shard parameters of the same storage type.
        bnb_4bit_quant_storage=compute_dtype,
        llm_int8_skip_modules=UNQUANTIZED_MODULES,
    )


def load_processor(location: Location) -> PaliGemmaProcessor:
    """Load the processor of a base model, or of an adapter that has one. Raises InputError if there is none."""
    try:
        processor = retry(
            lambda: AutoProcessor.from_pretrained(location.name, revision=location.revision), waits_s=BRIEF_WAITS_S
        )
    except (OSError, ValueError, httpx2.TransportError) as error:
        raise InputError(f"{location}: its processor could not be loaded: {first_line(error)}") from error
    if not isinstance(processor, PaliGemmaProcessor):
        raise InputError(f"{location} has a {type(processor).__name__}, not a PaliGemmaProcessor")
    return processor


def load_config(location: Location) -> PaliGemmaConfig:
    """Load the config of a base model. Raises InputError if it is not a PaliGemma."""
    try:
        config = retry(
            lambda: AutoConfig.from_pretrained(location.name, revision=location.revision), waits_s=BRIEF_WAITS_S
        )
    except (OSError, ValueError, KeyError, httpx2.TransportError) as error:
        raise InputError(f"{location} has no model that could be loaded: {first_line(error)}") from error
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
    """Load a PaliGemma (1 or 2, any size) from safetensors files in a folder or a repo at a commit.

    The weights are loaded directly onto `device` (None: the CPU). Otherwise each process would hold all of them in the
    host's memory first. Raises InputError if it is not a PaliGemma, or could not be loaded.
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
        raise InputError(f"{location} could not be loaded: {first_line(error)}") from error
    return model


def dequantize(model: PaliGemmaForConditionalGeneration) -> PaliGemmaForConditionalGeneration:
    """Convert an NF4 base model to an unquantized one with the same weights, so that an adapter can be merged into it.

    Call it before the first forward pass. On a CPU with AVX512-BF16, that pass reorders the 4-bit weights, and
    bitsandbytes would dequantize them wrongly.
    """
    noisy = logging.getLogger("transformers.integrations.bitsandbytes")
    level = noisy.level
    noisy.setLevel(logging.ERROR)  # silence an info about the dtype
    try:
        model.dequantize()
    finally:
        noisy.setLevel(level)
    model.is_loaded_in_4bit = False  # type: ignore[assignment]  # transformers leaves it at True
    return model


def check_image_size(model_config: Any, processor: PaliGemmaProcessor, *, base_model: Location) -> None:
    """Raise InputError if the processor resizes images to another size than the base model was built for."""
    size = model_config.vision_config.image_size
    processor_size = processor.image_processor.size["height"]
    tokens = (size // model_config.vision_config.patch_size) ** 2
    if size != processor_size or tokens != processor.image_seq_length:
        raise InputError(
            f"base model {base_model} takes images of {size} px ({tokens} image tokens), but the processor resizes to "
            f"{processor_size} px ({processor.image_seq_length} tokens): use the base model's own processor"
        )
