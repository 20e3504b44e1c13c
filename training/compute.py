"""How much arithmetic a training run is, and so how long it takes at the least: counted on the base's shape."""

from typing import TYPE_CHECKING

import torch

from training.memory import ANSWER_TOKENS, build_empty, fill_with_fakes, row_tokens

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PaliGemmaConfig

# Dense 16-bit matrix products with 32-bit sums, TFLOP/s, from the makers' data sheets.
PEAK_TFLOPS = {"T4": 65, "L4": 121, "RTX 4090": 165, "A100": 312, "H100": 989}
REACHED = 0.4  # of the peak: what a well-fed GPU reaches in practice


def flop_per_row(config: "PaliGemmaConfig", lora: "LoraConfig", *, gradient_checkpointing: bool = False) -> int:
    """Floating-point operations (a multiply-add is two) of one row's forward and backward pass.

    SigLIP goes forward only, the language model forward and back to its adapter, lm_head at the answer's tokens alone.
    """
    from torch._subclasses import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    size, width = config.vision_config.image_size, config.get_text_config().hidden_size
    model, adapted = build_empty(config, lora, dtype=torch.bfloat16)
    adapted.to(torch.bfloat16).train()  # the adapter as well: nothing here casts between two
    with FakeTensorMode():
        fill_with_fakes(model)
        pixels = torch.empty(1, 3, size, size, dtype=torch.bfloat16)
        embedded = torch.empty(1, row_tokens(config), width, dtype=torch.bfloat16)
        with FlopCounterMode(display=False) as seen, torch.no_grad():
            model.get_image_features(pixels)
        with FlopCounterMode(display=False) as forward:
            hidden = model.model.language_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
            logits = model.lm_head(hidden[:, :ANSWER_TOKENS])
        with FlopCounterMode(display=False) as backward:
            logits.sum().backward()
    counted = seen.get_total_flops() + forward.get_total_flops() + backward.get_total_flops()
    return counted + (forward.get_total_flops() if gradient_checkpointing else 0)


def hours(flop: float, *, tflops: float) -> float:
    """At the share of the peak that is reached in practice."""
    return flop / (REACHED * tflops * 1e12) / 3600
