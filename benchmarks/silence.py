"""Does an adapter keep silent where the image shows nothing, and does a threshold hold? On rendered labels.

    python -m benchmarks.silence --json
    python -m benchmarks.silence --output_dir runs/silence

Two adapters are trained on the same labelled rows; one of them also on questions that the label does not answer, 30 %
of its rows. Fresh labels are then asked all eight attributes, most of which they do not show. Everything goes through
the public commands. With `--output_dir`, datasets, adapters and predictions are kept, and the same command resumes.
"""

import argparse
import random
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.commands import BASE, CONFIG_FILE, launch, python
from benchmarks.results import print_result
from inference.calibrate import apply_calibration, find_threshold
from inference.metrics import mark_right, score_table
from inference.references import join
from inference.threshold import certainty
from product_vqa.hub import Location
from product_vqa.modeling.calibration import fit_calibration
from product_vqa.schemas import load_schema
from product_vqa.tables.layout import LONG
from product_vqa.task.quantity import format_quantity
from product_vqa.task.schema import ENTITIES
from quickstart.__main__ import computes_bfloat16
from quickstart.rendering.label_text import make_label
from quickstart.rendering.levels import LEVELS
from quickstart.rendering.writer import write_csv, write_image

WAYS = {"silent": 0.3, "always_answering": 0.0}  # the share of questions without an answer in training
POOLS = {"test": 60, "pool": 400}  # fresh images; the larger set is for the resampled splits
RESAMPLES = 200
AT_MOST_WRONG = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_rows", type=int, default=4800, help="rows with an answer")
    parser.add_argument("--pool_images", type=int, default=POOLS["pool"], help="fresh images of the resampled splits")
    parser.add_argument("--level", default="standard", choices=LEVELS, help="difficulty of the labels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_dir", help="folder to keep everything in; the same command resumes in it")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() if options.output_dir is None else nullcontext(options.output_dir) as name:
        folder = Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        make_datasets(folder, options)
        for way in WAYS:
            train_and_predict(folder, way, seed=options.seed)
        result = compare(folder, seed=options.seed)
    print_result({"train_rows": options.train_rows, "level": options.level, **result}, as_json=options.json)


def make_datasets(folder: Path, options: argparse.Namespace) -> None:
    """Build the two training sets, and the sets of fresh images, unless that was done before."""
    if not (folder / "train.csv").is_file():
        python(
            "quickstart.rendering.render", "--output_dir", folder, "--train_rows", options.train_rows,
            "--test_rows", 0, "--seed", options.seed, "--level", options.level, "--unanswered", str(WAYS["silent"]),
        )  # fmt: skip
    for way, share in WAYS.items():
        build(folder / "train.csv", folder / "images", folder / way, unanswered=share)
    for name, number in (POOLS | {"pool": options.pool_images}).items():
        images = folder / f"{name}_images"
        if not images.is_dir():
            write_fresh(
                images, folder / f"{name}.csv", number=number, level=options.level, seed=f"{options.seed}/{name}"
            )
        build(folder / f"{name}.csv", images, folder / name, unanswered=0.9)


def build(train_csv: Path, images: Path, output: Path, *, unanswered: float) -> None:
    if not (output / "build.json").is_file():
        python(
            "dataset_builder.build", "--train_csv", train_csv, "--image_dir", images, "--output_dir", output,
            "--validation_size", 0, "--unanswered", str(unanswered),
        )  # fmt: skip


def write_fresh(images: Path, file: Path, *, number: int, level: str, seed: str) -> None:
    """Render labels with numbers that training does not have, and ask each all eight attributes."""
    images.mkdir()
    rows: list[tuple[str, int, str, str]] = []
    for image in range(number):
        rng = random.Random(f"{seed}/{image}")
        label = make_label(rng, level=LEVELS[level], held_out=True)
        name = write_image(images, label, rng, level=LEVELS[level])
        facts = label.facts
        values = {entity: format_quantity(facts[entity].quantity) if entity in facts else "" for entity in ENTITIES}
        rows += [(name, 1, entity, value) for entity, value in values.items()]
    write_csv(file, ("image_link", "group_id", "entity_name", "entity_value"), rows)


def train_and_predict(folder: Path, way: str, *, seed: int) -> None:
    adapter = folder / f"adapter_{way}"
    if not (adapter / "adapter_model.safetensors").is_file():
        launch(
            "training.sft", "--config", CONFIG_FILE, "--dataset_name", folder / way, "--model_name_or_path", BASE,
            "--base_model_id", "local/small-paligemma", "--output_dir", adapter, "--seed", seed,
            "--max_eval_samples", 0, "--eval_strategy", "no", "--bf16", str(computes_bfloat16()).lower(),
        )  # fmt: skip
    for name in POOLS:
        output = folder / f"{way}_{name}.csv"
        if not output.is_file():
            launch(
                "inference.predict", "--adapter", adapter, "--base_model", BASE, "--dataset", folder / name, "--split",
                "train", "--output", output,
            )  # fmt: skip


def compare(folder: Path, *, seed: int) -> dict[str, Any]:
    """The scores on the fresh images, of both adapters, and how often a threshold keeps its promise."""
    schema = load_schema(Location(str(folder / "test")))
    tables = {
        way: join(folder / f"{way}_test.parquet", f"{folder / 'test'}:train", schema=schema, layout=LONG)
        for way in WAYS
    }  # fmt: skip
    silent, always = (score_table(tables[way], schema=schema) for way in WAYS)
    pools = {
        way: join(folder / f"{way}_pool.parquet", f"{folder / 'pool'}:train", schema=schema, layout=LONG)
        for way in WAYS
    }  # fmt: skip
    silent_pool, always_pool = (score_table(pools[way], schema=schema) for way in WAYS)
    pooled = pd.read_parquet(folder / "silent_pool.parquet")
    labels = pools["silent"].set_index("index")
    answers = mark_right(pooled, list(labels["reference"][pooled["index"]]), schema=schema)
    return {
        "rows": silent["rows"],
        "rows_not_shown": silent["silence"]["rows"],
        "auroc_shown": silent["silence"]["auroc_shown"],
        "auroc_confidence_always_answering": always["silence"]["auroc_confidence"],
        "na_f1": silent["silence"]["na_f1"],
        "na_precision": silent["silence"]["na_precision"],
        "na_recall": silent["silence"]["na_recall"],
        "f1": silent["f1_quantity"],
        "f1_always_answering": always["f1_quantity"],
        "f1_answerable": silent["silence"]["answerable"]["f1_quantity"],
        "f1_answerable_always_answering": always["silence"]["answerable"]["f1_quantity"],
        "pool": {  # more rows, so smaller differences can be seen
            "rows_answerable": silent_pool["silence"]["answerable"]["rows"],
            "f1_answerable": silent_pool["silence"]["answerable"]["f1_quantity"],
            "f1_answerable_always_answering": always_pool["silence"]["answerable"]["f1_quantity"],
        },
        "threshold": resample_thresholds(answers, seed=seed),
    }


def resample_thresholds(answers: pd.DataFrame, *, seed: int, splits: int = RESAMPLES) -> dict[str, float | int | None]:
    """Divide the images into an eighth that fits, a half that tests the threshold, and the others, which judge it.

    `kept` is the share of the splits in which at most `AT_MOST_WRONG` of the answers that are given to the others are
    wrong: none is given where there is no threshold. `found` counts the splits that have one, and `kept_where_found`
    is the share of these; `answered` is the share of the rows with a value that get an answer there, on average.
    """
    rng = np.random.default_rng(seed)
    images = answers["image_link"].astype("category").cat.codes.to_numpy()
    found = kept = 0
    answered: list[float] = []
    for _ in range(splits):
        part = rng.permutation(images.max() + 1)[images] % 8
        calibration = fit_calibration(answers[part == 0])
        threshold = find_threshold(answers[(part > 0) & (part < 5)], calibration, AT_MOST_WRONG)
        if threshold is None:
            continue
        judged = apply_calibration(answers[part >= 5], calibration)
        is_given = (judged["prediction"] != "") & (certainty(judged) >= threshold.min_confidence)
        found += 1
        kept += (~judged["is_right"][is_given].astype(bool)).sum() <= AT_MOST_WRONG * is_given.sum()
        answered.append(float(is_given[judged["is_shown"].astype(bool)].mean()))
    return {
        "splits": splits,
        "found": found,
        "kept": round(float(kept + splits - found) / splits, 4),
        "kept_where_found": round(float(kept) / found, 4) if found else None,
        "answered": round(float(np.mean(answered)), 4) if found else 0.0,
    }


if __name__ == "__main__":
    main()
