"""The model of the benchmarks: a small PaliGemma at the real image size, with random weights."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import GemmaConfig, PaliGemmaConfig, PaliGemmaForConditionalGeneration, SiglipVisionConfig

from product_vqa.modeling.loading import LANGUAGE_MODEL_LINEARS
from quickstart.pretraining.small_paligemma import make_processor

IMAGE_SIZE, PATCH_SIZE = 224, 14  # 256 image tokens, as in paligemma-3b-pt-224
HIDDEN_SIZE, LAYERS, HEADS = 384, 6, 6
SMALL_VOCABULARY = 32_000


def save_small_model(folder: Path, *, vocabulary: int) -> int:
    """Save the base model in float32 with its processor; returns its number of parameters.

    It has 36 million with a vocabulary of 32,000.
    """
    processor = make_processor(image_size=IMAGE_SIZE, patch_size=PATCH_SIZE)
    tokenizer = processor.tokenizer
    special_tokens = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision = SiglipVisionConfig(
        hidden_size=HIDDEN_SIZE,
        intermediate_size=4 * HIDDEN_SIZE,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        projection_dim=HIDDEN_SIZE,  # type: ignore[call-arg]  # PaliGemma's own
        vision_use_head=False,
    )
    text = GemmaConfig(
        hidden_size=HIDDEN_SIZE,
        intermediate_size=4 * HIDDEN_SIZE,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=1,
        head_dim=64,
        vocab_size=vocabulary,
        initializer_range=HIDDEN_SIZE**-0.5,
        **special_tokens,
    )
    config = PaliGemmaConfig(
        vision_config=vision.to_dict(),
        text_config=text.to_dict(),
        image_token_index=processor.image_token_id,
        projection_dim=HIDDEN_SIZE,
        hidden_size=HIDDEN_SIZE,
        vocab_size=vocabulary,
        **special_tokens,
    )
    torch.manual_seed(0)
    model = PaliGemmaForConditionalGeneration(config)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model.num_parameters()


def save_small_adapter(folder: Path, *, base: Path) -> None:
    """Save an adapter of rank 8 on the language model that changes what the base model predicts."""
    model = PaliGemmaForConditionalGeneration.from_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(r=8, target_modules=LANGUAGE_MODEL_LINEARS, init_lora_weights=False))
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(str(folder))
