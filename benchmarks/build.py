"""Image URLs to a dataset, compared with img2dataset: the same images from the same server, in one run.

python -m benchmarks.build --images images --json

Both tools run at --image_size 448 (resized, JPEG quality 95) and at the original size (each image is decoded once).
PSNR compares with the original, decoded at full size, converted to RGB and resized with Lanczos to the same size.
"""

import argparse
import csv
import io
import json
import math
import os
import statistics
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageOps

from benchmarks.environment import make_environment
from benchmarks.image_server import image_server
from benchmarks.results import print_result
from benchmarks.timing import CommandStats, time_command

PEER = "img2dataset==1.47.0"
CONNECTIONS = 32
IMAGE_SIZE = 448

# Runs a tool: the URLs, the folder to write to, the image size (0 for the original size).
Tool = Callable[[list[str], Path, int], CommandStats]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of images")
    parser.add_argument("--copies", type=int, default=4, help="number of URLs for each image")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each measurement; the best is reported")
    parser.add_argument(
        "--environments", type=Path, default=Path("runs/benchmarks"), help="folder for img2dataset's environment"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()

    python = make_environment(options.environments.resolve() / "img2dataset", PEER)
    originals = {file.name: file for file in sorted(options.images.rglob("*")) if file.is_file()}
    tools: dict[str, Tool] = {"ours": build, "theirs": partial(img2dataset, python)}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name, image_server(options.images) as url:
        work = Path(name)
        urls = [f"{url}/{copy}/{name}" for copy in range(options.copies) for name in originals]
        result: dict[str, Any] = {
            "images": len(urls),
            "photographs": len(originals),
            "cores": os.cpu_count(),
            "peer": PEER,
        }
        for image_size, suffix in ((IMAGE_SIZE, ""), (0, "_original")):
            measured = measure_tools(tools, urls, work, image_size=image_size, repeats=options.repeats)
            result |= {f"{tool}{suffix}": rates for tool, rates in measured.items()}
            for rate in ("images_per_s", "images_per_s_after_the_first"):
                ratio = measured["ours"][rate] / measured["theirs"][rate]
                result[f"ratio_{rate}{suffix}"] = round(ratio, 2)
        for tool, read_images in (("ours", images_of_build), ("theirs", images_of_img2dataset)):
            result[tool] |= measure_quality(read_images(work / f"{tool}{IMAGE_SIZE}-0"), originals)
    result["psnr_gain_db"] = round(result["ours"]["psnr_db"] - result["theirs"]["psnr_db"], 2)
    print_result(result, as_json=options.json)


def measure_tools(
    tools: dict[str, Tool], urls: list[str], work: Path, *, image_size: int, repeats: int
) -> dict[str, dict[str, float]]:
    """The best of some runs of each tool, in turn, and a run with one image, which shows the start-up time."""

    def run(tool: str, urls: list[str], name: str | int) -> CommandStats:
        folder = work / f"{tool}{image_size}-{name}"
        folder.mkdir()
        return tools[tool](urls, folder, image_size)

    runs: dict[str, list[CommandStats]] = {tool: [] for tool in tools}
    for repeat in range(repeats):
        for tool in tools:
            runs[tool].append(run(tool, urls, repeat))
    result = {}
    for tool in tools:
        best = min(runs[tool], key=lambda stats: stats.seconds)
        start = run(tool, urls[:1], "start")
        result[tool] = asdict(best) | {
            "seconds_for_one_image": start.seconds,
            "images_per_s": round(len(urls) / best.seconds, 1),
            "images_per_s_after_the_first": round((len(urls) - 1) / (best.seconds - start.seconds), 1),
            "images_per_cpu_s": round(len(urls) / best.cpu_seconds, 1),
        }
    return result


def build(urls: list[str], folder: Path, image_size: int) -> CommandStats:
    """`dataset_builder.build`: image store, Parquet, card and leakage report."""
    with (folder / "train.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image_link", "group_id", "entity_name", "entity_value"])
        writer.writerows([url, "g", "width", f"{number} inch"] for number, url in enumerate(urls))
    command: list[str | Path | int] = [
        sys.executable, "-m", "dataset_builder.build", "--train_csv", "train.csv", "--image_store", "store",
        "--output_dir", "out", "--image_size", image_size, "--connections", CONNECTIONS, "--allow_private_hosts",
    ]  # fmt: skip
    return time_command(command, cwd=folder, environment={"HF_HOME": str(folder / "cache")})


def img2dataset(python: Path, urls: list[str], folder: Path, image_size: int) -> CommandStats:
    """img2dataset with one process per core and as many connections in total; its default number of shards."""
    (folder / "links.txt").write_text("\n".join(urls))
    num_processes = os.cpu_count() or 1
    command: list[str | Path | int] = [
        python.with_name("img2dataset"), "--url_list", "links.txt", "--output_folder", "out",
        "--output_format", "webdataset", "--processes_count", num_processes,
        "--thread_count", CONNECTIONS // num_processes,
        "--number_sample_per_shard", max(1, min(1000, len(urls) // (4 * num_processes))), "--enable_wandb", "False",
    ]  # fmt: skip
    if image_size:
        command += ["--image_size", image_size, "--resize_mode", "keep_ratio_largest"]
        command += ["--resize_only_if_bigger", "True", "--encode_quality", 95]
    else:
        command += ["--resize_mode", "no", "--skip_reencode", "True"]
    return time_command(command, cwd=folder, environment={"NO_ALBUMENTATIONS_UPDATE": "1"})


def images_of_build(folder: Path) -> Iterator[tuple[str, bytes]]:
    """(URL, file content) of each image."""
    for file in sorted((folder / "out" / "data").iterdir()):
        for row in pq.read_table(file, columns=["image_link", "image"]).to_pylist():
            yield row["image_link"], row["image"]["bytes"]


def images_of_img2dataset(folder: Path) -> Iterator[tuple[str, bytes]]:
    """(URL, file content) of each image."""
    for file in sorted((folder / "out").glob("*.tar")):
        with tarfile.open(file) as archive:
            content = {member.name: _read(archive, member) for member in archive if member.isfile()}
        for name, data in content.items():
            if name.endswith(".json"):
                sample = json.loads(data)
                if sample["status"] == "success":
                    yield sample["url"], content[name.replace(".json", ".jpg")]


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    assert stream is not None, f"{member.name} is not a file"
    return stream.read()


def measure_quality(images: Iterator[tuple[str, bytes]], originals: dict[str, Path]) -> dict[str, float]:
    """The size of the images, and the PSNR of those that were reduced, once for each original."""
    sizes = []
    psnr_by_name: dict[str, float] = {}
    for url, data in images:
        sizes.append(len(data))
        name = url.rsplit("/", 1)[-1]
        if name in psnr_by_name:
            continue
        image = Image.open(io.BytesIO(data))
        original = ImageOps.exif_transpose(Image.open(originals[name])).convert("RGB")
        if max(original.size) > IMAGE_SIZE:
            resized = original.resize(image.size, Image.Resampling.LANCZOS)
            psnr_by_name[name] = psnr(resized, image.convert("RGB"))
    return {
        "pictures": len(sizes),
        "kb_a_picture": round(statistics.mean(sizes) / 1000, 1),
        "psnr_db": round(statistics.mean(psnr_by_name.values()), 2),
        "psnr_db_worst": round(min(psnr_by_name.values()), 2),
    }


def psnr(first: Image.Image, second: Image.Image) -> float:
    error = np.mean((np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)) ** 2)
    return 10 * math.log10(255**2 / max(float(error), 1e-3))


if __name__ == "__main__":
    main()
