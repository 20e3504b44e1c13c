"""A build and a prediction by Ray's workers, one of them killed and a machine lost, against those of one process.

python -m benchmarks.ray_engine --rows 20000 --predict_rows 5000 --json

Two nodes of Ray with one CPU each run on this machine. In the middle of the build, and of the prediction, a worker is
killed (SIGKILL), the second node is removed, and another one joins. Printed are whether all files of the dataset and
all predictions are equal to the byte, the seconds, and the peak memory of all processes together. The images are
generated from their URLs, and the model is a PaliGemma of 28 px with random weights. `make ray` installs Ray.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from benchmarks.image_server import image_server
from benchmarks.ray_nodes import RayNodes, ray_nodes
from benchmarks.results import print_result
from benchmarks.shards import write_csvs
from benchmarks.timing import SAMPLE_S, pss_bytes
from quickstart.pretraining.small_paligemma import save_base

BATCH_SIZE = 4


class PeakMemory(threading.Thread):
    """Samples the memory of all processes that this one has started, but for those that were there before."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._ignored = {process.pid for process in psutil.Process().children(recursive=True)}
        self._has_ended = threading.Event()
        self.peak_mb = 0.0

    def run(self) -> None:
        while not self._has_ended.wait(SAMPLE_S):
            started = [one for one in psutil.Process().children(recursive=True) if one.pid not in self._ignored]
            self.peak_mb = max(self.peak_mb, sum(map(pss_bytes, started)) / 1024**2)

    def stop(self) -> float:
        self._has_ended.set()
        self.join()
        return round(self.peak_mb)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="rows of the CSVs, each with an image of its own")
    parser.add_argument("--image_size", type=int, default=224, help="width and height of the images, in pixels")
    parser.add_argument("--shards", type=int, default=40, help="parts of the build")
    parser.add_argument("--predict_rows", type=int, default=5_000, help="rows that are predicted")
    parser.add_argument("--undisturbed", action="store_true", help="kill no worker and remove no node")
    parser.add_argument("--work_dir", type=Path, help="default: a temporary folder; 20,000 rows take 2 GB")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()

    os.environ["OMP_NUM_THREADS"] = "1"  # with another number of threads, float32 is rounded otherwise
    with tempfile.TemporaryDirectory(prefix="ray-engine-", dir=options.work_dir) as folder:
        work = Path(folder)
        result: dict[str, Any] = {"rows": options.rows, "shards": options.shards}
        with image_server(size=options.image_size) as url:
            write_csvs(work, options.rows, url)
            result["build"] = compare_builds(work, options)
        save_base(work / "base", image_size=28, patch_size=14)
        result["predict"] = compare_predictions(work, options)
    print_result(result, as_json=options.json)


def compare_builds(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Build by one process and by workers; all files must be equal to the byte."""
    command = ["dataset_builder.build", "--train_csv", work / "train.csv", "--test_csv", work / "test.csv",
               "--allow_private_hosts", "--output_dir"]  # fmt: skip
    one = measure([*command, work / "one", "--image_store", work / "store"])
    output = work / "ray"

    def done() -> float:
        shards = output / "shards"
        return sum("-of-" in name for name in os.listdir(shards)) / options.shards if shards.is_dir() else 0.0

    command += [output, "--ray_shards", options.shards, "--engine", "ray"]
    many, losses = measure_on_nodes(command, done, disturbed=not options.undisturbed)
    files = [read_files(work / name) for name in ("one", "ray")]
    return {
        "files": len(files[0]),
        "different_files": sorted(name for name, _ in files[0].items() ^ files[1].items()),
        **losses,
        "one_process": one,
        "ray": many,
    }


def read_files(folder: Path) -> dict[str, bytes]:
    """The files that a dataset consists of; without card and manifest, which hold the time of the build."""
    names = [*folder.glob("data/*"), *folder.glob("rows/*"), folder / "left_out.csv"]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in names}


def compare_predictions(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Predict by one process and by workers; the submissions must be equal to the byte, and the tables equal."""
    command = ["inference.predict", "--base_model", work / "base", "--dataset", work / "one", "--dtype", "float32",
               "--batch_size", BATCH_SIZE, "--max_rows", options.predict_rows, "--output"]  # fmt: skip
    one = measure([*command, work / "one.csv"])
    batches = -(-options.predict_rows // BATCH_SIZE)

    def done() -> float:
        return len([*(work / "ray.parts").glob("*.parquet")]) / batches

    command += [work / "ray.csv", "--ray_workers", 2, "--engine", "ray"]
    many, losses = measure_on_nodes(command, done, disturbed=not options.undisturbed)
    tables = [pq.read_table(work / name) for name in ("one.parquet", "ray.parquet")]
    return {
        "rows": len(tables[0]),
        "is_equal": (work / "one.csv").read_bytes() == (work / "ray.csv").read_bytes()
        and tables[0].equals(tables[1], check_metadata=True),
        **losses,
        "one_process": one,
        "ray": many,
    }


def measure(command: list[Any], *, watch: Callable[[subprocess.Popen[str]], None] | None = None) -> dict[str, float]:
    """The seconds and the peak memory of a command. Raises RuntimeError if it fails."""
    memory = PeakMemory()
    memory.start()
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([sys.executable, "-m", *map(str, command)], stdout=log, stderr=log, text=True)
        if watch is not None:
            watch(process)
        if process.wait():
            log.seek(0)
            raise RuntimeError(f"{command} failed: {log.read()[-3000:]}")
    return {"seconds": round(time.perf_counter() - start, 1), "peak_pss_mb": memory.stop()}


def measure_on_nodes(
    command: list[Any], done: Callable[[], float], *, disturbed: bool
) -> tuple[dict[str, float], dict[str, int]]:
    """`measure`, on two nodes. `done` gives the share of the work that is done: what is lost is lost in the middle."""
    losses = {"killed_workers": 0, "removed_nodes": 0, "added_nodes": 0}

    def disturb(nodes: RayNodes, process: subprocess.Popen[str]) -> None:
        wait_until(lambda: done() > 0.25 and nodes.kill_worker(0), process)
        losses["killed_workers"] += 1
        wait_until(lambda: done() > 0.4, process)
        nodes.remove(1)
        losses["removed_nodes"] += 1
        wait_until(lambda: done() > 0.5, process)
        nodes.add()
        losses["added_nodes"] += 1

    with ray_nodes(2) as nodes:
        watch = (lambda process: disturb(nodes, process)) if disturbed else None
        return measure([*command, "--ray_address", nodes.address], watch=watch), losses


def wait_until(is_so: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not is_so():
        if process.poll() is not None:
            raise RuntimeError("the command ended before anything could be lost")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
