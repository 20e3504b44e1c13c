"""A small PaliGemma: the real classes with few weights, and a tokenizer of its own built like Gemma's."""

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

from product_vqa.entities import ENTITIES, UNITS
from product_vqa.prompt import PROMPT_TEMPLATE

SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>", "<image>")


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Like Gemma's: a blank is `▁` and belongs to the word after it, every digit is a token of its own.

    The vocabulary is printable ASCII, the words of the questions and of the units; the processor adds `<loc>` and
    `<seg>`.
    """
    words = {word for text in (*ENTITIES, *UNITS) for word in text.replace("_", " ").split()}
    words |= set(PROMPT_TEMPLATE.removesuffix("?").split()) - {"{entity}"}
    pieces = [(token, 0.0) for token in SPECIAL_TOKENS]
    pieces += [(character, -5.0) for character in f"\n▁{string.printable.strip()}"]
    pieces += [(f"▁{word}", -4.0) for word in sorted(words)]
    pieces += [("What", -4.0)]
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


def make_processor(*, image_size: int, patch_size: int) -> PaliGemmaProcessor:
    """The real processor, for square pictures of `image_size` px in patches of `patch_size`."""
    image_processor = SiglipImageProcessorPil(
        size={"height": image_size, "width": image_size}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    image_processor.image_seq_length = (image_size // patch_size) ** 2
    return PaliGemmaProcessor(image_processor=image_processor, tokenizer=make_tokenizer())


def make_model(
    processor: PaliGemmaProcessor, *, patch_size: int, hidden_size: int = 128, layers: int = 2, seed: int = 0
) -> PaliGemmaForConditionalGeneration:
    """Random weights for that processor. `hidden_size` is a multiple of 64, so that NF4 runs on a CPU too."""
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
        projection_dim=hidden_size,
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
        initializer_range=hidden_size**-0.5,  # embeddings of norm 1: at the usual 0.02 all logits are nearly equal
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
    return PaliGemmaForConditionalGeneration(config)


def save_base(
    folder: Path, *, image_size: int = 112, patch_size: int = 8, hidden_size: int = 128, layers: int = 2, seed: int = 0
) -> None:
    """Write a whole base (bf16 safetensors, config, processor) to `folder`."""
    processor = make_processor(image_size=image_size, patch_size=patch_size)
    model = make_model(processor, patch_size=patch_size, hidden_size=hidden_size, layers=layers, seed=seed)
    model.to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)
