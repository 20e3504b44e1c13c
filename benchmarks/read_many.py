"""`AttributeReader.read_many` over mixed items, four of them broken, compared with predict's loop on the same images.

python -m benchmarks.read_many --json

The items take turns: a path, the bytes of a file, a Pillow image, an array. Reported are images/s, also from eight
threads that share the items, and by how much the memory of the process grew after a first batch. The base model is
`benchmarks.small_model` with random weights.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from datasets import Dataset
from PIL import Image

from benchmarks.image_server import make_image
from benchmarks.results import print_result, stdout_to_stderr
from benchmarks.rows import make_row, store_image
from benchmarks.small_model import SMALL_VOCABULARY, save_small_model
from benchmarks.timing import alternate
from inference.dataloader import RowBatches, load_batches
from inference.predictions import to_table
from product_vqa import Answer, AttributeReader
from product_vqa.task.features import FEATURES

NEW_TOKENS = 6  # `34.0 gram` and the end token
BROKEN = 4
THREADS = 8
DISTINCT_IMAGES = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each variant, in turn; the median counts")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    with stdout_to_stderr(), tempfile.TemporaryDirectory(prefix="benchmark-") as work:
        result = measure(Path(work), items=options.items, batch_size=options.batch_size, repeats=options.repeats)
    print_result(result, as_json=options.json)


def measure(work: Path, *, items: int, batch_size: int, repeats: int) -> dict[str, Any]:
    save_small_model(work / "base", vocabulary=SMALL_VOCABULARY)
    reader = AttributeReader.from_pretrained(None, base_model=str(work / "base"))
    reader.max_new_tokens = NEW_TOKENS
    files = []
    for number in range(min(DISTINCT_IMAGES, items)):
        file = work / f"{number}.jpg"
        file.write_bytes(store_image(make_image(str(number), size=1000))["bytes"])
        files.append(file)
    broken = set(range(items // (2 * BROKEN), items, max(1, items // BROKEN)))
    cut = files[0].read_bytes()[:2000]
    rows = [
        make_row(index, {"bytes": cut if index in broken else files[index % len(files)].read_bytes(), "path": None},
                 image_number=index)
        for index in range(items)
    ]  # fmt: skip
    Dataset.from_list(rows, features=FEATURES).to_parquet(work / "test.parquet")
    dataset = Dataset.from_parquet(str(work / "test.parquet"), cache_dir=str(work))
    names = [row["entity_name"] for row in rows]
    del rows

    def mixed(share: int = 0, of: int = 1) -> Iterator[tuple[Any, str]]:
        for index in range(share, items, of):
            file = files[index % len(files)]
            image: Any = cut
            if index not in broken:
                image = (file, file.read_bytes(), Image.open(file), np.asarray(Image.open(file)))[index % 4]
            yield image, names[index]

    def read(share: int = 0, of: int = 1) -> list[Answer]:
        return list(reader.read_many(mixed(share, of), batch_size=batch_size))

    def read_all() -> float:
        start = time.perf_counter()
        answers = read()
        check(answers, broken, names)
        return items / (time.perf_counter() - start)

    def read_in_threads() -> float:
        shares: dict[int, list[Answer]] = {}
        threads = [
            threading.Thread(target=lambda share=share: shares.update({share: read(share, THREADS)}))
            for share in range(THREADS)
        ]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rate = items / (time.perf_counter() - start)
        check([shares[index % THREADS][index // THREADS] for index in range(items)], broken, names)
        return rate

    def predict() -> float:
        start = time.perf_counter()
        batches = RowBatches(dataset, processor=reader.processor, batch_size=batch_size, schema=reader.schema)
        for batch in load_batches(batches, range(len(batches)), num_workers=0):
            to_table(batch, reader.answer(batch.inputs, batch.entity_names))
        return items / (time.perf_counter() - start)

    first = [(file, names[0]) for file in files[:batch_size]]
    list(reader.read_many(first, batch_size=batch_size))  # allocates what a batch takes
    growth = {}
    for name, run in (("one_thread", read_all), ("eight_threads", read_in_threads)):
        sampler = _Growth()
        sampler.start()
        run()
        growth[name] = sampler.finish()
    rates = alternate({"predict": predict, "read_many": read_all, "eight_threads": read_in_threads}, repeats=repeats)
    return {
        "items": items,
        "answers": items - len(broken),
        "errors": len(broken),
        "images_per_second": {name: round(rate, 2) for name, rate in rates.items()},
        "relative_to_predict": {
            name: round(rates[name] / rates["predict"], 3) for name in ("read_many", "eight_threads")
        },
        "memory_growth_mb": growth,
    }


def check(answers: list[Answer], broken: set[int], names: list[str]) -> None:
    """Every item has its answer or its error, in order."""
    assert [answer.entity_name for answer in answers] == names
    assert {index for index, answer in enumerate(answers) if answer.error is not None} == broken


class _Growth(threading.Thread):
    """Samples the memory of this process while something runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process()
        self._before = self._peak = self._process.memory_info().rss
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.05):
            self._peak = max(self._peak, self._process.memory_info().rss)

    def finish(self) -> int:
        """By how many MB the memory was above that at the start, at most."""
        self._ended.set()
        self.join()
        return round((self._peak - self._before) / 1e6)


if __name__ == "__main__":
    main()
