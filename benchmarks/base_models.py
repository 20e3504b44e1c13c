"""Base models with the architecture and the files of the published PaliGemmas, and random weights.

    python -m benchmarks.base_models --name paligemma-3b-pt-224 --output_dir base

Their weights have the names, shapes, dtype (bfloat16) and shards of the repos on the Hub, so memory, time and loading
are those of the real ones; the answers are not. The processor has Gemma's real tokenizer if
`benchmarks.real_tokenizer` has fetched it, otherwise the quickstart's.
"""

import argparse
import json
import math
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    AutoTokenizer,
    Gemma2Config,
    GemmaConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
)
from transformers.models.paligemma.processing_paligemma import EXTRA_TOKENS

from benchmarks.real_tokenizer import find_tokenizer
from quickstart.pretraining.small_paligemma import make_processor

VOCABULARY = 257_216  # 256,000 pieces, 1,024 <loc>, 128 <seg>, <image>, and padding to a multiple of 64
PATCH_SIZE = 14
SHARD_BYTES = 5 * 10**9
_SPECIAL_IDS: dict[str, Any] = dict(zip(("pad_token_id", "eos_token_id", "bos_token_id"), range(3), strict=True))
_TEXT_CONFIGS: dict[str, type[GemmaConfig] | type[Gemma2Config]] = {"gemma": GemmaConfig, "gemma2": Gemma2Config}


@dataclass(frozen=True)
class Architecture:
    """What distinguishes the base models: the sizes of SigLIP and of a Gemma."""

    family: str  # of the language model: gemma or gemma2
    image_size: int
    text: dict[str, Any]
    vision: dict[str, Any]

    def shrink(self) -> "Architecture":
        """The same with two layers of size 128, to try a benchmark. 64 divides all sizes, as NF4 on a CPU requires."""
        sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
        text = {**sizes, "num_key_value_heads": 1, "head_dim": 64}
        if self.family == "gemma2":
            text["query_pre_attn_scalar"] = 64
        return replace(self, text=text, vision=sizes)


_SIGLIP = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
_GEMMA_2B = {
    "hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": 18, "num_attention_heads": 8,
    "num_key_value_heads": 1, "head_dim": 256,
}  # fmt: skip
_GEMMA2_2B = {
    "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 256, "query_pre_attn_scalar": 256,
}  # fmt: skip
ARCHITECTURES = {
    f"{name}-{image_size}": Architecture(family, image_size, text=text, vision=_SIGLIP)
    for name, family, text in (
        ("paligemma-3b-pt", "gemma", _GEMMA_2B),
        ("paligemma2-3b-pt", "gemma2", _GEMMA2_2B),
    )
    for image_size in (224, 448, 896)
}
PALIGEMMA_3B = ARCHITECTURES["paligemma-3b-pt-224"]
PALIGEMMA2_3B = ARCHITECTURES["paligemma2-3b-pt-224"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", choices=ARCHITECTURES, default="paligemma-3b-pt-224", help="the repo to imitate")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder to create, of 6 GB")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the weights")
    options = parser.parse_args()
    if options.output_dir.exists() and any(options.output_dir.iterdir()):
        sys.exit(f"error: --output_dir {options.output_dir} is not empty; choose another folder")
    save_base_model(options.output_dir, ARCHITECTURES[options.name], seed=options.seed)
    print(options.output_dir)


def save_base_model(
    folder: Path, architecture: Architecture, *, seed: int = 0, device: str = "cpu", is_zero: bool = False
) -> None:
    """Save a base model: config.json, the weights in shards, and the processor's files.

    At most one shard is in memory at a time. On a GPU, random numbers are made in a hundredth of the time.
    With `is_zero`, all weights are zero.
    """
    folder.mkdir(parents=True, exist_ok=True)
    processor = make_base_processor(architecture)
    processor.save_pretrained(folder)
    config = make_base_config(architecture, image_token_id=processor.image_token_id)
    config.architectures = [PaliGemmaForConditionalGeneration.__name__]
    config.dtype = torch.bfloat16
    config.save_pretrained(folder)
    generator = torch.Generator(device).manual_seed(seed)
    shards = list(_split(_published_shapes(config)))
    file_names: dict[str, str] = {}
    for number, shapes in enumerate(shards, start=1):
        file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        if is_zero:
            tensors = {name: torch.zeros(shape, dtype=torch.bfloat16) for name, shape in shapes.items()}
        else:
            tensors = {name: _make_weight(name, shape, generator=generator) for name, shape in shapes.items()}
        save_file(tensors, folder / file_name, metadata={"format": "pt"})
        file_names |= dict.fromkeys(shapes, file_name)
    total = sum(2 * math.prod(shape) for shapes in shards for shape in shapes.values())
    index = {"metadata": {"total_size": total}, "weight_map": file_names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def make_base_processor(architecture: Architecture) -> PaliGemmaProcessor:
    """Make the processor, with Gemma's real tokenizer if it was fetched, otherwise with the quickstart's."""
    file = find_tokenizer(architecture.family)
    tokenizer = load_real_tokenizer(file) if file else None
    return make_processor(image_size=architecture.image_size, patch_size=PATCH_SIZE, tokenizer=tokenizer)


def load_real_tokenizer(file: Path) -> PreTrainedTokenizerFast:
    """Load Gemma's tokenizer.json, and add the <loc> and <seg> tokens of PaliGemma's behind Gemma's own."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(file, folder)
        Path(folder, "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GemmaTokenizer"}))
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)  # nosec B615  # a folder
    tokenizer.add_tokens(EXTRA_TOKENS)  # the processor adds <image> behind them
    return tokenizer


def make_base_config(architecture: Architecture, *, image_token_id: int = 257_152) -> PaliGemmaConfig:
    """Make the config of a base model; `image_token_id` is by default the published ones'."""
    text = _TEXT_CONFIGS[architecture.family](**architecture.text, **_SPECIAL_IDS, vocab_size=VOCABULARY)
    vision = SiglipVisionConfig(
        **architecture.vision, patch_size=PATCH_SIZE, image_size=architecture.image_size,
        projection_dim=text.hidden_size,  # type: ignore[call-arg]  # PaliGemma's own
        vision_use_head=False,
    )  # fmt: skip
    return PaliGemmaConfig(
        vision_config=vision.to_dict(), text_config=text.to_dict(), projection_dim=text.hidden_size,
        hidden_size=text.hidden_size, image_token_index=image_token_id, vocab_size=VOCABULARY, **_SPECIAL_IDS,
    )  # fmt: skip


# transformers has renamed the modules since the weights were published, and converts the names when it loads them.
_PUBLISHED_NAMES = (
    ("model.language_model.", "language_model.model."),
    ("model.vision_tower.", "vision_tower.vision_model."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
)


def _published_shapes(config: PaliGemmaConfig) -> dict[str, torch.Size]:
    """Return the shape of each weight by the name that it has in the repos; lm_head is that of the embeddings."""
    with torch.device("meta"):
        model = PaliGemmaForConditionalGeneration(config)
    shapes = {}
    for name, parameter in model.named_parameters():
        for current, published in _PUBLISHED_NAMES:
            if name.startswith(current):
                shapes[published + name.removeprefix(current)] = parameter.shape
    assert len(shapes) == len(list(model.named_parameters()))  # which lists shared ones once
    return shapes


def _split(shapes: Mapping[str, torch.Size]) -> Iterator[dict[str, torch.Size]]:
    """Split the weights, in their order, into shards of at most SHARD_BYTES."""
    shard: dict[str, torch.Size] = {}
    size = 0
    for name, shape in shapes.items():
        if shard and size + 2 * math.prod(shape) > SHARD_BYTES:
            yield shard
            shard, size = {}, 0
        shard[name] = shape
        size += 2 * math.prod(shape)
    yield shard


def _make_weight(name: str, shape: torch.Size, *, generator: torch.Generator) -> torch.Tensor:
    """Make a weight that keeps the size of activations: a matrix of 1 / sqrt(inputs), a norm that does not scale."""
    if name.endswith("bias"):
        return torch.zeros(shape, dtype=torch.bfloat16)
    if len(shape) == 1:  # SigLIP's norms multiply by the weight, Gemma's by 1 + weight
        return torch.full(shape, float("vision_tower" in name), dtype=torch.bfloat16)
    weight = torch.empty(shape, dtype=torch.bfloat16, device=generator.device)
    return weight.normal_(std=math.prod(shape[1:]) ** -0.5, generator=generator).cpu()


if __name__ == "__main__":
    main()
