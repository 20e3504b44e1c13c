"""The shapes of the real bases, without their weights."""

from transformers import Gemma2Config, GemmaConfig, PaliGemmaConfig, SiglipVisionConfig


def paligemma_3b_config(*, image_size: int = 224) -> PaliGemmaConfig:
    """google/paligemma-3b-pt-224, or -448."""
    return PaliGemmaConfig(
        vision_config=_siglip(image_size, projection_dim=2048).to_dict(),
        text_config=GemmaConfig(
            hidden_size=2048, intermediate_size=16384, num_hidden_layers=18, num_attention_heads=8, head_dim=256,
            num_key_value_heads=1, vocab_size=257216,
        ).to_dict(),
        projection_dim=2048, hidden_size=2048, image_token_index=257152,
    )  # fmt: skip


def paligemma2_3b_config(*, image_size: int = 224) -> PaliGemmaConfig:
    """google/paligemma2-3b-pt-224, or -448."""
    return PaliGemmaConfig(
        vision_config=_siglip(image_size, projection_dim=2304).to_dict(),
        text_config=Gemma2Config(
            hidden_size=2304, intermediate_size=9216, num_hidden_layers=26, num_attention_heads=8, head_dim=256,
            num_key_value_heads=4, vocab_size=257216,
        ).to_dict(),
        projection_dim=2304, hidden_size=2304, image_token_index=257152,
    )  # fmt: skip


def _siglip(image_size: int, *, projection_dim: int) -> SiglipVisionConfig:
    return SiglipVisionConfig(
        hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16, patch_size=14,
        image_size=image_size, projection_dim=projection_dim, vision_use_head=False,
    )  # fmt: skip
