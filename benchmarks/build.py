"""Links to a dataset, beside img2dataset: the same pictures from the same server, in one run.

python -m benchmarks.build --images photographs --json

Each of both, at --image_size 448 (fitted, JPEG quality 95) and at the original size (every picture decoded once).
PSNR is against the photograph decoded in full, made RGB and fitted with Lanczos to the size that came out.
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
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageOps

from benchmarks.measuring import Measured, make_environment, measure, picture_server

PEER = "img2dataset==1.47.0"
CONNECTIONS = 32
IMAGE_SIZE = 448


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--copies", type=int, default=4, help="links to each of them")
    parser.add_argument("--repeats", type=int, default=1, help="of every measurement; the best is reported")
    parser.add_argument("--environments", type=Path, default=Path("runs/benchmarks"), help="where img2dataset is put")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()

    peer = make_environment(options.environments.resolve() / "img2dataset", PEER)
    photographs = {file.name: file for file in sorted(options.images.rglob("*")) if file.is_file()}
    names = list(photographs)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as work, picture_server("--folder", options.images) as url:
        links = [f"{url}/{copy}/{name}" for copy in range(options.copies) for name in names]
        result: dict = {"images": len(links), "photographs": len(names), "cores": os.cpu_count(), "peer": PEER}
        for size, suffix in ((IMAGE_SIZE, ""), (0, "_original")):
            best: dict[str, Measured] = {}
            for number in range(options.repeats):
                for who in ("ours", "theirs"):
                    folder = Path(work, f"{who}{size}-{number}")
                    folder.mkdir()
                    run = build(links, folder, size) if who == "ours" else img2dataset(links, folder, size, peer)
                    best[who] = min(best.get(who, run), run, key=lambda measured: measured.seconds)
            for who, measured in best.items():
                folder = Path(work, f"{who}{size}-start")
                folder.mkdir()
                start = build(links[:1], folder, size) if who == "ours" else img2dataset(links[:1], folder, size, peer)
                result[f"{who}{suffix}"] = asdict(measured) | {
                    "seconds_for_one_image": start.seconds,
                    "images_per_s": round(len(links) / measured.seconds, 1),
                    "images_per_s_after_the_first": round((len(links) - 1) / (measured.seconds - start.seconds), 1),
                    "images_per_cpu_s": round(len(links) / measured.cpu_seconds, 1),
                }
            ours, theirs = result[f"ours{suffix}"], result[f"theirs{suffix}"]
            for rate in ("images_per_s", "images_per_s_after_the_first"):
                result[f"ratio_{rate}{suffix}"] = round(ours[rate] / theirs[rate], 2)
        for who, pictures in (("ours", built), ("theirs", downloaded)):
            result[who] |= quality(pictures(Path(work, f"{who}{IMAGE_SIZE}-0")), photographs)
    result["psnr_gain_db"] = round(result["ours"]["psnr_db"] - result["theirs"]["psnr_db"], 2)
    print(json.dumps(result, indent=2) if options.json else as_text(result))


def build(links: list[str], folder: Path, image_size: int) -> Measured:
    """`dataset_builder.build`: store, Parquet, card and leak report."""
    with (folder / "train.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image_link", "group_id", "entity_name", "entity_value"])
        writer.writerows([link, "g", "width", f"{number} inch"] for number, link in enumerate(links))
    command = [
        sys.executable, "-m", "dataset_builder.build", "--train_csv", "train.csv", "--image_store", "store",
        "--output_dir", "out", "--image_size", image_size, "--connections", CONNECTIONS, "--allow_private_hosts",
    ]  # fmt: skip
    return measure(command, cwd=folder, environment={"HF_HOME": str(folder / "cache")})


def img2dataset(links: list[str], folder: Path, image_size: int, python: Path) -> Measured:
    """img2dataset with a process a core, and as many connections in all; its own default shards."""
    (folder / "links.txt").write_text("\n".join(links))
    processes = os.cpu_count() or 1
    command = [
        python.with_name("img2dataset"), "--url_list", "links.txt", "--output_folder", "out",
        "--output_format", "webdataset", "--processes_count", processes, "--thread_count", CONNECTIONS // processes,
        "--number_sample_per_shard", max(1, min(1000, len(links) // (4 * processes))), "--enable_wandb", "False",
    ]  # fmt: skip
    if image_size:
        command += ["--image_size", image_size, "--resize_mode", "keep_ratio_largest"]
        command += ["--resize_only_if_bigger", "True", "--encode_quality", 95]
    else:
        command += ["--resize_mode", "no", "--skip_reencode", "True"]
    return measure(command, cwd=folder, environment={"NO_ALBUMENTATIONS_UPDATE": "1"})


def built(folder: Path) -> Iterator[tuple[str, bytes]]:
    for file in sorted((folder / "out" / "data").iterdir()):
        for row in pq.read_table(file, columns=["image_link", "image"]).to_pylist():
            yield row["image_link"], row["image"]["bytes"]


def downloaded(folder: Path) -> Iterator[tuple[str, bytes]]:
    for file in sorted((folder / "out").glob("*.tar")):
        with tarfile.open(file) as archive:
            for member in archive:
                if member.name.endswith(".json"):
                    sample = json.loads(archive.extractfile(member).read())
                    if sample["status"] == "success":
                        image = archive.extractfile(member.name.replace(".json", ".jpg"))
                        yield sample["url"], image.read()


def quality(pictures: Iterator[tuple[str, bytes]], originals: dict[str, Path]) -> dict[str, float]:
    """Over the photographs that had to be reduced, each once."""
    num_pictures, sizes, decibels = 0, [], {}
    for link, data in pictures:
        num_pictures += 1
        name = link.rsplit("/", 1)[-1]
        sizes.append(len(data))
        if name in decibels:
            continue
        image = Image.open(io.BytesIO(data))
        original = ImageOps.exif_transpose(Image.open(originals[name])).convert("RGB")
        if max(original.size) > IMAGE_SIZE:
            decibels[name] = psnr(original.resize(image.size, Image.Resampling.LANCZOS), image.convert("RGB"))
    return {
        "pictures": num_pictures,
        "kb_a_picture": round(statistics.mean(sizes) / 1000, 1),
        "psnr_db": round(statistics.mean(decibels.values()), 2),
        "psnr_db_worst": round(min(decibels.values()), 2),
    }


def psnr(first: Image.Image, second: Image.Image) -> float:
    error = np.mean((np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)) ** 2)
    return 10 * math.log10(255**2 / max(error, 1e-3))


def as_text(result: dict) -> str:
    lines = []
    for name, value in result.items():
        lines.append(
            f"{name:<28}"
            + (", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else f"{value}")
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
