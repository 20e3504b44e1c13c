"""Adapters that have learned something, trained within seconds."""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from huggingface_hub import HfApi
from peft import LoraConfig

from product_vqa.hub import Location
from product_vqa.modeling.loading import LANGUAGE_MODEL_LINEARS, load_base_model, load_processor
from product_vqa.task.features import FEATURES
from product_vqa.task.schema import CHALLENGE
from tests.product_vqa.modeling.challenge import TrainingCollator
from tests.tiny import make_rows
from training.options import TrainingOptions
from training.trainer import PaliGemmaTrainer


def train_adapter(folder: Path, tiny_base: Path, *, load_in_4bit: bool = False, steps: int = 60) -> Any:
    """Train one answer per question. Returns the model in memory; its adapter is in `folder` / adapter."""
    location = Location(str(tiny_base))
    processor = load_processor(location)
    trainer = PaliGemmaTrainer(
        model=load_base_model(location, dtype=torch.float32, load_in_4bit=load_in_4bit),
        args=TrainingOptions(
            output_dir=str(folder / "run"),
            max_steps=steps,
            per_device_train_batch_size=4,
            learning_rate=1e-2,
            save_strategy="no",
            disable_tqdm=True,
            bf16=False,
        ),
        train_dataset=Dataset.from_list(make_rows(16), features=FEATURES),
        processing_class=processor,
        data_collator=TrainingCollator(processor),
        schema=CHALLENGE,
        peft_config=LoraConfig(r=16, target_modules=LANGUAGE_MODEL_LINEARS),
    )
    trainer.train()
    model: Any = trainer.model
    model.eval()
    config = model.peft_config["default"]
    config.base_model_name_or_path, config.revision = "local/tiny-base", HfApi().model_info("local/tiny-base").sha
    model.save_pretrained(folder / "adapter", save_embedding_layers=False)
    return model
