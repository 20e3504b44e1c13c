"""Adapters with random weights, for the tests of this folder."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model

from product_vqa.hub import Location
from product_vqa.modeling.loading import LANGUAGE_MODEL_LINEARS, load_base_model


def save_adapter(folder: Path, base_model: Path, *, trained_on: Path | None = None) -> Path:
    """Save an adapter that names `base_model`, with weights for `trained_on` (default: the same)."""
    model = get_peft_model(
        load_base_model(Location(str(trained_on or base_model)), dtype=torch.float32),
        LoraConfig(r=4, target_modules=LANGUAGE_MODEL_LINEARS, init_lora_weights=False),
    )
    model.peft_config["default"].base_model_name_or_path = str(base_model)
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder
