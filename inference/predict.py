"""Answer every row of a split: adapter + dataset -> submission.csv, and submission.parquet with what was said.

    accelerate launch -m inference.predict --adapter user/adapter --dataset user/dataset --split test \\
        --output submission.csv

Any number of processes share the work; started again after a kill, only the rest is computed.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from product_vqa.cli import parse_options, run
from product_vqa.errors import InputError, argument
from product_vqa.paths import writable_folder

logger = logging.getLogger(__name__)


@dataclass
class PredictOptions:
    """What to answer with, what to answer, and where to write it."""

    dataset: str = field(metadata={"help": "Dataset: a repo (user/name[@revision]) or a folder."})
    output: str = field(metadata={"help": "The submission to write, X.csv; X.parquet is written beside it."})
    adapter: str | None = field(
        default=None,
        metadata={"help": "Adapter: a repo (user/name[@revision]) or a folder; without, --base_model answers."},
    )
    base_model: str | None = field(
        default=None,
        metadata={"help": "The base, where it is not the one that the adapter names: a repo or a folder."},
    )
    split: str = field(default="test", metadata={"help": "The split to answer."})
    batch_size: int | None = field(
        default=None,
        metadata={"help": "Rows answered together, in the split's order; default: what fits a GPU, and 32 on a CPU."},
    )
    dataloader_num_workers: int | None = field(
        default=None,
        metadata={"help": "Processes that decode pictures ahead; default: up to 8 for a GPU, none on a CPU."},
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = field(
        default="auto",
        metadata={
            "help": "auto: that of the adapter's training where the device has it natively, else bfloat16 where it is "
            "fast, float16 on a GPU and float32 on a CPU."
        },
    )
    load_in_4bit: bool | None = field(
        default=None,
        metadata={
            "help": "Whether the base model's language model is kept in 4-bit NF4, in less memory and more time; "
            "default: no; an adapter that was trained on NF4 is merged into the dequantized weights.",
            "nargs": "?",
            "const": True,
        },
    )
    constrain: Literal["on", "off"] = field(
        default="on",
        metadata={"help": "on: only `number unit` in a unit of the asked attribute can be said; off: anything."},
    )
    allow_empty: bool = field(default=False, metadata={"help": "With constrain on: nothing can be said too."})
    num_beams: int = field(default=1, metadata={"help": "Hypotheses a row; all but the best are its runners-up."})
    min_confidence: float = field(
        default=0.0, metadata={"help": "Answers below this confidence (0 to 1) go out empty; X.parquet keeps them."}
    )

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"--batch_size must be at least 1, got {self.batch_size}")
        if not 1 <= self.num_beams <= 8:
            raise InputError(f"--num_beams must be 1 to 8, got {self.num_beams}")
        if not 0 <= self.min_confidence <= 1:
            raise InputError(f"--min_confidence must be 0 to 1, got {self.min_confidence}")
        if self.dataloader_num_workers is not None and self.dataloader_num_workers < 0:
            raise InputError(f"--dataloader_num_workers must not be negative, got {self.dataloader_num_workers}")
        if not self.output.endswith(".csv"):
            raise InputError(f"--output {self.output} must end in .csv: the challenge takes no other file")


def main() -> None:
    (options,) = parse_options(PredictOptions, description="Answer every row of a split.")

    from tqdm import tqdm

    from inference.dataloader import RowBatches, default_workers, load_batches
    from inference.predictions import answer_rows, count_not_finite, summarize, write_answers
    from inference.shards import Parts
    from product_vqa.dataset import load_split
    from product_vqa.distributed import init_distributed
    from product_vqa.hub import locate
    from product_vqa.modeling.attribute_reader import AttributeReader, not_finite_remedy
    from product_vqa.provenance import BASE_MODEL_FILES, DATASET_FILES, content_sha256
    from product_vqa.workers import worker_errors

    output = Path(options.output)
    with argument("output"):
        writable_folder(output.parent)
    state = init_distributed()
    with argument("dataset"):
        location = locate(options.dataset, repo_type="dataset")
    with state.main_process_first():
        with argument("dataset"):
            dataset = load_split(location, options.split)
        reader = AttributeReader.from_pretrained(
            options.adapter,
            base_model=options.base_model,
            dtype=options.dtype,
            load_in_4bit=options.load_in_4bit,
            device=state.device,
            constrain=options.constrain == "on",
            allow_empty=options.allow_empty,
            num_beams=options.num_beams,
        )
        assert reader.base_model is not None
        parts = Parts(output.with_suffix(".parts"))
        batch_size = options.batch_size or parts.earlier_run().get("batch_size") or reader.find_batch_size()
        provenance = {
            "dataset": str(location),
            "dataset_sha256": content_sha256(location, DATASET_FILES),
            "split": options.split,
            "rows": len(dataset),
            "batch_size": batch_size,
            "constrain": options.constrain,
            "allow_empty": options.allow_empty,
            "num_beams": options.num_beams,
            "min_confidence": options.min_confidence,
            "base_sha256": content_sha256(reader.base_model, BASE_MODEL_FILES),
            **reader.provenance,
        }
        parts.open(provenance)

    batches = RowBatches(dataset, processor=reader.processor, batch_size=batch_size)
    indexes = batches.indexes()
    if len({index for batch in indexes for index in batch}) != len(dataset):
        raise InputError(f"--dataset {location}: split {options.split} holds an index twice; a submission may not")
    mine = range(state.process_index, len(batches), state.num_processes)
    missing = [number for number in mine if not parts.has(number, indexes[number])]
    num_workers = options.dataloader_num_workers
    if num_workers is None:
        num_workers = default_workers(state.device, num_processes=state.num_processes)
    with worker_errors():
        loaded = load_batches(batches, missing, num_workers=num_workers)
        for batch in tqdm(loaded, total=len(missing), desc="batches", disable=not state.is_main_process):
            parts.save(batch.number, answer_rows(reader, batch, min_confidence=options.min_confidence))

    state.wait_for_everyone()
    if state.is_main_process:
        table = parts.load(indexes)
        write_answers(table, output, run=provenance)
        parts.remove()
        print(f"{output}: {summarize(table)}")
        if num_not_finite := count_not_finite(table):
            logger.warning(
                "%d of these rows are empty since the model's logits were not finite. %s",
                num_not_finite, not_finite_remedy(reader.model.dtype),
            )  # fmt: skip
    state.wait_for_everyone()
    state.destroy_process_group()


if __name__ == "__main__":
    run(main)
