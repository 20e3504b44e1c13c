"""What leaves a run: the adapter's folder. Safetensors and text only."""

import csv
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.distributed.tensor import DTensor

from product_vqa.cards import CARD_FILE, mark_card, merge_cards
from product_vqa.hub import Location
from product_vqa.task.prompt import save_task
from training.checkpoints import save_config
from training.evaluation import scores_at
from training.loading import Sources
from training.model_card import make_card, run_facts
from training.trainer import PaliGemmaTrainer


def whole_adapter(model: PeftModel) -> dict[str, torch.Tensor]:
    """The adapter's weights, on the CPU, wherever their parts lie (FSDP2, ZeRO-3). Every process must call this."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if any(hasattr(parameter, "ds_id") for parameter in trained.values()):
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(trained.values())):
            return {name: parameter.detach().cpu().clone() for name, parameter in trained.items()}
    return {
        name: (parameter.full_tensor() if isinstance(parameter, DTensor) else parameter).detach().cpu()
        for name, parameter in trained.items()
    }


# The last to be put in place: a folder that has it is whole.
_LAST = "adapter_config.json"


@dataclass(frozen=True)
class Publication:
    """A run as it is published, at its end or on the way."""

    trainer: PaliGemmaTrainer
    sources: Sources
    config: dict[str, Any]  # see `training.configuration`
    train_split: str
    eval_split: str

    def save(self, folder: Path, *, scores: dict[str, float] | None = None, is_chosen_by: bool = True) -> list[str]:
        """Write adapter, processor, wording, configuration, log and card into `folder`; returns the files' names.

        `scores` are what `trainer.evaluate()` returned; without them, those of the very last step if there are any.
        `is_chosen_by` says whether their rows choose the checkpoint, where one is chosen.
        Every process must call this; the first one writes. The adapter names its base by id and commit.
        """
        model = self.trainer.model
        weights = whole_adapter(model)
        if not self.trainer.is_world_process_zero():
            return []
        temporary = folder / ".publication"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _save_weights(model, weights, temporary, base=self.sources.named_base)
        self.trainer.processing_class.save_pretrained(temporary)
        save_task(temporary, dtype=self.config["dtype"], load_in_4bit=self.config["load_in_4bit"])
        save_config(temporary, self.config)
        _write_log(temporary / "log.csv", self.trainer.state.log_history)
        state = self.trainer.state
        facts = run_facts(
            self.trainer,
            self.sources,
            scores=scores or scores_at(state.global_step, state),
            is_chosen_by=is_chosen_by and bool(self.trainer.args.load_best_model_at_end),
        )
        card = make_card(facts, self.config, train_split=self.train_split, eval_split=self.eval_split)
        text, earlier = mark_card(str(card)), folder / CARD_FILE
        if earlier.is_file():
            text = merge_cards(text, earlier.read_bytes().decode("utf-8", "replace"))
        (temporary / CARD_FILE).write_bytes(text.encode())
        names = sorted(file.name for file in temporary.iterdir())
        for name in sorted(names, key=lambda name: name == _LAST):
            os.replace(temporary / name, folder / name)
        temporary.rmdir()
        return names


def _save_weights(model: PeftModel, weights: dict[str, torch.Tensor], folder: Path, *, base: Location) -> None:
    """peft would name the folder that the base was loaded from, and no revision."""
    config = model.peft_config["default"]
    before = config.base_model_name_or_path, config.revision
    config.base_model_name_or_path, config.revision = base.name, base.revision
    try:
        # No embeddings are adapted; to find that out by itself, peft would ask the Hub for the base's configuration.
        model.save_pretrained(folder, state_dict=weights, save_embedding_layers=False)
    finally:  # the next checkpoint is for this machine
        config.base_model_name_or_path, config.revision = before


def _write_log(file: Path, log_history: list[dict[str, Any]]) -> None:
    columns = ["step", "epoch"]
    for entry in log_history:
        columns += [key for key in entry if key not in columns]
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=columns)
        writer.writeheader()
        writer.writerows(log_history)
