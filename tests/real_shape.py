"""The shapes of the real bases, without their weights."""

from transformers import Gemma2Config, GemmaConfig, PaliGemmaConfig, SiglipVisionConfig

VOCABULARY = 257_216


def paligemma_3b_config(*, image_size: int = 224) -> PaliGemmaConfig:
    """google/paligemma-3b-pt-224, or -448."""
    text = GemmaConfig(
        hidden_size=2048, intermediate_size=16384, num_hidden_layers=18, num_attention_heads=8, head_dim=256,
        num_key_value_heads=1, vocab_size=VOCABULARY,
    )  # fmt: skip
    return _with_siglip(text, image_size=image_size)


def paligemma2_3b_config(*, image_size: int = 224) -> PaliGemmaConfig:
    """google/paligemma2-3b-pt-224, or -448."""
    text = Gemma2Config(
        hidden_size=2304, intermediate_size=9216, num_hidden_layers=26, num_attention_heads=8, head_dim=256,
        num_key_value_heads=4, vocab_size=VOCABULARY,
    )  # fmt: skip
    return _with_siglip(text, image_size=image_size)


def _with_siglip(text: GemmaConfig | Gemma2Config, *, image_size: int) -> PaliGemmaConfig:
    vision = SiglipVisionConfig(
        hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16, patch_size=14,
        image_size=image_size, projection_dim=text.hidden_size, vision_use_head=False,
    )  # fmt: skip
    return PaliGemmaConfig(
        vision_config=vision.to_dict(), text_config=text.to_dict(), projection_dim=text.hidden_size,
        hidden_size=text.hidden_size, image_token_index=257_152,
    )  # fmt: skip
