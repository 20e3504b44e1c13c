"""A checkpoint as the trainer saves it, of a tiny adapter, and the same as it is pushed: without any training."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from training.checkpoints import save_manifest
from training.portable_checkpoint import export_checkpoint, link_checkpoint

SHAPES = {"model.q.lora_A.weight": (2, 3), "model.q.lora_B.weight": (4, 2)}
RUN: dict[str, Any] = {
    "config": {"samples_per_step": 4, "dataset_name": "d"}, "processes": 1, "sharding": "no sharding",
}  # fmt: skip


def write_checkpoint(
    output_dir: Path, step: int, *, best_step: int | None = None, run: dict[str, Any] = RUN, **log: Any
) -> Path:
    """`checkpoint-STEP` in `output_dir`, after one step of AdamW. `log` is added to the entry of the last step."""
    folder = output_dir / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    torch.manual_seed(step)
    adapter = {name: torch.nn.Parameter(torch.randn(shape)) for name, shape in SHAPES.items()}
    optimizer = torch.optim.AdamW(adapter.values(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda number: 1 / (number + 3))
    sum(parameter.square().sum() for parameter in adapter.values()).backward()
    optimizer.step()
    scheduler.step()
    save_file({name: parameter.detach() for name, parameter in adapter.items()}, folder / "adapter_model.safetensors")
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    torch.save(scheduler.state_dict(), folder / "scheduler.pt")
    torch.save(random_state(), folder / "rng_state.pth")
    state = {
        "global_step": step, "epoch": step / 10, "best_global_step": best_step, "best_metric": best_step and 0.5,
        "train_batch_size": 4,
        "best_model_checkpoint": best_step and f"/home/someone/runs/checkpoint-{best_step}",
        "log_history": [{"step": step, "loss": 1 / 3, "grad_norm": float("nan"), "minutes": 0.1, **log}],
        "stateful_callbacks": {"TrainerControl": {"args": {"should_evaluate": False}, "attributes": {}}},
    }  # fmt: skip
    (folder / "trainer_state.json").write_text(json.dumps(state, sort_keys=True))
    save_manifest(folder, run=run)
    return folder


def random_state() -> dict[str, Any]:
    return {"python": random.getstate(), "numpy": np.random.get_state(), "cpu": torch.random.get_rng_state()}


def export(checkpoint: Path, folder: Path, *, best: Path | None = None, run: dict[str, Any] = RUN) -> list[str]:
    """What is pushed of a checkpoint, in `folder`; returns the names of the files."""
    linked = folder.with_name(f"{folder.name}-linked")
    link_checkpoint(checkpoint, linked, best=best)
    return export_checkpoint(linked, folder, run=run)
