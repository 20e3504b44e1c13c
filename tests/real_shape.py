"""The shape of the real base, without its weights."""

from transformers import GemmaConfig, PaliGemmaConfig, SiglipVisionConfig


def paligemma_3b_config(*, image_size: int = 224) -> PaliGemmaConfig:
    """google/paligemma-3b-pt-224, or -448."""
    return PaliGemmaConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16, patch_size=14,
            image_size=image_size, projection_dim=2048, vision_use_head=False,
        ).to_dict(),
        text_config=GemmaConfig(
            hidden_size=2048, intermediate_size=16384, num_hidden_layers=18, num_attention_heads=8, head_dim=256,
            num_key_value_heads=1, vocab_size=257216,
        ).to_dict(),
        projection_dim=2048, hidden_size=2048, image_token_index=257152,
    )  # fmt: skip
