"""An adapter merged into its base model: written as plain transformers reads it, and compared with the adapter.

The merged weights are those of `AttributeReader.from_pretrained(adapter, dtype=...)`, bit for bit: the base model is
loaded in that dtype, NF4 weights are dequantized if the adapter was trained on them, and the adapter is merged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from PIL import Image
from transformers import GenerationConfig, PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from product_vqa.errors import InputError
from product_vqa.hub import Location
from product_vqa.modeling.adapter import Adapter
from product_vqa.modeling.attribute_reader import AttributeReader
from product_vqa.modeling.collator import make_generation_batch
from product_vqa.modeling.loading import load_processor
from product_vqa.modeling.lora import apply_adapter
from product_vqa.modeling.reader_loading import load_model_for
from product_vqa.modeling.token_probabilities import first_token_log_p
from product_vqa.task.attributes import Schema

NUM_ROWS = 8  # for the comparison; PaliGemma 3B takes some seconds per row on a CPU
# Mean KL divergence in nats. In float32, merging only changes the order of sums; in 16 bits, it also rounds weights.
MAX_DIVERGENCE = {"float32": 1e-5, "bfloat16": 0.01, "float16": 0.01}

Hashes = dict[str, str]  # name of a parameter -> hash of its dtype, shape and values


@dataclass(frozen=True)
class Comparison:
    """How far the first token of the merged model's answers is from the adapter's."""

    rows: int
    divergence: float  # mean KL, nats
    agreeing: int  # rows with the same most likely token


def choose_dtype(adapter: Adapter, dtype: str) -> str:
    """The dtype of an export: for "auto" that of the training, or bfloat16 if the adapter does not record it."""
    if dtype != "auto":
        return dtype
    return adapter.base_settings.dtype if adapter.base_settings else "bfloat16"


def make_rows(schema: Schema, *, number: int = NUM_ROWS) -> list[dict[str, Any]]:
    """Questions about random images. The images have areas of colours, as photos have, and not only noise."""
    generator = np.random.default_rng(0)
    rows = []
    for position in range(number):
        areas = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        image = areas.resize((320, 240), Image.Resampling.BICUBIC)
        rows.append({"image": image, "entity_name": schema.names[position % len(schema.names)]})
    return rows


def adapter_log_p(
    adapter: Adapter, base_model: Location, rows: Sequence[dict[str, Any]], *, dtype: str, device: str
) -> torch.Tensor:
    """The adapter's log probabilities of the first token, (rows, V): it is not merged, and computed in float32."""
    processor = load_processor(adapter.processor or base_model)
    model = load_model_for(adapter, base_model, dtype=dtype, load_in_4bit=None, device=device)
    model = apply_adapter(model, adapter, base_model=base_model, merge=False).float().eval()
    batch = make_generation_batch(rows, processor=processor, schema=adapter.schema)
    return first_token_log_p(model, batch, processor=processor)


def save_model(reader: AttributeReader, folder: Path) -> Hashes:
    """Write the model and its processor as `from_pretrained` of transformers reads them; returns the hashes."""
    hashes = hash_parameters(reader.model)
    tokenizer = reader.processor.tokenizer
    reader.model.generation_config = GenerationConfig(  # the reader has none; without, `generate` would not end
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    reader.model.save_pretrained(folder)
    tokenizer.backend_tokenizer.no_padding()  # that of the last call
    tokenizer.backend_tokenizer.no_truncation()
    reader.processor.save_pretrained(folder)
    return hashes


def check_model(folder: Path, rows: Sequence[dict[str, Any]], *, schema: Schema, expected: torch.Tensor,
                hashes: Hashes, dtype: str, device: str) -> Comparison:  # fmt: skip
    """Read a written model with plain transformers, and compare it with the adapter.

    Raises InputError unless each parameter is as it was before it was written, and the probabilities are those that
    are expected.
    """
    model = PaliGemmaForConditionalGeneration.from_pretrained(folder, local_files_only=True, device_map={"": device})
    processor = PaliGemmaProcessor.from_pretrained(folder, local_files_only=True)
    found = hash_parameters(model)
    if changed := sorted(name for name in hashes.keys() | found.keys() if hashes.get(name) != found.get(name)):
        raise InputError(f"the written model differs in {len(changed)} weights, for example {changed[0]}: try again")
    model = model.float().eval()
    inputs = processor(
        images=[row["image"] for row in rows],
        text=[f"<image>{schema[row['entity_name']].question}" for row in rows],
        return_tensors="pt",
        padding=True,
        padding_side="left",
    ).to(device)
    inputs.pop("labels", None)
    with torch.inference_mode():
        log_p = model(**inputs, logits_to_keep=1).logits[:, -1].float().log_softmax(-1).cpu()
    comparison = compare(expected, log_p)
    if not comparison.divergence <= MAX_DIVERGENCE[dtype]:
        raise InputError(
            f"the merged model does not answer as the adapter does: the first tokens of {len(rows)} answers have a "
            f"KL divergence of {comparison.divergence:.2g}, more than {MAX_DIVERGENCE[dtype]:g}. Choose `dtype` "
            "bfloat16 or float32"
        )
    return comparison


def compare(expected: torch.Tensor, log_p: torch.Tensor) -> Comparison:
    """Compare log probabilities of tokens, (rows, V)."""
    divergence = (expected.double().exp() * (expected.double() - log_p.double())).nan_to_num(nan=0.0).sum(-1)
    divergence = torch.where(log_p.isfinite().all(-1), divergence, torch.inf)
    agreeing = int((expected.argmax(-1) == log_p.argmax(-1)).sum())
    return Comparison(len(expected), float(divergence.mean().clamp(min=0.0)), agreeing)


def hash_parameters(model: PaliGemmaForConditionalGeneration) -> Hashes:
    """Hash each parameter and buffer that is saved."""
    hashes = {}
    for name, tensor in model.state_dict().items():
        content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        hashes[name] = f"{tensor.dtype} {tuple(tensor.shape)} {xxhash.xxh3_128_hexdigest(content)}"
    return hashes
