"""Does a run download and write as much as it says beforehand?

    python -m benchmarks.disk_space --json

A local Hub serves a base model with the files of PaliGemma 3B, all weights zero, and a dataset with as many rows and
bytes as the challenge's at 448 px. `training.sft` makes one step from there, with an empty cache. What it printed is
compared with what is in the cache and the output folder. It takes 55 GB of disk, 10 GB of memory and a quarter of an
hour; `--rows` makes the dataset smaller.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from datasets import Dataset

from benchmarks.base_models import PALIGEMMA_3B, save_base_model
from benchmarks.commands import hf
from benchmarks.image_server import make_image
from benchmarks.results import print_result
from dataset_builder.image_preparation import prepare_image
from local_hub import LocalHub
from product_vqa.task.features import FEATURES

IMAGE_BYTES = 47_000  # the mean of the challenge's images, stored at 448 px
SHARD_ROWS = 10_000
UNITS = {"MB": 1e6, "GB": 1e9}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=263_859, help="rows of the dataset; default: the challenge's")
    parser.add_argument("--tiny", action="store_true", help="a base model with two small layers, to try the benchmark")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="disk-space-") as name, LocalHub(Path(name, "hub")) as hub:
        work = Path(name)
        os.environ.update(hub.environment, HF_HUB_DISABLE_PROGRESS_BARS="1")
        push_base_model(work, is_tiny=options.tiny)
        push_dataset(work, rows=options.rows)
        result = measure(work)
    print_result(result, as_json=options.json)


def push_base_model(work: Path, *, is_tiny: bool) -> None:
    folder = work / "base"
    save_base_model(folder, PALIGEMMA_3B.shrink() if is_tiny else PALIGEMMA_3B, is_zero=True)
    hf("upload", "--private", "local/base", folder, ".")
    shutil.rmtree(folder)


def push_dataset(work: Path, *, rows: int) -> None:
    """Push shards one by one, so that only one of them is on the disk twice."""
    image = prepare_image(make_image("a"), image_size=224).data
    num_shards = -(-rows // SHARD_ROWS)
    for shard in range(num_shards):
        numbers = range(shard * SHARD_ROWS, min((shard + 1) * SHARD_ROWS, rows))
        shard_rows = []
        for number in numbers:
            # Decoders ignore what follows the end of a JPEG, and Parquet cannot compress it.
            content = image + os.urandom(IMAGE_BYTES - len(image))
            shard_rows.append(
                {
                    "index": number, "image": {"bytes": content, "path": None}, "group_id": "1",
                    "image_link": f"https://shop.example/{number}.jpg", "entity_name": "item_weight",
                    "entity_value": "500.0 gram", "entity_value_raw": "500 gram",
                }
            )  # fmt: skip
        file = work / f"train-{shard:05d}-of-{num_shards:05d}.parquet"
        Dataset.from_list(shard_rows, features=FEATURES).to_parquet(file)
        hf("upload", "--private", "--repo-type", "dataset", "local/dataset", file, f"data/{file.name}")
        file.unlink()


def measure(work: Path) -> dict[str, Any]:
    """Train one step from the Hub, and compare what was printed with what is on the disk."""
    home, output_dir = work / "home", work / "run"
    completed = subprocess.run(
        [
            sys.executable, "-m", "training.sft", "--dataset_name", "local/dataset", "--model_name_or_path",
            "local/base", "--output_dir", output_dir, "--max_steps", "1", "--save_steps", "1", "--save_total_limit",
            "1", "--per_device_train_batch_size", "1", "--dtype", "bfloat16", "--bf16", "true", "--report_to", "none",
            "--use_cpu", "true",
        ],
        cwd=work, env=os.environ | {"HF_HOME": str(home)}, capture_output=True, text=True,
    )  # fmt: skip
    if completed.returncode:
        sys.exit(f"error: training.sft failed: {completed.stderr[-3000:]}")
    line = re.search(r"Disk space: about ([\d.]+) (.B) needed, ([\d.]+) (.B) of it downloaded: .*", completed.stderr)
    assert line is not None, completed.stderr
    needed, downloaded = float(line[1]) * UNITS[line[2]], float(line[3]) * UNITS[line[4]]
    hub_bytes, arrow_bytes = count_bytes(home / "hub"), count_bytes(home / "datasets")
    total = hub_bytes + arrow_bytes + count_bytes(output_dir)
    return {
        "printed": line[0],
        "downloaded_gb": round(hub_bytes / 1e9, 3),
        "arrow_gb": round(arrow_bytes / 1e9, 3),
        "output_gb": round(count_bytes(output_dir) / 1e9, 3),
        "download_printed_to_real": round(downloaded / hub_bytes, 3),
        "disk_printed_to_real": round(needed / total, 3),
    }


def count_bytes(folder: Path) -> int:
    """Count the bytes of the files in a folder, without links."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


if __name__ == "__main__":
    main()
