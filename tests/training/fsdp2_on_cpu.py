"""training.sft under FSDP2 on a machine without a GPU, where accelerate would silently run DDP.

Only what accelerate believes about the machine is replaced; after the training every parameter must be sharded.
"""

from typing import Any

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor

from product_vqa import distributed
from product_vqa.cli import run
from training import options, sft
from training.trainer import PaliGemmaTrainer


def replace(owner: Any, name: str, value: Any) -> Any:
    """Replace an attribute that must exist: a new release that renames it must not make this test test nothing."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    return original


def main() -> int:
    replace(PartialState, "_prepare_backend", lambda *_: ("gloo", DistributedType.MULTI_GPU))
    replace(PartialState, "set_device", lambda self: setattr(self, "device", torch.device("cpu")))
    for module in (distributed, options):
        replace(module, "runs_on_cpu", lambda: False)
    replace(options, "resolve_dtype", lambda *_, **__: torch.float32)  # bfloat16 is checked against the GPU

    def train_and_check(self: PaliGemmaTrainer, *args: Any, **kwargs: Any) -> Any:
        result = train(self, *args, **kwargs)
        parameters = list(self.model.parameters())
        assert all(isinstance(parameter, DTensor) for parameter in parameters)
        local = sum(parameter.to_local().numel() for parameter in parameters)
        share = local / sum(parameter.numel() for parameter in parameters)
        print(f"sharded: this process holds {share:.2f} of the parameters")
        return result

    train = replace(PaliGemmaTrainer, "train", train_and_check)
    return sft.main()


if __name__ == "__main__":
    run(main)
