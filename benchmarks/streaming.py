"""Training by streaming next to training from a copy on disk: time to the first step, samples/s, disk, memory, losses.

    python -m benchmarks.streaming --rows 395046 --json

A local Hub serves a dataset of as many rows as the challenge's, with images of about 10 kB in row groups of 100 rows,
as build writes them, and a PaliGemma of 28 px. Four runs make the same steps: one streams, one trains from a copy on
disk, one streams with data loader workers, and one that streams is killed in the middle and rerun. The full size takes
5 GB of disk for the Hub, 6 GB for the copy, and half an hour on two cores.
"""

import argparse
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.commands import CONFIG_FILE, hf
from benchmarks.disk_space import count_bytes
from benchmarks.image_server import make_image
from benchmarks.results import print_result
from benchmarks.rows import make_row
from local_hub import LocalHub
from product_vqa.task.features import FEATURES
from quickstart.pretraining.small_paligemma import save_base

SHARES = {"train": 0.635, "validation": 0.033, "test": 0.332}  # of the challenge's rows
SHARD_ROWS = 50_000  # 500 MB, as build writes them
ROW_GROUP_ROWS = 100
IMAGE_BYTES = 10_000
SAMPLES_PER_STEP = 64
SCHEMA = FEATURES.arrow_schema.remove_metadata()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="rows of all splits; the challenge has 395,046")
    parser.add_argument("--steps", type=int, default=150, help="steps of each run")
    parser.add_argument("--no_table", action="store_true", help="a dataset without build's table of rows")
    parser.add_argument("--work_dir", type=Path, help="default: a temporary folder")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="streaming-", dir=options.work_dir) as name,
        LocalHub(Path(name, "hub")) as hub,
    ):
        work = Path(name)
        os.environ.update(hub.environment, HF_HUB_DISABLE_PROGRESS_BARS="1", TOKENIZERS_PARALLELISM="false")
        push_base_model(work)
        push_dataset(work, rows=options.rows, has_table=not options.no_table)
        result = {"rows": options.rows} | measure(work, steps=options.steps)
    print_result(result, as_json=options.json)


def push_base_model(work: Path) -> None:
    save_base(work / "base", image_size=28, patch_size=14)
    hf("upload", "--private", "local/base", work / "base", ".")
    shutil.rmtree(work / "base")


def push_dataset(work: Path, *, rows: int, has_table: bool) -> None:
    """Push shards one by one, so that only one of them is on the disk twice."""
    start = 0
    configs: dict[str, list[dict[str, str]]] = {"default": [], "rows": []}
    for split, share in SHARES.items():
        end = rows if split == "test" else start + round(share * rows)
        num_shards = -(-(end - start) // SHARD_ROWS)
        for shard in range(num_shards):
            first = start + shard * SHARD_ROWS
            name = f"data/{split}-{shard:05d}-of-{num_shards:05d}.parquet"
            write_shard(work / "shard.parquet", range(first, min(first + SHARD_ROWS, end)))
            hf("upload", "--private", "--repo-type", "dataset", "local/dataset", work / "shard.parquet", name)
        configs["default"].append({"split": split, "path": f"data/{split}-*"})
        if has_table:
            write_table(work / "rows.parquet", range(start, end))
            name = f"rows/{split}.parquet"
            hf("upload", "--private", "--repo-type", "dataset", "local/dataset", work / "rows.parquet", name)
            configs["rows"].append({"split": split, "path": name})
        start = end
    listed = [{"config_name": name, "data_files": files} for name, files in configs.items() if files]
    (work / "README.md").write_text(f"---\n{json.dumps({'configs': listed})}\n---\n")
    hf("upload", "--private", "--repo-type", "dataset", "local/dataset", work / "README.md", "README.md")
    (work / "shard.parquet").unlink()


def write_shard(file: Path, numbers: range) -> None:
    images = [make_image(str(number)) for number in range(20)]
    with pq.ParquetWriter(file, SCHEMA) as writer:
        for start in range(numbers.start, numbers.stop, ROW_GROUP_ROWS):
            rows = []
            for number in range(start, min(start + ROW_GROUP_ROWS, numbers.stop)):
                image = images[number % len(images)]
                # Decoders ignore what follows the end of a JPEG, and Parquet cannot compress it.
                content = image + os.urandom(max(16, IMAGE_BYTES - len(image)))
                rows.append(make_row(number, {"bytes": content, "path": None}, image_number=number))
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))


def write_table(file: Path, numbers: range) -> None:
    """The rows of a split without their images, as build writes them."""
    names = [name for name in SCHEMA.names if name != "image"]
    schema = pa.schema([SCHEMA.field(name) for name in names])
    with pq.ParquetWriter(file, schema) as writer:
        for start in range(numbers.start, numbers.stop, 10_000):
            rows = [
                make_row(number, {}, image_number=number) for number in range(start, min(start + 10_000, numbers.stop))
            ]
            writer.write_table(
                pa.Table.from_pylist([{name: row[name] for name in names} for row in rows], schema=schema)
            )


@dataclass
class Run:
    """A run of training.sft with a cache of its own."""

    folder: Path
    arguments: tuple[str, ...]
    steps: int

    def start(self) -> subprocess.Popen[str]:
        words = [
            "--config", CONFIG_FILE, "--dataset_name", "local/dataset", "--model_name_or_path", "local/base",
            "--base_model_id", "local/base", "--output_dir", self.folder / "run", "--max_steps", self.steps,
            "--save_steps", self.steps // 3, "--logging_steps", 1, "--eval_strategy", "no",
            "--per_device_train_batch_size", SAMPLES_PER_STEP, "--seed", 3, "--dtype", "float32", "--bf16", "false",
            "--report_to", "none", "--use_cpu", "true", "--shuffle_buffer_size", 10_000, *self.arguments,
        ]  # fmt: skip
        return subprocess.Popen(
            [sys.executable, "-m", "training.sft", *map(str, words)],
            env=os.environ | {"HF_HOME": str(self.folder / "home"), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def measure(self) -> dict[str, Any]:
        """Run it to its end."""
        began = time.perf_counter()
        process = self.start()
        times: list[float] = []
        printed = ""
        for line in lines(process):
            printed += line
            if re.match(r"step \d+/\d+  loss", line):
                times.append(time.perf_counter() - began)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"error: {' '.join(self.arguments)}: {printed[-3000:]}")
        return {
            "first_step_s": round(times[0], 1),
            "samples_per_s": round((len(times) - 1) * SAMPLES_PER_STEP / (times[-1] - times[0]), 1),
            "peak_memory_mb": round(usage.ru_maxrss / 1024),
            "disk_mb": round(count_bytes(self.folder) / 1e6, 1),
        }

    def kill_at(self, step: int) -> None:
        process = self.start()
        for line in lines(process):
            if line.startswith(f"step {step}/"):
                process.send_signal(signal.SIGKILL)
        process.wait()

    def losses(self) -> list[float]:
        with (self.folder / "run" / "log.csv").open() as stream:
            return [float(row["loss"]) for row in csv.DictReader(stream) if row["loss"]]


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    yield from process.stdout


def measure(work: Path, *, steps: int) -> dict[str, Any]:
    streaming = ("--streaming", "true")
    variants = {
        "streamed": Run(work / "streamed", streaming, steps),
        "from_disk": Run(work / "from_disk", (), steps),
        "streamed_with_workers": Run(work / "workers", (*streaming, "--dataloader_num_workers", "2"), steps),
        "killed_and_rerun": Run(work / "killed", streaming, steps),
    }
    result: dict[str, Any] = {}
    expected: list[float] = []
    for name, run in variants.items():
        if name == "killed_and_rerun":
            run.kill_at(steps // 2)
        result[name] = run.measure()
        expected = expected or run.losses()
        assert len(run.losses()) == len(expected) == steps
        result[name]["largest_difference_of_losses"] = float(np.abs(np.subtract(run.losses(), expected)).max())
        shutil.rmtree(run.folder)
    return result


if __name__ == "__main__":
    main()
