"""How time and memory of a build grow with its rows: the challenge's CSVs, every link answered on loopback.

python -m benchmarks.scale --train_csv train.csv.gz --test_csv test.csv.gz --rows 10000 --rows 100000 --rows 395046

Pictures are made of their links, about 10 kB each. Of N rows, train.csv and test.csv give as many as their share is.
"""

import argparse
import csv
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.measuring import measure, picture_server
from dataset_builder.csv_reader import Row, read_tables
from dataset_builder.options import TableOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_csv", required=True)
    parser.add_argument("--test_csv", required=True)
    parser.add_argument("--rows", type=int, action="append", required=True)
    parser.add_argument("--work_dir", type=Path, help="default: a temporary folder; 395,046 rows take about 10 GB")
    options = parser.parse_args()

    tables = read_tables(TableOptions(options.train_csv, options.test_csv))
    total = sum(len(table.rows) for table in tables)
    for num_rows in options.rows:
        share = min(1, num_rows / total)
        with tempfile.TemporaryDirectory(prefix="scale-", dir=options.work_dir) as work, picture_server() as url:
            for name, table in zip(("train", "test"), tables, strict=True):
                write(
                    Path(work, f"{name}.csv"),
                    table.rows[: round(share * len(table.rows))],
                    url,
                    is_test=name == "test",
                )
            command = [
                sys.executable, "-m", "dataset_builder.build", "--train_csv", "train.csv", "--test_csv", "test.csv",
                "--image_store", "store", "--output_dir", "out", "--allow_private_hosts",
            ]  # fmt: skip
            measured = measure(command, cwd=Path(work), environment={"HF_HOME": f"{work}/cache"})
            record = json.loads(Path(work, "out/build.json").read_text())
            inspect = measure(
                [
                    sys.executable,
                    "-m",
                    "dataset_builder.inspect",
                    "--train_csv",
                    "train.csv",
                    "--test_csv",
                    "test.csv",
                ],
                cwd=Path(work),
            )
            links = len(read_tables(TableOptions(f"{work}/train.csv", f"{work}/test.csv")).urls())
            print(
                json.dumps(
                    {
                        "rows": round(share * total),
                        "links": links,
                        "build": asdict(measured) | {"links_per_s": round(links / measured.seconds, 1)},
                        "inspect": asdict(inspect),
                        "rows_by_split": {split: sum(counts.values()) for split, counts in record["rows"].items()},
                    }
                ),
                flush=True,
            )


def write(file: Path, rows: tuple[Row, ...], url: str, *, is_test: bool) -> None:
    columns = ["index", "image_link", "group_id", "entity_name", "entity_value"]
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns[:4] if is_test else columns[1:])
        for row in rows:
            link = f"{url}/{row.image_link.rsplit('/', 1)[-1]}"
            cells = [row.index, link, row.group_id, row.entity_name, row.entity_value]
            writer.writerow(cells[:4] if is_test else cells[1:])


if __name__ == "__main__":
    main()
