"""Speed of the server, compared with predict on the same images, and what hanging clients and garbage cost.

python -m benchmarks.serve --json

The base model is `benchmarks.small_model` with random weights and an adapter of rank 8. Each image has one question.

predict     the loop of inference.predict
served      `--clients` clients of a server in a process of its own, each with one request at a time
disturbed   the same, while 8 clients hang in the middle of a body and 8 send garbage, up to 100 times a second each
"""

import argparse
import io
import itertools
import multiprocessing
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
from datasets import Dataset

from benchmarks.image_server import make_image
from benchmarks.predict import predict, seconds_of
from benchmarks.results import print_result, stdout_to_stderr
from benchmarks.rows import make_row, store_image
from benchmarks.small_model import SMALL_VOCABULARY, save_small_adapter, save_small_model
from inference import AttributeReader
from product_vqa.task.features import FEATURES

ORIGINAL_SIZE = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=512, help="number of images, each with one question")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=64, help="of both; default: as many as clients")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each variant, in turn; the median counts")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()

    with stdout_to_stderr(), tempfile.TemporaryDirectory(prefix="benchmark-") as work:
        base, adapter = Path(work, "base"), Path(work, "adapter")
        parameters = save_small_model(base, vocabulary=SMALL_VOCABULARY)
        save_small_adapter(adapter, base=base)
        stored = [store_image(make_image(str(number), size=ORIGINAL_SIZE)) for number in range(options.rows)]
        rows = [make_row(number, image, image_number=number) for number, image in enumerate(stored)]
        Dataset.from_list(rows, features=FEATURES).to_parquet(Path(work, "test.parquet"))
        dataset = Dataset.from_parquet(str(Path(work, "test.parquet")), cache_dir=work)
        requests = [(row["image"]["bytes"], row["entity_name"]) for row in rows]
        with serving(adapter, batch_size=options.batch_size) as url:
            # The reader is loaded next to the server, which is idle while it predicts.
            reader = AttributeReader.from_pretrained(str(adapter))
            predict(reader, dataset.select(range(options.batch_size)), batch_size=options.batch_size)  # warm-up
            ask_all(url, requests[: options.batch_size], clients=options.clients)
            measured: dict[str, list[float]] = {"predict": [], "served": [], "disturbed": []}
            latencies: dict[str, list[float]] = {"served": [], "disturbed": []}
            for _ in range(options.repeats):
                measured["predict"].append(seconds_of(lambda: predict(reader, dataset, batch_size=options.batch_size)))
                for name in latencies:
                    with disturbing(url) if name == "disturbed" else nothing():
                        start = time.perf_counter()
                        latencies[name] += ask_all(url, requests, clients=options.clients)
                        measured[name].append(time.perf_counter() - start)
    rates = {name: options.rows / statistics.median(seconds) for name, seconds in measured.items()}
    batch_s = options.batch_size / rates["predict"]
    p99 = {name: statistics.quantiles(values, n=100)[98] for name, values in latencies.items()}
    result = {
        "cores": os.cpu_count(),
        "parameters": parameters,
        "dtype": str(reader.model.dtype),
        "rows": options.rows,
        "clients": options.clients,
        "rows_per_s": {name: round(rate, 2) for name, rate in rates.items()},
        "ratio_vs_predict": round(rates["served"] / rates["predict"], 3),
        "ratio_disturbed": round(rates["disturbed"] / rates["served"], 3),
        "p99_s": {name: round(value, 3) for name, value in p99.items()},
        "p99_in_batches": {name: round(value / batch_s, 2) for name, value in p99.items()},
    }
    print_result(result, as_json=options.json)


@contextmanager
def serving(adapter: Path, *, batch_size: int) -> Iterator[str]:
    """The URL of a server, which ends with the block."""
    command = [
        sys.executable,
        "-m",
        "inference.serve",
        "--adapter",
        adapter,
        "--port",
        "0",
        "--batch_size",
        batch_size,
    ]
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"http://[\d.:]+", process.stdout.readline())
        if found is None:
            raise RuntimeError("the server did not start")
        while True:
            try:
                httpx.get(f"{found[0]}/health")
                break
            except httpx.ConnectError:
                time.sleep(0.05)
        yield found[0]
    finally:
        process.terminate()
        process.wait()


def ask_all(url: str, requests: Sequence[tuple[bytes, str]], *, clients: int) -> list[float]:
    """Ask all questions, `clients` of them at a time; returns the seconds of each."""
    own = threading.local()

    def ask(request: tuple[bytes, str]) -> float:
        if not hasattr(own, "client"):
            own.client = httpx.Client(timeout=300)
        start = time.perf_counter()
        files = {"image": ("image.jpg", io.BytesIO(request[0]))}
        response = own.client.post(f"{url}/read", files=files, data={"entity_name": request[1]})
        response.raise_for_status()
        return time.perf_counter() - start

    with ThreadPoolExecutor(clients) as threads:
        return list(threads.map(ask, requests))


@contextmanager
def nothing() -> Iterator[None]:
    yield


@contextmanager
def disturbing(url: str) -> Iterator[None]:
    """Clients that hang, and clients that send garbage, in a process of their own until the block ends."""
    process = multiprocessing.get_context("spawn").Process(target=disturb, args=(url,), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def disturb(url: str) -> None:
    host, _, port = url.removeprefix("http://").partition(":")

    def connect() -> socket.socket:
        return socket.create_connection((host, int(port)), timeout=10)

    def hang() -> None:
        with connect() as client:
            client.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n{"
            )
            threading.Event().wait()

    def send_garbage() -> None:
        contents: list[bytes] = [
            b"\x00\x01\x02\r\n\r\n",
            b"POST /read HTTP/1.1\r\nHost: localhost\r\n\r\n",
            os.urandom(1000),
        ]
        for content in itertools.cycle(contents):
            time.sleep(0.01)
            try:
                with connect() as client:
                    client.sendall(content)
                    client.recv(1000)
            except OSError:  # the server closes such connections
                continue

    threads = [threading.Thread(target=work, daemon=True) for work in [hang] * 8 + [send_garbage] * 8]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
