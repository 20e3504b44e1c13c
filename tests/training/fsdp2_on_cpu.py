"""training.sft under FSDP2 on a machine without a GPU, for which accelerate would silently run DDP.

Only what accelerate believes of the machine is another; after the training every parameter must be in parts.
"""

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor

from product_vqa import distributed
from product_vqa.cli import run
from training import options, sft, trainer


def main() -> int:
    PartialState._prepare_backend = lambda *_: ("gloo", DistributedType.MULTI_GPU)
    PartialState.set_device = lambda self: setattr(self, "device", torch.device("cpu"))
    distributed.runs_on_cpu = options.runs_on_cpu = lambda: False
    options.resolve_dtype = lambda *_, **__: torch.float32  # bfloat16 is checked against the GPU
    train = trainer.PaliGemmaTrainer.train

    def train_and_look(self: trainer.PaliGemmaTrainer, *args: object, **kwargs: object) -> object:
        result = train(self, *args, **kwargs)
        parameters = list(self.model.parameters())
        assert all(isinstance(parameter, DTensor) for parameter in parameters)
        here = sum(parameter.to_local().numel() for parameter in parameters)
        print(f"sharded: {here / sum(parameter.numel() for parameter in parameters):.2f} of the parameters are here")
        return result

    trainer.PaliGemmaTrainer.train = train_and_look
    return sft.main()


if __name__ == "__main__":
    run(main)
