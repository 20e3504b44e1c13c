"""Load a PaliGemma base model, its config and its processor, and choose the dtype."""

from __future__ import annotations

import importlib.util
import logging
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from huggingface_hub.utils.tqdm import are_progress_bars_disabled
from safetensors import SafetensorError

from product_vqa.cpu import has_cpu_instructions
from product_vqa.errors import InputError, first_line
from product_vqa.hub import Location, download, find_file
from product_vqa.modeling.base_config import estimate_parameters, make_config
from product_vqa.modeling.model_files import (
    BASE_CONFIG,
    PROCESSOR_FILES,
    PROCESSOR_JSON,
    WEIGHTS_INDEX,
    check_files,
    check_tokenizer_file,
    find_weights,
    read_header,
    read_json_file,
    weight_patterns,
)
from product_vqa.modeling.processor_check import check_image_settings, check_processor

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PaliGemmaConfig, PaliGemmaForConditionalGeneration, PaliGemmaProcessor

# Suffixes alone (`q_proj`) would also adapt SigLIP, with 1.5 M more parameters at r=8.
LANGUAGE_MODEL_LINEARS = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
PROJECTOR_LINEAR = r".*multi_modal_projector\.linear"
VISION_ATTENTION = r".*vision_tower.*\.(q|k|v)_proj"

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
        # With Intel's matrix units (AMX), a product takes a tenth of float32's time.
        return dtype == torch.bfloat16 and has_cpu_instructions("amx_bf16")
    if device.type == "cuda" and dtype == torch.bfloat16:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return True


def nf4_config(dtype: torch.dtype) -> BitsAndBytesConfig:
    """Configure 4-bit NormalFloat with double quantization, for the language model only; the rest is in `dtype`."""
    compute_dtype = torch.bfloat16 if dtype == torch.float32 else dtype
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        # FSDP can only shard parameters of the same storage type.
        bnb_4bit_quant_storage=compute_dtype,
        llm_int8_skip_modules=UNQUANTIZED_MODULES,
    )


def load_processor(location: Location) -> PaliGemmaProcessor:
    """Load the processor of a base model, or of an adapter that has one.

    Raises InputError if there is none, or it does not turn a question and an image into a batch as PaliGemma's does.
    """
    folder = download(location, patterns=PROCESSOR_FILES)
    check_files(location, folder)
    settings = {name: read_json_file(location, folder, name) for name in PROCESSOR_JSON}
    if not any((folder / name).is_file() for name in PROCESSOR_JSON[:2]):
        raise InputError(f"{location} has no processor: it has no {' or '.join(PROCESSOR_JSON[:2])}")
    check_image_settings(settings, name=str(location))
    check_tokenizer_file(location, folder)
    try:
        with _processor_folder(folder) as path:
            processor = transformers.AutoProcessor.from_pretrained(
                path, trust_remote_code=False, local_files_only=True
            )
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        # tokenizers raises a plain Exception for a damaged file, and a BaseException if its Rust code panics.
        # Other damaged files cause errors of any type.
        reason = re.sub(r"/\S*/product-vqa-\w+", str(folder), first_line(error))
        raise InputError(f"{location}: its processor could not be loaded: {reason[:300]}") from error
    if not isinstance(processor, transformers.PaliGemmaProcessor):
        raise InputError(f"{location} has a {type(processor).__name__}, not a PaliGemmaProcessor")
    processor.tokenizer.name_or_path = str(folder)  # where its files are, and not the folder that is removed
    check_processor(processor, name=str(location))
    return processor


@contextmanager
def _processor_folder(folder: Path) -> Iterator[str]:
    """A folder with the files of the processor alone.

    AutoTokenizer would read a model's config.json, of which it needs the type only, and make whatever it states: a
    billion labels, for instance.
    """
    with tempfile.TemporaryDirectory(prefix="product-vqa-") as temporary:
        for name in PROCESSOR_FILES:
            if (folder / name).is_file():
                Path(temporary, name).symlink_to((folder / name).resolve())
        if (folder / BASE_CONFIG).is_file():
            Path(temporary, BASE_CONFIG).write_text('{"model_type": "paligemma"}')
        yield temporary


def load_config(location: Location) -> PaliGemmaConfig:
    """Load the config of a base model. Raises InputError if it is not a PaliGemma, or a field is out of range."""
    folder = download(location, patterns=[BASE_CONFIG])
    content = read_json_file(location, folder, BASE_CONFIG)
    if content is None:
        raise InputError(f"{location} has no model that could be loaded: it has no {BASE_CONFIG}")
    return make_config(content, name=str(location))


def load_base_model(
    location: Location,
    *,
    dtype: torch.dtype,
    load_in_4bit: bool = False,
    attn_implementation: str | None = None,
    disable_logit_softcapping: bool = False,
    device: str | torch.device | None = None,
) -> PaliGemmaForConditionalGeneration:
    """Load a PaliGemma (1 or 2, any size) from safetensors files in a folder or a repo at a commit.

    The weights are loaded directly onto `device` (None: the CPU). Otherwise each process would hold all of them in the
    host's memory first. `disable_logit_softcapping` removes PaliGemma 2's cap of its logits, if there is one.
    Raises InputError if it is not a PaliGemma, or could not be loaded, or bitsandbytes is needed and not installed.
    """
    if load_in_4bit and importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(
            f"{location} is loaded in 4 bits (NF4, as the adapter was trained on it or `load_in_4bit` asks for it), "
            "which needs bitsandbytes: pip install 'product-vqa[nf4]'"
        )
    config = load_config(location)
    if disable_logit_softcapping and caps_logits(config):
        text: Any = config.text_config
        text.final_logit_softcapping = None
    folder = _download_weights(location, config)
    try:
        with _without_progress_bar():
            loaded: Any = transformers.PaliGemmaForConditionalGeneration.from_pretrained(
                str(folder),
                config=config,
                generation_config=transformers.GenerationConfig(),  # the repo's own is not read
                trust_remote_code=False,
                local_files_only=True,
                dtype=dtype,
                attn_implementation=attn_implementation,
                quantization_config=nf4_config(dtype) if load_in_4bit else None,
                device_map={"": device or "cpu"} if device is not None or load_in_4bit else None,
                use_safetensors=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, ImportError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        # torch and transformers list each weight on a line of its own.
        raise InputError(f"{location} could not be loaded: {first_line(error)[:300]}") from error
    model: PaliGemmaForConditionalGeneration = loaded[0]
    if missing := sorted(loaded[1]["missing_keys"]):  # transformers only warns, and the model answers at random
        raise InputError(f"{location} could not be loaded: its weights lack {len(missing)}, for example {missing[0]}")
    model.config._name_or_path = location.name
    return model


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    """Weights are loaded in seconds, and a bar for that is noise in a program's output. Downloads keep theirs."""
    was_disabled = are_progress_bars_disabled()  # of the Hub's, which transformers switches too
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        if not was_disabled:
            transformers.logging.enable_progress_bar()


def caps_logits(config: PaliGemmaConfig) -> bool:
    """Return whether the model caps its logits, as PaliGemma 2 does: `30 * tanh(logits / 30)`."""
    return getattr(config.text_config, "final_logit_softcapping", None) is not None


def _download_weights(location: Location, config: PaliGemmaConfig) -> Path:
    """Download the weights; returns their folder. Raises InputError if they are damaged or not those of the config."""
    folder = download(location, patterns=weight_patterns(location))
    check_files(location, folder)
    if (folder / "adapter_config.json").exists():  # transformers would load that too
        raise InputError(f"{location} holds an adapter, not only a base model")
    held = 0
    for name in find_weights(location, folder):
        file = find_file(location, folder, name)
        if file is None:
            raise InputError(f"{location} has no {name}, which its {WEIGHTS_INDEX} lists")
        held += sum(tensor.size for tensor in read_header(location, file, name).values())
    needed = estimate_parameters(config)
    if not needed / 3 <= held <= needed * 3:
        raise InputError(
            f"{location}: its weights are {held} numbers, but a model of its config.json has about {needed}"
        )
    return folder


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
    """Raise InputError if the processor makes other images or tokens than the base model was built for."""
    size = model_config.vision_config.image_size
    processor_size = processor.image_processor.size["height"]
    tokens = (size // model_config.vision_config.patch_size) ** 2
    if size != processor_size or tokens != processor.image_seq_length:
        raise InputError(
            f"base model {base_model} takes images of {size} px ({tokens} image tokens), but the processor resizes to "
            f"{processor_size} px ({processor.image_seq_length} tokens): use the base model's own processor"
        )
    vocabulary = model_config.text_config.vocab_size
    largest = max(processor.tokenizer.get_vocab().values())
    if processor.image_token_id != model_config.image_token_id or largest >= vocabulary:
        raise InputError(
            f"base model {base_model} has {vocabulary} tokens, and token {model_config.image_token_id} stands for the "
            f"image; the processor has a token {largest}, and {processor.image_token_id} stands for the image: use "
            "the base model's own processor"
        )
