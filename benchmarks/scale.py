"""How time and memory of a build grow with its rows: the challenge's CSVs, with all URLs served on loopback.

python -m benchmarks.scale --train_csv train.csv.gz --test_csv test.csv.gz --rows 10000 --rows 100000 --rows 395046

The images are generated from their URLs, about 10 kB each. For N rows, train.csv and test.csv are shortened by
the same factor.
"""

import argparse
import csv
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.image_server import image_server
from benchmarks.timing import time_command
from dataset_builder.csv_reader import read_tables
from dataset_builder.options import TableOptions
from product_vqa.tables.rows import Row, Table

COLUMNS_BY_FILE = {
    "train.csv": ["image_link", "group_id", "entity_name", "entity_value"],
    "test.csv": ["index", "image_link", "group_id", "entity_name"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_csv", required=True)
    parser.add_argument("--test_csv", required=True)
    parser.add_argument("--rows", type=int, action="append", required=True, help="number of rows; may be repeated")
    parser.add_argument("--work_dir", type=Path, help="default: a temporary folder; 395,046 rows take about 10 GB")
    options = parser.parse_args()

    train, test = read_tables(TableOptions(options.train_csv, options.test_csv))
    assert train is not None and test is not None
    for num_rows in options.rows:
        with tempfile.TemporaryDirectory(prefix="scale-", dir=options.work_dir) as work, image_server() as url:
            print(json.dumps(measure(train, test, Path(work), url, num_rows=num_rows)), flush=True)


def measure(train: Table, test: Table, work: Path, url: str, *, num_rows: int) -> dict[str, Any]:
    total = len(train.rows) + len(test.rows)
    share = min(1.0, num_rows / total)
    for name, table in (("train.csv", train), ("test.csv", test)):
        write_csv(work / name, table.rows[: round(share * len(table.rows))], url)
    csvs = ("--train_csv", "train.csv", "--test_csv", "test.csv")
    build = time_command(
        [sys.executable, "-m", "dataset_builder.build", *csvs, "--image_store", "store", "--output_dir", "out",
         "--allow_private_hosts"],
        cwd=work, environment={"HF_HOME": str(work / "cache")},
    )  # fmt: skip
    inspect = time_command([sys.executable, "-m", "dataset_builder.inspect", *csvs], cwd=work)
    manifest = json.loads((work / "out" / "build.json").read_text())
    num_urls = len(read_tables(TableOptions(str(work / "train.csv"), str(work / "test.csv"))).urls())
    return {
        "rows": round(share * total),
        "links": num_urls,
        "build": asdict(build) | {"links_per_s": round(num_urls / build.seconds, 1)},
        "inspect": asdict(inspect),
        "rows_by_split": {split: sum(counts.values()) for split, counts in manifest["rows"].items()},
    }


def write_csv(file: Path, rows: tuple[Row, ...], url: str) -> None:
    """Write rows with their images at this server."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS_BY_FILE[file.name], extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            writer.writerow(row._asdict() | {"image_link": f"{url}/{row.image_link.rsplit('/', 1)[-1]}"})


if __name__ == "__main__":
    main()
