"""All of test.csv through inference.predict and inference.check: time, memory, and whether every row is answered.

python -m benchmarks.predict_scale --test_csv test.csv.gz --json

Its rows with pictures made of their links, answered by a PaliGemma of 28 px with random weights.
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

from benchmarks.measuring import measure
from benchmarks.picture_server import made_picture
from dataset_builder.csv_reader import Row, read_tables
from dataset_builder.options import TableOptions
from product_vqa.task.features import FEATURES
from quickstart.small_paligemma import save_base


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--test_csv", required=True)
    parser.add_argument("--rows", type=int, action="append", help="the first so many; default: all of them")
    parser.add_argument("--json", action="store_true", help="print the results as JSON, one a line")
    options = parser.parse_args()

    (_, table) = read_tables(TableOptions(test_csv=options.test_csv))
    assert table is not None
    for number in options.rows or [len(table.rows)]:
        rows = table.rows[:number]
        with tempfile.TemporaryDirectory(prefix="predict-") as name:
            work = Path(name)
            save_base(work / "base", image_size=28, patch_size=14)
            (work / "data").mkdir()
            dataset = Dataset.from_generator(
                pictured, gen_kwargs={"rows": rows}, features=FEATURES, cache_dir=str(work / "cache")
            )
            dataset.to_parquet(work / "data" / "test-00000-of-00001.parquet", batch_size=100)
            write_csv(work / "test.csv", rows)
            predict = measure(
                [sys.executable, "-m", "inference.predict", "--base_model", "base", "--dataset", work,
                 "--output", "submission.csv", "--batch_size", 128],
                cwd=work, environment={"HF_HOME": str(work / "hf")},
            )  # fmt: skip
            check = measure(
                [sys.executable, "-m", "inference.check", "--submission", "submission.csv", "--test_csv", "test.csv"],
                cwd=work,
            )
            answered = sum(1 for line in (work / "submission.csv").open() if not line.endswith(",\n")) - 1
        result = {
            "rows": number, "answered": answered, "rows_per_s": round(number / predict.seconds, 1),
            "predict": asdict(predict), "check": asdict(check),
        }  # fmt: skip
        print(json.dumps(result) if options.json else "\n".join(f"{k:<12}{v}" for k, v in result.items()), flush=True)


def pictured(rows: tuple[Row, ...]) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield {
            "index": row.index,
            "image": {"bytes": made_picture(row.image_link, size=32), "path": None},
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
