"""How many predictions change with the dtype and with the batch size, because of rounding.

    python -m benchmarks.dtype_sensitivity --adapter runs/quickstart/adapter --base_model quickstart/base \\
        --dataset runs/quickstart/dataset --split train --json

Each combination is compared with float32 in batches of 32.
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

COMBINATIONS = (("float32", 32), ("float32", 7), ("float32", 128), ("bfloat16", 32), ("bfloat16", 7))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", required=True, help="repo (user/name) or folder of the adapter")
    parser.add_argument("--base_model", help="base model; default: the one that the adapter names")
    parser.add_argument("--dataset", required=True, help="repo (user/name) or folder of the dataset")
    parser.add_argument("--split", default="test")
    parser.add_argument("--json", action="store_true", help="print the results as JSON lines")
    options = parser.parse_args()

    with argument("dataset"):
        dataset = load_split(locate(options.dataset, repo_type="dataset"), options.split)
    reference = None
    for dtype, batch_size in COMBINATIONS:
        reader = AttributeReader.from_pretrained(options.adapter, base_model=options.base_model, dtype=dtype)
        batches = RowBatches(dataset, processor=reader.processor, batch_size=batch_size, schema=reader.schema)
        loaded = load_batches(batches, range(len(batches)), num_workers=0)
        tables = [to_table(batch, reader.answer(batch.inputs, batch.entity_names)) for batch in loaded]
        predictions = pd.concat([table.to_pandas() for table in tables], ignore_index=True)
        if reference is None:
            reference = predictions
        result = {"dtype": dtype, "batch_size": batch_size} | compare(predictions, reference)
        text = "  ".join(f"{name} {value}" for name, value in result.items())
        print(json.dumps(result) if options.json else text, flush=True)


def compare(predictions: pd.DataFrame, reference: pd.DataFrame) -> dict[str, Any]:
    """How many predictions differ, their mean confidence, and by how much the confidences of the others changed."""
    differs = predictions["prediction"] != reference["prediction"]
    changes = (predictions["confidence"] - reference["confidence"]).abs()[~differs]
    confidence = round(float(reference["confidence"][differs].mean()), 3) if differs.any() else None
    return {
        "rows": len(predictions),
        "share_differs": round(float(differs.mean()), 5),
        "their_confidence": confidence,
        "confidence_moved_by": float(f"{changes.mean():.2g}"),
        "at_most": float(f"{changes.max():.2g}"),
    }


if __name__ == "__main__":
    run(main)
