"""What OCR and rules alone read from images, and what it costs, at several image sizes.

    python -m benchmarks.ocr --json                       # on rendered labels, of which nothing was used for the rules
    python -m benchmarks.ocr --train_csv train.csv --image_dir images --labels_csv all_labels.csv

Reported for each size are CPU seconds per image (one thread), F1 by exact string with its 95 % interval over images,
the share of labels among the candidates, and how often the only candidate is right. `--labels_csv` says which units
are usual; the rows of the images that are read do not count.
"""

import argparse
import csv
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from tqdm import tqdm

from benchmarks.results import print_result, stdout_to_stderr
from dataset_builder.csv_reader import read_train_csv
from dataset_builder.image_dir import ImageDir
from product_vqa.entity_f1.scoring import count
from product_vqa.images import load_image
from product_vqa.ocr.candidate import Candidate, Evidence
from product_vqa.ocr.candidates import find_candidates
from product_vqa.ocr.engine import load_engine
from product_vqa.ocr.image_text import ImageText
from product_vqa.ocr.unit_shares import count_shares
from product_vqa.tables.layout import Layout
from product_vqa.task.kinds import LabelError
from product_vqa.task.schema import CHALLENGE
from quickstart.rendering.levels import LEVELS
from quickstart.rendering.writer import write_labels

FULL = 0
RESAMPLES = 2000


class Outcome(NamedTuple):
    """A row: its label, and the candidates of its image."""

    image_link: str
    entity_name: str
    label: str
    candidates: Sequence[Candidate]

    @property
    def prediction(self) -> str:
        return self.candidates[0].answer if self.candidates else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_csv", type=Path, help="labelled rows; default: rendered labels")
    parser.add_argument("--image_dir", type=Path, help="folder of their images")
    parser.add_argument("--labels_csv", type=Path, help="more labels, without images; default: --train_csv")
    parser.add_argument("--rows", type=int, default=160, help="rendered rows")
    parser.add_argument("--level", default="hard", choices=LEVELS, help="difficulty of the rendered labels")
    parser.add_argument("--sizes", type=int, nargs="+", default=[FULL, 1024, 448], help="longest sides in px; 0: full")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    if (options.train_csv is None) != (options.image_dir is None):
        parser.error("--train_csv and --image_dir must be used together")
    with stdout_to_stderr(), tempfile.TemporaryDirectory(prefix="benchmark-") as work:
        train_csv, image_dir, labels_csv = options.train_csv, options.image_dir, options.labels_csv
        if train_csv is None:
            train_csv, image_dir = Path(work, "train.csv"), Path(work, "images")
            write_labels(
                Path(work), train_rows=options.rows, test_rows=1, level=LEVELS[options.level], base_url="http://x/i"
            )
        rows = read_labels(train_csv)
        shares = read_unit_shares(
            labels_csv or train_csv, without={link for link, _, _ in rows} if labels_csv else set()
        )
        images = ImageDir(image_dir)
        result: dict[str, Any] = {"rows": len(rows), "images": len({link for link, _, _ in rows})}
        for size in options.sizes:
            texts, seconds = read_images(images, list(dict.fromkeys(link for link, _, _ in rows)), size=size)
            outcomes = [
                Outcome(
                    link, name, label, find_candidates(texts[link], CHALLENGE[name], unit_shares=shares.get(name, {}))
                )
                for link, name, label in rows
            ]
            result[f"at {size} px" if size else "at full size"] = {
                "cpu_s_per_image": {
                    "mean": round(statistics.mean(seconds), 2), "median": round(statistics.median(seconds), 2)
                },
                **measure(outcomes),
            }  # fmt: skip
    print_result(result, as_json=options.json)


def read_labels(path: Path) -> list[tuple[str, str, str]]:
    """The URL, the attribute and the canonical label of each row that has one."""
    rows = []
    for row in read_train_csv(path, schema=CHALLENGE, layout=Layout.of(wide=False, columns=None)).rows:
        try:
            rows.append((row.image_link, row.entity_name, CHALLENGE[row.entity_name].normalize(row.entity_value)))
        except LabelError:
            continue
    return rows


def read_unit_shares(path: Path, *, without: set[str]) -> dict[str, dict[str, float]]:
    """Attribute -> unit -> its share of the labels of a CSV, but for those of some images."""
    with path.open(newline="") as lines:
        rows = (row for row in csv.DictReader(lines) if row["image_link"] not in without)
        return count_shares(((row["entity_name"], row["entity_value"], 1) for row in rows), CHALLENGE)


def read_images(images: ImageDir, links: Sequence[str], *, size: int) -> tuple[dict[str, ImageText], list[float]]:
    """The texts of each image, reduced to a longest side of `size` px first, and the CPU seconds that each took."""
    engine = load_engine()
    engine.read(Image.new("RGB", (64, 64)))  # loads the models
    texts, seconds = {}, []
    for link in tqdm(links, desc=f"{size or 'full'} px"):
        image = load_image(images.read(link).data)
        if size and max(image.size) > size:
            image.thumbnail((size, size), Image.Resampling.LANCZOS)
        start = time.thread_time()
        texts[link] = engine.read(image)
        seconds.append(time.thread_time() - start)
    return texts, seconds


def measure(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    strong = [[one for one in row.candidates if one.evidence != Evidence.NUMBER] for row in outcomes]
    single = [row.label == found[0].answer for row, found in zip(outcomes, strong, strict=True) if len(found) == 1]
    is_known = [row.label in [one.answer for one in row.candidates] for row in outcomes]
    by_name: dict[str, list[Outcome]] = {}
    for row in outcomes:
        by_name.setdefault(row.entity_name, []).append(row)
    return {
        "f1": round(f1(outcomes), 4),
        "f1_interval": [round(end, 4) for end in interval(outcomes)],
        "label_among_candidates": round(statistics.mean(is_known), 4),
        "single_candidate": {"rows": len(single), "right": round(statistics.mean(single), 4) if single else None},
        "f1_by_attribute": {name: [len(rows), round(f1(rows), 4)] for name, rows in sorted(by_name.items())},
    }


def f1(outcomes: Sequence[Outcome]) -> float:
    return count([row.prediction for row in outcomes], [row.label for row in outcomes]).f1


def interval(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """The 95 % interval of the F1, by resampling the images."""
    by_image: dict[str, list[Outcome]] = {}
    for row in outcomes:
        by_image.setdefault(row.image_link, []).append(row)
    groups, rng = list(by_image.values()), random.Random(0)
    scores = sorted(
        f1([row for group in rng.choices(groups, k=len(groups)) for row in group]) for _ in range(RESAMPLES)
    )
    return scores[RESAMPLES // 40], scores[-RESAMPLES // 40 - 1]


if __name__ == "__main__":
    main()
