"""How many answers change with the number format and with the batch size: what rounding does.

    python -m benchmarks.agreement --adapter runs/quickstart/adapter --base_model quickstart/base \\
        --dataset runs/quickstart/dataset --split train --json

Each way is compared with float32 in batches of 32.
"""

import argparse
import json
from typing import Any

import pandas as pd

from inference import AttributeReader
from inference.dataloader import RowBatches, load_batches
from inference.predictions import to_table
from product_vqa.cli import run
from product_vqa.dataset import load_split
from product_vqa.errors import argument
from product_vqa.hub import locate

WAYS = (("float32", 32), ("float32", 7), ("float32", 128), ("bfloat16", 32), ("bfloat16", 7))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--base_model")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--json", action="store_true", help="print the results as JSON, one a line")
    options = parser.parse_args()

    with argument("dataset"), argument("dataset"):
        dataset = load_split(locate(options.dataset, repo_type="dataset"), options.split)
    reference = None
    for dtype, batch_size in WAYS:
        reader = AttributeReader.from_pretrained(options.adapter, base_model=options.base_model, dtype=dtype)
        batches = RowBatches(dataset, processor=reader.processor, batch_size=batch_size)
        loaded = load_batches(batches, range(len(batches)), num_workers=0)
        tables = [to_table(batch, reader.answer(batch.inputs, batch.entity_names)) for batch in loaded]
        answers = pd.concat([table.to_pandas() for table in tables], ignore_index=True)
        if reference is None:
            reference = answers
        result = {"dtype": dtype, "batch_size": batch_size} | compare(answers, reference)
        print(json.dumps(result) if options.json else "  ".join(f"{k} {v}" for k, v in result.items()), flush=True)


def compare(answers: pd.DataFrame, reference: pd.DataFrame) -> dict[str, Any]:
    """Answers that are not the same, how likely these were, and how far all confidences moved."""
    differs = answers["prediction"] != reference["prediction"]
    moved = (answers["confidence"] - reference["confidence"]).abs()[~differs]
    return {
        "rows": len(answers),
        "share_differs": round(float(differs.mean()), 5),
        "their_confidence": round(float(reference["confidence"][differs].mean()), 3) if differs.any() else None,
        "confidence_moved_by": float(f"{moved.mean():.2g}"),
        "at_most": float(f"{moved.max():.2g}"),
    }


if __name__ == "__main__":
    run(main)
