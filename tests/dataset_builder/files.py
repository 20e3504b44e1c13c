"""Small images and CSVs, and what somebody without this project can read of a dataset built from them."""

import csv
import io
import os
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

TRAIN_COLUMNS = ["image_link", "group_id", "entity_name", "entity_value"]
TEST_COLUMNS = ["index", "image_link", "group_id", "entity_name"]


def jpeg(seed: int = 0, *, size: tuple[int, int] = (48, 32)) -> bytes:
    """An image of noise, another one for each seed."""
    noise = Image.frombytes("RGB", size, random.Random(seed).randbytes(size[0] * size[1] * 3))
    stream = io.BytesIO()
    noise.save(stream, "JPEG", quality=60)
    return stream.getvalue()


def write_train_csv(file: Path, urls: list[str]) -> Path:
    """One labelled row per URL, each with another label."""
    rows: list[list[object]] = [[url, 1, "width", f"{number + 1} inch"] for number, url in enumerate(urls)]
    return write_csv(file, TRAIN_COLUMNS, rows)


def write_csv(file: Path, columns: list[str], rows: list[list[object]]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([columns, *rows])
    return file


def contents(folder: Path) -> dict[str, bytes]:
    """The files that a built dataset consists of, by name; without the card and the manifest."""
    names = [*folder.glob("data/*"), *folder.glob("rows/*"), folder / "left_out.csv"]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in names}


class Shop:
    """A small dataset: twelve labelled rows with ten images, four test rows with three others, and their folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.image_dir = folder / "images"
        self.image_dir.mkdir()
        self.train_urls = [f"https://shop.example/p/train{number}.jpg" for number in range(10)]
        self.test_urls = [f"https://shop.example/p/test{number}.jpg" for number in range(3)]
        self.images = {url: jpeg(number) for number, url in enumerate(self.train_urls + self.test_urls)}
        for url, image in self.images.items():
            self.file(url).write_bytes(image)
        self.train_rows: list[list[object]] = [
            [url, f"g{number % 3}", "item_weight", f"{number + 1} gram"] for number, url in enumerate(self.train_urls)
        ]
        self.train_rows.insert(3, [self.train_urls[0], "g0", "item_weight", "[1.0, 2.0] gram"])
        self.train_rows.append([self.train_urls[0], "g0", "height", "2.50 inch"])
        self.test_rows: list[list[object]] = [
            [7, self.test_urls[0], "g1", "width"],
            [3, self.test_urls[1], "g1", "voltage"],
            [11, self.test_urls[0], "g1", "depth"],
            [12, self.test_urls[2], "9", "item_volume"],
        ]
        self.train_csv = write_csv(folder / "train.csv", TRAIN_COLUMNS, self.train_rows)
        self.test_csv = write_csv(folder / "test.csv", TEST_COLUMNS, self.test_rows)

    def file(self, url: str) -> Path:
        return self.image_dir / url.rsplit("/", 1)[-1]

    def options(self) -> dict[str, Any]:
        return {"train_csv": str(self.train_csv), "test_csv": str(self.test_csv), "image_dir": str(self.image_dir)}

    def arguments(self) -> list[str]:
        return [argument for name, value in self.options().items() for argument in (f"--{name}", str(value))]


ELSEWHERE = "import sys; sys.modules |= {'dataset_builder': None, 'product_vqa': None}\n"


def run_elsewhere(program: str, *arguments: object, cwd: Path, env: dict[str, str] | None = None) -> list[str]:
    """Run a program that cannot import this project, as its users do, and return the lines that it prints.

    Without torch, which `datasets` would import for two seconds if it may.
    """
    done = subprocess.run(
        [sys.executable, "-I", "-c", ELSEWHERE + program, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"HF_HOME": str(cwd / "hf_elsewhere"), "HF_HUB_OFFLINE": "1", "USE_TORCH": "0"} | (env or {}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


READ_ELSEWHERE = """
from datasets import load_dataset
dataset = load_dataset(sys.argv[1])
streamed = load_dataset(sys.argv[1], streaming=True)
for split in dataset:
    for rows in (dataset[split], streamed[split]):
        print(split, *[f"{row['index']}:{row['image'].size}:{row['entity_value']}" for row in rows], sep="|")
print(dataset["test"].features["index"].dtype, type(dataset["test"].features["image"]).__name__)
"""


def card_data(folder: Path) -> dict[str, Any]:
    """The metadata of a built folder's card."""
    data: dict[str, Any] = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    return data


def huge_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )
