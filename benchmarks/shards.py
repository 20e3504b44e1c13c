"""A build and a prediction by several machines that share only a Hub, some of them killed, against one machine's.

python -m benchmarks.shards --rows 20000 --shards 6 --kills 3 --json

Each machine is a process with a disk of its own; they share the local Hub. Killed shards are run again on an empty
disk. Printed are whether all files and predictions are equal to the byte, the CPU seconds (of killed processes
apart), the peak memory of a process, and the requests per second that a server counted. The images are generated
from their URLs, and the model is a small PaliGemma with random weights. It answers faster than six processes start, so
that the CPU seconds of a prediction say something only at --model_image_size 224.

python -m benchmarks.shards --rows 1000000 --image_size 32 --kills 0 --parts build

The part `merge` needs no downloads, which take most of the time: shards with generated images are pushed, and one
process merges them from the Hub to the Hub.

python -m benchmarks.shards --rows 1000000 --parts merge
"""

import argparse
import hashlib
import io
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile
from PIL import Image

from benchmarks.image_server import image_server
from benchmarks.results import print_result
from benchmarks.timing import MemorySampler
from dataset_builder.build_shards import Inputs, shard_folder, write_shard
from dataset_builder.csv_reader import read_tables
from dataset_builder.image_store import Status, UrlState, fingerprint_states
from dataset_builder.options import TableOptions
from dataset_builder.shards_branch import BRANCH
from dataset_builder.stored_image import StoredImage
from local_hub import LocalHub
from product_vqa.row_selection import RowSelectionOptions, read_selection
from product_vqa.sharding import Shard, all_shards
from quickstart.pretraining.small_paligemma import save_base

PARTS = ("build", "predict", "rate", "merge")
RATE, RATE_SECONDS = 60, 40  # requests per second, and for how long
COLUMNS = {
    "train.csv": "image_link,group_id,entity_name,entity_value",
    "test.csv": "index,image_link,group_id,entity_name",
}
TRAIN_SHARE = 0.67  # as in the challenge's CSVs


@dataclass
class Usage:
    """What a number of processes took."""

    cpu_seconds: float = 0.0
    killed_cpu_seconds: float = 0.0
    peak_mb: float = 0.0
    killed: int = 0

    def add(self, sampler: MemorySampler) -> None:
        """Wait for a process. Raises RuntimeError if it fails otherwise than by a kill."""
        process = sampler.process
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        sampler.join()
        self.peak_mb = max(self.peak_mb, sampler.peak_mb)  # ru_maxrss would include what this process had
        if process.returncode == -signal.SIGKILL:
            self.killed += 1
            self.killed_cpu_seconds += usage.ru_utime + usage.ru_stime
        elif process.returncode == 0:
            self.cpu_seconds += usage.ru_utime + usage.ru_stime
        else:
            raise RuntimeError(f"{process.args!r} failed with exit code {process.returncode}")


@dataclass
class Machines:
    """Starts processes, each in a new folder, which is its disk."""

    work: Path
    environment: dict[str, str]
    number: int = field(default=0)

    def start(self, *command: object) -> MemorySampler:
        self.number += 1
        disk = self.work / f"machine-{self.number}"
        disk.mkdir()
        process = subprocess.Popen(
            [sys.executable, "-m", *map(str, command)],
            cwd=disk,
            env=os.environ | self.environment | {"HF_HOME": str(disk / "hf")},
            stdout=subprocess.DEVNULL,
        )
        sampler = MemorySampler(process)
        sampler.start()
        return sampler

    def run(self, *command: object) -> tuple[Usage, float]:
        """Run one process to its end; returns what it took, and its seconds."""
        usage, start = Usage(), time.perf_counter()
        usage.add(self.start(*command))
        return usage, time.perf_counter() - start

    def run_shards(self, command: Sequence[object], *, count: int, kills: int, seconds: float, seed: int) -> Usage:
        """Run all shards at once, kill some of them within `seconds`, and run these again on other disks."""
        rng, usage = random.Random(seed), Usage()
        shards = all_shards(count)
        running = {shard: self.start(*command, "--shard", shard) for shard in shards}
        start = time.perf_counter()
        moments = sorted(rng.uniform(0.05, 0.9) * seconds for _ in range(kills))
        for moment, shard in zip(moments, rng.sample(shards, kills), strict=True):
            time.sleep(max(0.0, start + moment - time.perf_counter()))
            os.kill(running[shard].process.pid, signal.SIGKILL)  # Popen.kill would wait for one that has ended
        for shard, sampler in running.items():
            usage.add(sampler)
            if sampler.process.returncode:
                usage.add(self.start(*command, "--shard", shard))
        return usage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="rows of the CSVs, each with an image of its own")
    parser.add_argument("--image_size", type=int, default=224, help="width and height of the images, in pixels")
    parser.add_argument("--shards", type=int, default=6)
    parser.add_argument("--kills", type=int, default=3, help="shards of each kind that are killed, and run again")
    parser.add_argument("--predict_rows", type=int, default=2_000, help="rows that are predicted")
    parser.add_argument(
        "--model_image_size", type=int, default=28, help="that of the model, in pixels: a multiple of 14"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["build", "predict", "rate"])
    parser.add_argument("--work_dir", type=Path, help="default: a temporary folder; 20,000 rows take 2 GB")
    parser.add_argument("--seed", type=int, default=0, help="of the kills")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()

    if options.work_dir:
        options.work_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="shards-", dir=options.work_dir) as folder:
        work = Path(folder)
        log = work / "requests.txt"
        with image_server(size=options.image_size, log=log) as url, LocalHub(work / "hub") as hub:
            write_csvs(work, options.rows, url)
            machines = Machines(work, hub.environment)
            api = HfApi(endpoint=hub.endpoint, token=hub.token)
            result: dict[str, Any] = {"rows": options.rows, "shards": options.shards}
            if {"build", "predict"} & set(options.parts):
                result["build"] = compare_builds(machines, api, options)
            if "predict" in options.parts:
                save_base(work / "base", image_size=options.model_image_size, patch_size=14)
                result["predict"] = compare_predictions(machines, options)
            if "merge" in options.parts:
                result["merge"] = measure_merge(machines, api, options)
            if "rate" in options.parts:
                result["rate"] = measure_rate(machines, log, url, count=options.shards)
    print_result(result, as_json=options.json)


def write_csvs(folder: Path, rows: int, url: str) -> None:
    with (folder / "train.csv").open("w") as train, (folder / "test.csv").open("w") as test:
        for file, stream in (("train.csv", train), ("test.csv", test)):
            stream.write(COLUMNS[file] + "\n")
        for number in range(rows):
            if number < TRAIN_SHARE * rows:
                train.write(f"{url}/{number}.jpg,{number % 700},item_weight,{number % 97 + 1} gram\n")
            else:
                test.write(f"{number},{url}/{number}.jpg,{number % 700},item_weight\n")


def compare_builds(machines: Machines, api: HfApi, options: argparse.Namespace) -> dict[str, Any]:
    """Build and push by one machine and by several; the repos' files must be equal to the byte."""
    csvs = ("--train_csv", machines.work / "train.csv", "--test_csv", machines.work / "test.csv")
    command: list[object] = ["dataset_builder.build", *csvs, "--allow_private_hosts", "--image_store", "store",
                             "--output_dir", "dataset", "--push_to_hub", "--hub_dataset_id"]  # fmt: skip
    one, seconds = machines.run(*command, "local/one")
    command.append("local/merged")
    shards = machines.run_shards(
        command, count=options.shards, kills=options.kills, seconds=seconds, seed=options.seed
    )
    merge, _ = machines.run(*command, "--merge", options.shards)
    one_files, merged_files = (repo_files(api, repo_id) for repo_id in ("local/one", "local/merged"))
    return {
        "files": len(one_files),
        "different_files": sorted(name for name, _ in one_files.items() ^ merged_files.items()),
        **compare_usage(one, shards, merge),
    }


def repo_files(api: HfApi, repo_id: str) -> dict[str, str]:
    """The names and hashes of the files that a dataset consists of; without card and manifest, which name the repo."""
    files = api.list_repo_tree(repo_id, repo_type="dataset", recursive=True)
    return {
        file.path: file.blob_id
        for file in files
        if isinstance(file, RepoFile) and file.path.startswith(("data/", "rows/", "left_out"))
    }


def compare_predictions(machines: Machines, options: argparse.Namespace) -> dict[str, Any]:
    """Predict the labelled rows by one machine and by several; the predictions must be equal to the byte.

    Each machine has one core: the threads of six processes on the cores of one machine would wait for each other, and
    that time counts as theirs.
    """
    machines.environment = machines.environment | {"OMP_NUM_THREADS": "1"}
    command = ["inference.predict", "--base_model", machines.work / "base", "--dataset", "local/merged",
               "--split", "train", "--dtype", "float32", "--batch_size", 32, "--max_rows", options.predict_rows,
               "--output", "s.csv"]  # fmt: skip
    one, seconds = machines.run(*command)
    expected = (machines.work / f"machine-{machines.number}" / "s.csv").read_bytes()
    command += ["--push_to_hub", "--hub_predictions_id", "local/predictions"]
    shards = machines.run_shards(
        command, count=options.shards, kills=options.kills, seconds=seconds, seed=options.seed + 1
    )
    merge, _ = machines.run(*command, "--merge", options.shards)
    found = (machines.work / f"machine-{machines.number}" / "s.csv").read_bytes()
    return {"rows": found.count(b"\n") - 1, "is_equal": found == expected, **compare_usage(one, shards, merge)}


def compare_usage(one: Usage, shards: Usage, merge: Usage) -> dict[str, Any]:
    together = shards.cpu_seconds + merge.cpu_seconds
    return {
        "killed": shards.killed,
        "cpu_seconds_of_one_machine": round(one.cpu_seconds, 1),
        "cpu_seconds_of_shards": round(shards.cpu_seconds, 1),
        "cpu_seconds_of_merge": round(merge.cpu_seconds, 1),
        "cpu_seconds_of_killed": round(shards.killed_cpu_seconds, 1),
        "cpu_ratio": round(together / one.cpu_seconds, 3),
        "peak_pss_mb": {
            "one": round(one.peak_mb), "shard": round(shards.peak_mb), "merge": round(merge.peak_mb)
        },
    }  # fmt: skip


@dataclass
class GeneratedStore:
    """What `write_shard` asks of a store: an image for each URL, all different, and small."""

    start: bytes = b""
    urls: dict[bytes, str] = field(default_factory=dict)  # by the hash of the image

    def __post_init__(self) -> None:
        stream = io.BytesIO()
        Image.effect_noise((32, 32), 64).convert("RGB").save(stream, "JPEG")
        self.start = stream.getvalue()

    def states(self, urls: Iterable[str]) -> Iterator[UrlState]:
        for url in urls:
            image = self._image(url)
            digest = hashlib.sha256(image)
            self.urls[digest.digest()] = url
            phash = int.from_bytes(digest.digest()[:8], "big", signed=True)
            yield UrlState(url, Status.STORED, num_bytes=len(image), width=32, height=32, sha256=digest.hexdigest(),
                           phash=phash)  # fmt: skip

    def read_image(self, image: StoredImage) -> bytes:
        return self._image(self.urls[image.digest])

    def fingerprint(self, urls: Iterable[str]) -> str:
        return fingerprint_states(self.states(sorted(urls)))

    def _image(self, url: str) -> bytes:
        return self.start + hashlib.sha256(url.encode()).digest()  # a decoder stops at the end of the image


def measure_merge(machines: Machines, api: HfApi, options: argparse.Namespace) -> dict[str, Any]:
    """Push shards of generated images, merge them, and return what the merge takes."""
    csvs = {"train_csv": str(machines.work / "train.csv"), "test_csv": str(machines.work / "test.csv")}
    tables = read_tables(TableOptions(train_csv=csvs["train_csv"], test_csv=csvs["test_csv"]))
    inputs = Inputs.of(tables, read_selection(RowSelectionOptions(), schema=tables.schema), image_size=448)
    output = machines.work / "generated"
    for shard in all_shards(options.shards):
        own = [url for url in tables.urls() if shard.owns_url(url)]
        store: Any = GeneratedStore()
        write_shard(shard_folder(output, shard), store, own, shard=shard, inputs=inputs)
    arguments = [word for name, value in csvs.items() for word in (f"--{name}", value)]
    repo_id = "local/generated"
    api.create_repo(repo_id, repo_type="dataset", private=True)
    api.create_branch(repo_id, branch=BRANCH, repo_type="dataset")
    machines.run("huggingface_hub.cli.hf", "upload", repo_id, output, ".", "--repo-type", "dataset",
                 "--revision", BRANCH)  # fmt: skip
    usage, seconds = machines.run("dataset_builder.build", *arguments, "--image_store", "store",
                                  "--output_dir", "dataset", "--merge", options.shards,
                                  "--push_to_hub", "--hub_dataset_id", repo_id)  # fmt: skip
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.cpu_seconds, 1),
        "peak_pss_mb": round(usage.peak_mb),
    }


def measure_rate(machines: Machines, log: Path, url: str, *, count: int) -> dict[str, Any]:
    """Download with a limit on the requests per second; the server counts them while all shards are at work."""
    rows = RATE * RATE_SECONDS
    csv = machines.work / "rate.csv"
    links = "".join(f"{number},{url}/rate-{number}.jpg,0,item_weight\n" for number in range(rows))
    csv.write_text(f"{COLUMNS['test.csv']}\n{links}")
    command = ["dataset_builder.download", "--test_csv", csv, "--allow_private_hosts", "--image_store", "store",
               "--requests_per_second", RATE]  # fmt: skip
    machines.run_shards(command, count=count, kills=0, seconds=0, seed=0)
    moments: dict[Shard, list[float]] = defaultdict(list)
    for line in log.read_text().splitlines():
        moment, _, path = line.partition(" ")
        if path.startswith("/rate-"):
            moments[Shard.of_url(url + path, count)].append(float(moment))
    start = max(map(min, moments.values())) + 1
    end = min(map(max, moments.values()))
    seconds = range(int(end - start))
    counts = [sum(start + n <= moment < start + n + 1 for own in moments.values() for moment in own) for n in seconds]
    return {
        "setting_per_s": RATE,
        "measured_per_s": round(sum(counts) / len(counts), 2),
        "seconds": len(counts),
        "median_per_s": statistics.median(counts),
        "most_in_a_second": max(counts),
    }


if __name__ == "__main__":
    main()
