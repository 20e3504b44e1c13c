"""A real client of the local Hub, alone and next to 200 clients that misbehave for a minute.

python -m benchmarks.local_hub_load --seconds 60 --clients 200

The real client pushes a repo (`upload_folder`, regular files and LFS files), pulls it into an empty cache
(`snapshot_download`), and compares the sha256 of every file, again and again. Printed are the median time of a round
without and with the others, their ratio, what the others did, and the peak memory of the hub.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.results import print_result
from local_hub import LocalHub

NUM_REGULAR_FILES = 20
REGULAR_SIZE = 20_000  # bytes
LFS_SIZES = (3_000_000, 8_000_000)  # bytes
PAUSE_S = 0.2  # between two rounds
PUBLIC_REPO = "local/public"


def push_and_pull(endpoint: str, token: str, folder: Path, *, number: int) -> float:
    """Seconds of one round, with new content. Raises RuntimeError if a file was changed or is missing."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint, token=token)
    source = folder / "source"
    write_files(source)
    expected = hash_files(source)
    repo_id = f"local/real-{number % 3}"
    start = time.perf_counter()
    api.create_repo(repo_id, exist_ok=True)
    api.upload_folder(repo_id=repo_id, folder_path=source)
    pulled = api.snapshot_download(repo_id, cache_dir=folder / f"cache-{number}")
    seconds = time.perf_counter() - start
    found = hash_files(Path(pulled))
    del found[".gitattributes"]
    if found != expected:
        raise RuntimeError(f"round {number}: the files differ from those that were pushed")
    return seconds


def write_files(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(NUM_REGULAR_FILES):
        (folder / f"{number}.txt").write_bytes(os.urandom(REGULAR_SIZE // 2).hex().encode())
    for number, size in enumerate(LFS_SIZES):
        (folder / f"{number}.safetensors").write_bytes(os.urandom(size))
    (folder / "README.md").write_text(f"---\nlicense: mit\n---\n{os.urandom(8).hex()}\n")


def hash_files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }


def prepare_public_repo(hub: LocalHub) -> None:
    """What the attackers read: a large regular file, a history, many files."""
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    api.create_repo(PUBLIC_REPO)
    files = [CommitOperationAdd(f"{number}/x.txt", b"%d" % number) for number in range(300)]
    api.create_commit(PUBLIC_REPO, files, commit_message="many files")
    for number in range(30):
        api.upload_file(repo_id=PUBLIC_REPO, path_in_repo="0/x.txt", path_or_fileobj=b"version %d" % number)
    text = os.urandom(4_000_000).hex().encode()
    api.upload_file(repo_id=PUBLIC_REPO, path_in_repo="large.txt", path_or_fileobj=text)
    api.upload_file(repo_id=PUBLIC_REPO, path_in_repo="large.bin", path_or_fileobj=os.urandom(20_000_000))


def measure(*, seconds: float, num_clients: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name, LocalHub(Path(name) / "root") as hub:
        folder = Path(name)
        prepare_public_repo(hub)
        assert hub.process is not None
        process = psutil.Process(hub.process.pid)
        port = hub.endpoint.rpartition(":")[2]
        count = iter(range(10**6))

        def run_round() -> float:
            time.sleep(PAUSE_S)
            return push_and_pull(hub.endpoint, hub.token, folder, number=next(count))

        run_round()  # warms up
        before = [run_round() for _ in range(5)]
        memory_alone = process.memory_info().rss
        cpu_start = sum(process.cpu_times()[:2])
        module = [sys.executable, "-m", "benchmarks.local_hub_attackers"]
        arguments = [port, PUBLIC_REPO, str(seconds), str(num_clients)]
        attackers = subprocess.Popen([*module, *arguments], stdout=subprocess.PIPE, text=True)
        time.sleep(min(5.0, seconds / 4))  # until all of them are at it
        attacked = []
        peak_memory = 0
        while attackers.poll() is None:
            attacked.append(run_round())
            peak_memory = max(peak_memory, process.memory_info().rss)
        assert attackers.stdout is not None
        report = attackers.stdout.read()
        cpu_seconds = sum(process.cpu_times()[:2]) - cpu_start
        after = [run_round() for _ in range(5)]
    alone = statistics.median(before + after)
    attack = json.loads(report)
    return {
        "median s alone, before": round(statistics.median(before), 3),
        "median s alone, after": round(statistics.median(after), 3),
        "rounds attacked": len(attacked),
        "median s attacked": round(statistics.median(attacked), 3),
        "max s attacked": round(max(attacked), 3),
        "ratio of the medians": round(statistics.median(attacked) / alone, 2),
        "hub, MB alone": round(memory_alone / 1e6),
        "hub, MB peak": round(peak_memory / 1e6),
        "hub, CPU seconds": round(cpu_seconds, 1),
        "attackers, CPU seconds": attack["cpu_seconds"],
        "attackers, requests/s": round(sum(attack["requests"].values()) / seconds, 1),
        "requests": attack["requests"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the attack (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=200, help="that misbehave (default: %(default)s)")
    options = parser.parse_args()
    os.environ.update(HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_TELEMETRY="1")
    print_result(measure(seconds=options.seconds, num_clients=options.clients), as_json=False)


if __name__ == "__main__":
    main()
