"""Answer every row of a split: adapter + dataset -> submission.csv, and submission.parquet with what was said.

    accelerate launch -m inference.predict --adapter user/adapter --dataset user/dataset --split test \\
        --output submission.csv

Any number of processes share the work; started again after a kill, only the rest is computed.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from product_vqa.command import InputError, parse_options, run, writable_folder

if TYPE_CHECKING:
    import pandas as pd

    from product_vqa.reader import AttributeReader


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
    batch_size: int = field(default=32, metadata={"help": "Rows answered together, in the split's order."})
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = field(
        default="auto", metadata={"help": "auto: bfloat16 where the GPU has it, else float16; float32 on a CPU."}
    )
    load_in_4bit: bool = field(default=False, metadata={"help": "Quantize the language model to 4-bit NF4."})

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"--batch_size must be at least 1, got {self.batch_size}")
        if not self.output.endswith(".csv"):
            raise InputError(f"--output {self.output} must end in .csv: the challenge takes no other file")


def main() -> None:
    (options,) = parse_options(PredictOptions, description="Answer every row of a split.")

    from tqdm import tqdm

    from inference.parts import Parts
    from product_vqa.dataset import load_split
    from product_vqa.hub import locate
    from product_vqa.processes import join_processes
    from product_vqa.reader import AttributeReader

    output = Path(options.output)
    writable_folder(output.parent, flag="--output")
    state = join_processes()
    location = locate(options.dataset, flag="--dataset", repo_type="dataset")
    with state.main_process_first():
        dataset = load_split(location, options.split, flag="--dataset")
        reader = AttributeReader.from_pretrained(
            options.adapter,
            base_model=options.base_model,
            dtype=options.dtype,
            load_in_4bit=options.load_in_4bit,
            device=state.device,
        )
        parts = Parts(output.with_suffix(".parts"))
        parts.open(
            {
                "dataset": str(location),
                "split": options.split,
                "rows": len(dataset),
                "batch_size": options.batch_size,
                "load_in_4bit": options.load_in_4bit,
                **reader.provenance,
            }
        )

    starts = range(0, len(dataset), options.batch_size)
    mine = [batch for batch in range(state.process_index, len(starts), state.num_processes) if not parts.has(batch)]
    for batch in tqdm(mine, desc="batches", disable=not state.is_main_process):
        rows = dataset.select(range(starts[batch], min(starts[batch] + options.batch_size, len(dataset))))
        parts.save(batch, answer_rows(reader, list(rows)))

    state.wait_for_everyone()
    if state.is_main_process:
        import pandas as pd

        table = pd.concat(parts.load(len(starts)), ignore_index=True)
        write_submission(table, output)
        parts.remove()
        print(summary(table, output))
    state.wait_for_everyone()
    state.destroy_process_group()


def answer_rows(reader: "AttributeReader", rows: list[dict[str, Any]]) -> "pd.DataFrame":
    """index, image_link, entity_name, prediction, answer, confidence of each row, in order.

    A row without a picture goes out empty, its answer and confidence null: there is nothing to read.
    """
    import pandas as pd

    with_image = [row for row in rows if row["image"] is not None]
    answers = iter(
        reader.read_batch([row["image"] for row in with_image], [row["entity_name"] for row in with_image])
        if with_image
        else ()
    )
    records = []
    for row in rows:
        answer = next(answers) if row["image"] is not None else None
        records.append(
            {
                "index": row["index"],
                "image_link": row["image_link"],
                "entity_name": row["entity_name"],
                "prediction": answer.prediction if answer else "",
                "answer": answer.text if answer else None,
                "confidence": answer.confidence if answer else None,
            }
        )
    types = {"index": "int64", "answer": "string", "confidence": "float64"}
    return pd.DataFrame.from_records(records).astype(types)


def write_submission(table: "pd.DataFrame", output: Path) -> None:
    """X.parquet, then X.csv: each written beside and renamed, so that neither is ever a half."""
    for file, write in (
        (output.with_suffix(".parquet"), lambda path: table.to_parquet(path, index=False)),
        (output, lambda path: table[["index", "prediction"]].to_csv(path, index=False)),
    ):
        temporary = file.with_name(f".{file.name}")
        write(temporary)
        os.replace(temporary, file)


def summary(table: "pd.DataFrame", output: Path) -> str:
    without_picture = int(table["answer"].isna().sum())
    answered = int((table["prediction"] != "").sum())
    invalid = len(table) - answered - without_picture
    return (
        f"{output}: {len(table)} rows, {answered} answered; empty: {invalid} whose answer is not valid, "
        f"{without_picture} without a picture"
    )


if __name__ == "__main__":
    run(main)
