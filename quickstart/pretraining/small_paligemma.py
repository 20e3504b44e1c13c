"""A small PaliGemma: the real classes with few weights, and a tokenizer that is built like Gemma's."""

import math
import string
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    GemmaConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
)

from product_vqa.task.prompt import PROMPT_TEMPLATE
from product_vqa.task.schema import ENTITIES, UNITS
from quickstart.pretraining.tasks import FIRST_WORDS, PRINTED_UNITS, WORDS

SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>", "<image>")


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer like Gemma's: a space is `▁` and belongs to the word after it, and every digit is a token.

    The vocabulary is printable ASCII and the words of the questions, the units and the pretraining tasks; the
    processor adds `<loc>` and `<seg>`.
    """
    words = {word for text in (*ENTITIES, *UNITS) for word in text.replace("_", " ").split()}
    words |= set(PROMPT_TEMPLATE.removesuffix("?").split()) - {"{entity}"}
    words |= {*WORDS, *PRINTED_UNITS}
    pieces = [(token, 0.0) for token in SPECIAL_TOKENS]
    pieces += [(character, -5.0) for character in f"\n▁{string.printable.strip()}"]
    # A complete word is more likely than its letters, so each text has one tokenization only.
    pieces += [(f"▁{word}", -4.0) for word in sorted(words)]
    pieces += [(word, -4.0) for word in ("What", *FIRST_WORDS)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=SPECIAL_TOKENS.index("<unk>"), byte_fallback=False))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\d"), "isolated")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
        clean_up_tokenization_spaces=False,
    )


def make_processor(
    *, image_size: int, patch_size: int, tokenizer: PreTrainedTokenizerFast | None = None
) -> PaliGemmaProcessor:
    """Make the real processor, for square images of `image_size` px in patches of `patch_size` px."""
    image_processor = SiglipImageProcessorPil(
        size={"height": image_size, "width": image_size}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    # PaliGemmaProcessor reads it.
    image_processor.image_seq_length = (image_size // patch_size) ** 2  # type: ignore[attr-defined]
    return PaliGemmaProcessor(image_processor=image_processor, tokenizer=tokenizer or make_tokenizer())


def make_model(
    processor: PaliGemmaProcessor, *, patch_size: int, hidden_size: int = 128, layers: int = 2, seed: int = 0
) -> PaliGemmaForConditionalGeneration:
    """Make a model with random weights for this processor.

    `hidden_size` is a multiple of 64, so that NF4 works on a CPU too.
    """
    torch.manual_seed(seed)
    tokenizer = processor.tokenizer
    vocabulary = -(-len(tokenizer) // 64) * 64
    special = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision = SiglipVisionConfig(
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 64,
        image_size=processor.image_processor.size["height"],
        patch_size=patch_size,
        projection_dim=hidden_size,  # type: ignore[call-arg]  # PaliGemma's own
        vision_use_head=False,
    )
    text = GemmaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 64,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=1024,
        initializer_range=hidden_size**-0.5,  # embeddings of norm 1; with the usual 0.02 all logits are nearly equal
        **special,
    )
    config = PaliGemmaConfig(
        vision_config=vision.to_dict(),
        text_config=text.to_dict(),
        image_token_index=processor.image_token_id,
        projection_dim=hidden_size,
        hidden_size=hidden_size,
        vocab_size=vocabulary,
        **special,
    )
    model = PaliGemmaForConditionalGeneration(config)
    _initialize_vision_tower(model)
    return model


# The directions (patches right, patches down) in which the heads of each of the tower's layers attend at first.
_DIRECTIONS = (((-1, 0), (1, 0)), ((0, -1), (0, 1)), ((-1, 0), (1, 0)))


@torch.no_grad()
def _initialize_vision_tower(model: PaliGemmaForConditionalGeneration) -> None:
    """Initialize the tower with what takes minutes to learn: where a patch is, and which patches are next to it.

    The first half of the dimensions (64 or fewer) encodes the position as sines and cosines of both coordinates, the
    other half the pixels. A shift is a rotation of the sines and cosines, so a query that is rotated by one patch
    matches the key of the neighbouring patch.
    """
    tower = model.model.vision_tower
    embeddings, size = tower.embeddings, tower.config.hidden_size
    grid = tower.config.image_size // tower.config.patch_size
    width = min(64, size // 2)
    count = width // 4
    frequencies = torch.logspace(math.log10(2.6), math.log10(math.pi / grid), count)
    down, right = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    x, y = right.reshape(-1, 1) * frequencies, down.reshape(-1, 1) * frequencies
    positions = embeddings.position_embedding.weight
    positions.normal_(std=0.02)
    positions[:, :width] = torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)
    pixels = embeddings.patch_embedding.weight
    pixels.normal_(std=pixels[0].numel() ** -0.5)
    pixels[:width] *= 0.05
    embeddings.patch_embedding.bias.zero_()

    head_size = size // tower.config.num_attention_heads
    for layer, directions in zip(tower.encoder.layers, _DIRECTIONS, strict=False):
        query, key = layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight
        for head, (shift_x, shift_y) in enumerate(directions[: tower.config.num_attention_heads]):
            rows = slice(head * head_size, head * head_size + width)
            rotation = torch.block_diag(_rotation(frequencies * shift_x), _rotation(frequencies * shift_y))
            query[rows] *= 0.1
            key[rows] *= 0.1
            query[rows, :width] += 1.7 * rotation
            key[rows, :width] += 1.7 * torch.eye(width)


def _rotation(angles: torch.Tensor) -> torch.Tensor:
    """The matrix that adds these angles to those of a vector of sines followed by cosines."""
    sine = angles.sin().diag()
    cosine = angles.cos().diag()
    return torch.cat([torch.cat([cosine, sine], dim=1), torch.cat([-sine, cosine], dim=1)])


def save_base(
    folder: Path, *, image_size: int = 112, patch_size: int = 8, hidden_size: int = 128, layers: int = 2, seed: int = 0
) -> None:
    """Save a base model with random weights (bf16 safetensors, configuration, processor) to `folder`."""
    processor = make_processor(image_size=image_size, patch_size=patch_size)
    model = make_model(processor, patch_size=patch_size, hidden_size=hidden_size, layers=layers, seed=seed)
    model.bfloat16().save_pretrained(folder)
    processor.save_pretrained(folder)
