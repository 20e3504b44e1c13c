"""What leaves a run: the adapter's folder, and its repo on the Hub. Safetensors and text only."""

import csv
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, ModelCard
from peft import PeftModel
from torch.distributed.tensor import DTensor
from transformers import PaliGemmaProcessor

from product_vqa.hub import Location, explained
from product_vqa.prompt import save_prompt


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


def save_adapter(
    output_dir: Path,
    *,
    model: PeftModel,
    weights: dict[str, torch.Tensor],
    processor: PaliGemmaProcessor,
    base: Location,
    card: ModelCard,
    log_history: list[dict[str, Any]],
) -> list[str]:
    """Write adapter, processor, wording, log and card into `output_dir`; returns the names of the files.

    `weights` are what `whole_adapter` gathered.
    The adapter names `base` by id and commit: peft would write the folder that it was loaded from, and no revision.
    """
    temporary = output_dir / ".publication"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    adapter_config = model.peft_config["default"]
    adapter_config.base_model_name_or_path, adapter_config.revision = base.name, base.revision
    # No embeddings are adapted; to find that out by itself, peft would ask the Hub for the base's configuration.
    model.save_pretrained(temporary, state_dict=weights, save_embedding_layers=False)
    processor.save_pretrained(temporary)
    save_prompt(temporary)
    _write_log(temporary / "log.csv", log_history)
    (temporary / "README.md").write_text(str(card))
    names = sorted(file.name for file in temporary.iterdir())
    for name in sorted(names, key=lambda name: name == _LAST):
        os.replace(temporary / name, output_dir / name)
    temporary.rmdir()
    return names


def open_repo(repo_id: str, *, private: bool | None) -> None:
    """Make the adapter's repo if it is not there. Before the training, so that nothing is trained in vain.

    Raises InputError for a token that is missing, bad or may not write there, and where no Hub answers.
    """
    with explained(repo_id, flag="--hub_model_id"):
        api = HfApi()
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id  # with its namespace
        api.auth_check(repo_id, write=True)


def push_adapter(output_dir: Path, *, files: list[str], repo_id: str, revision: str | None) -> str:
    """Upload `files` of `output_dir` in one commit; returns its URL. Raises InputError if the Hub refuses it."""
    with explained(repo_id, flag="--hub_model_id"):
        return HfApi().upload_folder(
            repo_id=repo_id,
            folder_path=output_dir,
            allow_patterns=files,
            commit_message="Adapter, processor, card and log of a run",
            revision=revision,
        )


def _write_log(file: Path, log_history: list[dict[str, Any]]) -> None:
    columns = ["step", "epoch"]
    for entry in log_history:
        columns += [key for key in entry if key not in columns]
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=columns)
        writer.writeheader()
        writer.writerows(log_history)
