"""The options of a pretraining run."""

from dataclasses import dataclass, field

PATCH_SIZE = 8  # px


@dataclass
class PretrainOptions:
    """Duration, sizes, seed and output folder of a pretraining run."""

    output_dir: str = field(
        default="runs/small-paligemma", metadata={"help": "Folder of the base model, the curve and the checkpoint."}
    )
    base: str = field(
        default="",
        metadata={"help": "Base model to continue with, a repo or a folder. Default: one with random weights."},
    )
    minutes: float = field(
        default=230.0, metadata={"help": "Minutes of training, including those before an interruption."}
    )
    seed: int = field(default=0, metadata={"help": "Random seed of the weights and the images."})
    bf16: bool = field(
        default=False,
        metadata={"help": "Compute in bfloat16 (autocast); 1.4 times as fast on a CPU with bfloat16 instructions."},
    )
    batch_size: int = field(default=12, metadata={"help": "Images per step and process."})
    hidden_size: int = field(default=128, metadata={"help": "Hidden size of both towers, a multiple of 64."})
    layers: int = field(default=4, metadata={"help": "Number of layers of each tower."})
    image_size: int = field(
        default=112, metadata={"help": f"Width and height of the images in px, a multiple of {PATCH_SIZE}."}
    )
    eval_rows: int = field(default=64, metadata={"help": "Unseen images per task in each evaluation."})

    def __post_init__(self) -> None:
        if self.minutes <= 0:
            raise ValueError(f"`minutes` must be positive, got {self.minutes}")
        multiples = {"hidden_size": 64, "image_size": PATCH_SIZE, "batch_size": 1, "layers": 1}
        for name, multiple in multiples.items():
            value = getattr(self, name)
            if value < 1 or value % multiple:
                raise ValueError(f"`{name}` must be a positive multiple of {multiple}, got {value}")
