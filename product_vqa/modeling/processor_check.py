"""Check a processor that a stranger made: its settings before it is loaded, and what it does with a question.

A processor could ask for an image of a million pixels a side, repeat a token a billion times, or encode nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from product_vqa.errors import InputError, first_line
from product_vqa.modeling.collator import make_generation_batch, normalize_images
from product_vqa.modeling.model_files import is_integer, is_number, wrong_field
from product_vqa.task.schema import CHALLENGE, ENTITIES

if TYPE_CHECKING:
    from transformers import PaliGemmaProcessor

MAX_IMAGE_SIZE = 4096  # px; PaliGemma's are 224 to 896
MAX_IMAGE_TOKENS = 2**16
MAX_PROMPT_TOKENS = 500  # one per character would be 40
_SWITCHES = ("do_resize", "do_rescale", "do_normalize")
_IMAGE_PROCESSORS = ("SiglipImageProcessor", "SiglipImageProcessorFast", "SiglipImageProcessorPil")


def check_image_settings(settings: Mapping[str, dict[str, Any] | None], *, name: str) -> None:
    """Raise InputError, which names the file and the field, for settings of the image processor out of range.

    `settings` has the content of the processor's JSON files; `name` is the base model's or the adapter's.
    """
    for file, content in settings.items():
        if file not in ("processor_config.json", "preprocessor_config.json") or content is None:
            continue
        parts = [content]
        if "image_processor" in content:
            if not isinstance(content["image_processor"], dict):
                raise wrong_field(name, file, "image_processor", content["image_processor"], "an object")
            parts.append(content["image_processor"])
        for part in parts:
            _check_part(part, name=name, file=file)


def _check_part(part: dict[str, Any], *, name: str, file: str) -> None:
    size = part.get("size", {"height": 224, "width": 224})
    is_square = isinstance(size, dict) and set(size) == {"height", "width"} and size["height"] == size["width"]
    if not is_square or not is_integer(size["height"], 1, MAX_IMAGE_SIZE):
        raise wrong_field(name, file, "size", size, f"a height and an equal width of at most {MAX_IMAGE_SIZE} px")
    for field in ("image_seq_length", "num_image_tokens"):
        if part.get(field) is not None and not is_integer(part[field], 1, MAX_IMAGE_TOKENS):
            raise wrong_field(name, file, field, part[field], f"an integer from 1 to {MAX_IMAGE_TOKENS}")
    for field in _SWITCHES:
        if part.get(field, True) is not True:
            raise wrong_field(name, file, field, part[field], "true")
    for field in ("image_mean", "image_std"):
        value = part.get(field)
        is_valid = isinstance(value, list) and len(value) == 3 and all(is_number(one, -1e3, 1e3) for one in value)
        if value is not None and (not is_valid or (field == "image_std" and 0 in value)):
            raise wrong_field(name, file, field, value, "three numbers, not zero")
    if not is_number(part.get("rescale_factor", 1 / 255), 1e-6, 1e3):
        raise wrong_field(name, file, "rescale_factor", part["rescale_factor"], "a positive number")
    if part.get("resample") is not None and not is_integer(part["resample"], 0, 5):
        raise wrong_field(name, file, "resample", part["resample"], "an integer from 0 to 5")
    kind = part.get("image_processor_type")
    if kind is not None and kind not in _IMAGE_PROCESSORS:
        raise wrong_field(name, file, "image_processor_type", kind, _IMAGE_PROCESSORS[0])


def check_processor(processor: PaliGemmaProcessor, *, name: str) -> None:
    """Raise InputError unless the processor makes a batch of a question and an image as PaliGemma's does."""
    images, tokenizer = processor.image_processor, processor.tokenizer
    if type(images).__name__ not in _IMAGE_PROCESSORS:
        raise InputError(f"{name}: its image processor is a {type(images).__name__}, not a {_IMAGE_PROCESSORS[0]}")
    for token in ("bos_token", "eos_token", "pad_token"):
        if getattr(tokenizer, f"{token}_id", None) is None:
            raise InputError(f"{name}: its tokenizer has no {token}")
    try:
        num_tokens, size = int(processor.image_seq_length), images.size["height"]
        if not 0 < num_tokens <= MAX_IMAGE_TOKENS:
            raise ValueError(f"{num_tokens} tokens for an image")
        if len(tokenizer.encode(f"{ENTITIES[0]}\n")) > MAX_PROMPT_TOKENS:
            raise ValueError(f"more than {MAX_PROMPT_TOKENS} tokens for a prompt")
        rows = [{"image": Image.new("RGB", (1, 1)), "entity_name": max(ENTITIES, key=len)}]
        batch = make_generation_batch(rows, processor=processor, schema=CHALLENGE)  # any questions will do
        found = int((batch["input_ids"] == processor.image_token_id).sum())
        length = batch["input_ids"].shape[1] - num_tokens
        if found != num_tokens or not 1 < length <= MAX_PROMPT_TOKENS:
            raise ValueError(f"a prompt has {found} image tokens instead of {num_tokens}, and {length} others")
        pixels = batch["pixel_values"]
        if pixels.shape != (1, 3, size, size) or pixels.dtype != torch.uint8:
            raise ValueError(f"an image becomes {pixels.dtype} {tuple(pixels.shape)}")
        if not normalize_images(pixels, processor=processor, dtype=torch.float32).isfinite().all():
            raise ValueError("an image becomes infinite")
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a tokenizer's Rust code panics with a BaseException
        raise InputError(f"{name}: its processor cannot make a batch: {first_line(error)[:300]}") from error
