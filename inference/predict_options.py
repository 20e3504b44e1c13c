"""The options of `predict`: what is predicted, with what, and where it is written."""

from dataclasses import dataclass, field
from typing import Literal

from product_vqa.errors import InputError


@dataclass
class PredictOptions:
    """The model, the rows to predict, and the output."""

    output: str = field(metadata={"help": "The submission to write, X.csv; X.parquet is written next to it."})
    dataset: str = field(
        default=None,  # type: ignore[assignment]  # `main` refuses that, but for images of one's own
        metadata={"help": "Dataset: a repo (user/name[@revision]) or a folder. Required without --images or --table."},
    )
    adapter: str | None = field(
        default=None,
        metadata={
            "help": "Adapter: a repo (user/name[@revision]) or a folder. Without one, --base_model alone answers."
        },
    )
    reader: Literal["model", "ocr"] = field(
        default="model",
        metadata={
            "help": "ocr: without a model, an OCR engine reads the text of each image, and rules choose the answer. "
            "The baseline that an adapter has to beat; needs the extra `ocr`."
        },
    )
    ground: Literal["none", "ocr"] | None = field(
        default=None,
        metadata={
            "help": "ocr: weigh the answers that OCR finds in the image, as far as the adapter's calibration.json "
            "trusts it (`inference.calibrate --ground ocr`); the texts are the dataset's, or read now, which takes "
            "seconds per image. Default: ocr if that file says that it is better and the dataset has the texts."
        },
    )
    base_model: str | None = field(
        default=None, metadata={"help": "Base model, if not the one that the adapter names: a repo or a folder."}
    )
    split: str = field(default="test", metadata={"help": "The split to predict."})
    batch_size: int | None = field(
        default=None,
        metadata={"help": "Rows per batch, in the order of the split; default: what fits on the GPU, or 32 on a CPU."},
    )
    dataloader_num_workers: int | None = field(
        default=None,
        metadata={
            "help": "Worker processes that decode images; default: up to 8 for a GPU, and 0 on a CPU, where they "
            "would compete with the model for cores. With --reader ocr: threads that read images; default: all cores."
        },
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = field(
        default="auto",
        metadata={
            "help": "auto: the dtype of the adapter's training if the device supports it natively; else bfloat16 "
            "where it is fast, float16 on other GPUs and float32 on other CPUs."
        },
    )
    load_in_4bit: bool | None = field(
        default=None,
        metadata={
            "help": "Keep the base model's language model in 4-bit NF4: less memory, but slower. Default: no; an "
            "adapter trained on NF4 is merged into the dequantized weights.",
            "nargs": "?",
            "const": True,
        },
    )
    constrain: Literal["on", "off"] = field(
        default="on", metadata={"help": "on: only a valid answer about the attribute can be generated; off: any text."}
    )
    allow_empty: bool = field(default=False, metadata={"help": "With --constrain on: allow an empty answer too."})
    num_beams: int = field(default=1, metadata={"help": "Number of beams; the other beams are saved as alternatives."})
    min_confidence: float = field(
        default=0.0,
        metadata={
            "help": "Leave predictions whose confidence or `shown` is below this (0 to 1) empty; X.parquet keeps them."
        },
    )

    push_to_hub: bool = field(
        default=False,
        metadata={
            "help": "With --shard: push the predictions to --hub_predictions_id. With --merge: merge those there."
        },
    )
    hub_predictions_id: str | None = field(
        default=None, metadata={"help": "Dataset repo for the predictions of all shards (user/name)."}
    )
    hub_private_repo: bool = field(
        default=True, metadata={"help": "Create that repo as private. If false, everyone can see it."}
    )

    def __post_init__(self) -> None:
        if self.ground == "ocr" and self.constrain == "off":
            raise InputError("`ground` ocr chooses among valid answers: leave `constrain` on")
        if self.push_to_hub and not self.hub_predictions_id:
            raise InputError("`push_to_hub` needs `hub_predictions_id` user/name")
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"`batch_size` must be at least 1, got {self.batch_size}")
        if not 1 <= self.num_beams <= 8:
            raise InputError(f"`num_beams` must be 1 to 8, got {self.num_beams}")
        if not 0 <= self.min_confidence <= 1:
            raise InputError(f"`min_confidence` must be 0 to 1, got {self.min_confidence}")
        if self.dataloader_num_workers is not None and self.dataloader_num_workers < 0:
            raise InputError(f"`dataloader_num_workers` must not be negative, got {self.dataloader_num_workers}")
        if not self.output.endswith(".csv"):
            raise InputError(f"`output` {self.output} must end in .csv: the challenge accepts no other file")
