"""The small PaliGemma of the benchmarks: the real one in small, at its picture size, with random weights."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import GemmaConfig, PaliGemmaConfig, PaliGemmaForConditionalGeneration, SiglipVisionConfig

from product_vqa.modeling.loading import LANGUAGE_MODEL_LINEARS
from quickstart.small_paligemma import make_processor

IMAGE_SIZE, PATCH_SIZE = 224, 14  # 256 image tokens, as paligemma-3b-pt-224
HIDDEN_SIZE, LAYERS = 384, 6
SMALL_VOCABULARY = 32_000


def save_small_base(folder: Path, *, vocabulary: int) -> int:
    """Write the base, float32, with its processor; returns its number of parameters (36 M with 32,000 words)."""
    processor = make_processor(image_size=IMAGE_SIZE, patch_size=PATCH_SIZE)
    tokenizer = processor.tokenizer
    special = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    layers = {"hidden_size": HIDDEN_SIZE, "intermediate_size": 4 * HIDDEN_SIZE, "num_hidden_layers": LAYERS}
    vision = SiglipVisionConfig(
        **layers, num_attention_heads=6, image_size=IMAGE_SIZE, patch_size=PATCH_SIZE, projection_dim=HIDDEN_SIZE,
        vision_use_head=False,
    )  # fmt: skip
    text = GemmaConfig(
        **layers, **special, num_attention_heads=6, num_key_value_heads=1, head_dim=64, vocab_size=vocabulary,
        initializer_range=HIDDEN_SIZE**-0.5,
    )  # fmt: skip
    config = PaliGemmaConfig(
        vision_config=vision.to_dict(), text_config=text.to_dict(), image_token_index=processor.image_token_id,
        projection_dim=HIDDEN_SIZE, hidden_size=HIDDEN_SIZE, vocab_size=vocabulary, **special,
    )  # fmt: skip
    torch.manual_seed(0)
    model = PaliGemmaForConditionalGeneration(config)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model.num_parameters()


def save_small_adapter(folder: Path, *, base: Path) -> None:
    """An adapter of rank 8 on the language model that changes what the base says."""
    model = PaliGemmaForConditionalGeneration.from_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(r=8, target_modules=LANGUAGE_MODEL_LINEARS, init_lora_weights=False))
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(folder)
