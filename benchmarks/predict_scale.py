"""All rows of test.csv through inference.predict and inference.check: time, memory, and the number of predictions.

python -m benchmarks.predict_scale --test_csv test.csv.gz --json

The images are generated from their URLs, and the model is a PaliGemma of 28 px with random weights.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets import Dataset

from benchmarks.image_server import make_image
from benchmarks.timing import time_command
from dataset_builder.csv_reader import read_tables
from dataset_builder.options import TableOptions
from product_vqa.tables.rows import Row
from product_vqa.task.features import FEATURES
from quickstart.pretraining.small_paligemma import save_base


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--test_csv", required=True)
    parser.add_argument("--rows", type=int, action="append", help="number of first rows (default: all); repeatable")
    parser.add_argument("--json", action="store_true", help="print the results as JSON lines")
    options = parser.parse_args()

    _, table = read_tables(TableOptions(test_csv=options.test_csv))
    assert table is not None
    for num_rows in options.rows or [len(table.rows)]:
        with tempfile.TemporaryDirectory(prefix="predict-") as work:
            result = measure(table.rows[:num_rows], Path(work))
        text = "\n".join(f"{name:<12}{value}" for name, value in result.items())
        print(json.dumps(result) if options.json else text, flush=True)


def measure(rows: tuple[Row, ...], work: Path) -> dict[str, Any]:
    save_base(work / "base", image_size=28, patch_size=14)
    (work / "data").mkdir()
    dataset = Dataset.from_generator(
        make_samples, gen_kwargs={"rows": rows}, features=FEATURES, cache_dir=str(work / "cache")
    )
    dataset.to_parquet(work / "data" / "test-00000-of-00001.parquet", batch_size=100)
    write_csv(work / "test.csv", rows)
    predict = time_command(
        [sys.executable, "-m", "inference.predict", "--base_model", "base", "--dataset", work,
         "--output", "submission.csv", "--batch_size", 128],
        cwd=work, environment={"HF_HOME": str(work / "hf")},
    )  # fmt: skip
    check = time_command(
        [sys.executable, "-m", "inference.check", "--submission", "submission.csv", "--test_csv", "test.csv"], cwd=work
    )
    with (work / "submission.csv").open() as lines:
        num_predictions = sum(not line.endswith(",\n") for line in lines) - 1  # without the header
    return {
        "rows": len(rows),
        "answered": num_predictions,
        "rows_per_s": round(len(rows) / predict.seconds, 1),
        "predict": asdict(predict),
        "check": asdict(check),
    }


def make_samples(rows: tuple[Row, ...]) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield {
            "index": row.index,
            "image": {"bytes": make_image(row.image_link, size=32), "path": None},
            "image_link": row.image_link,
            "group_id": row.group_id,
            "entity_name": row.entity_name,
            "entity_value": "",
            "entity_value_raw": "",
        }


def write_csv(file: Path, rows: tuple[Row, ...]) -> None:
    lines = [f"{row.index},{row.image_link},{row.group_id},{row.entity_name}" for row in rows]
    file.write_text("\n".join(["index,image_link,group_id,entity_name", *lines]) + "\n")


if __name__ == "__main__":
    main()
