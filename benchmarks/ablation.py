"""Does fine-tuning work? LoRA and QLoRA (NF4), compared with the base model and with shuffled labels.

    python -m benchmarks.ablation --seeds 0 1 2 --json

Every run goes through the public commands: rendered labels -> dataset folder -> training.sft -> inference.predict ->
inference.evaluate. Each seed has its own labels and its own training. Shuffled labels are the correct ones, exchanged
among the images of the same attribute: a model can learn from them what predictions look like, but not how to read.
"""

import argparse
import csv
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.commands import BASE, CONFIG_FILE, launch, python

WAYS: dict[str, list[str]] = {
    "lora": [],
    "nf4": ["--load_in_4bit", "true"],
    "shuffled": [],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS, help="what to train")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="random seeds of labels and training")
    parser.add_argument("--level", default="standard", help="difficulty of the labels: plain, standard, hard")
    parser.add_argument("--train_rows", type=int, default=2400)
    parser.add_argument("--test_rows", type=int, default=320)
    parser.add_argument("--json", action="store_true", help="print all results as JSON")
    options = parser.parse_args()
    results = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as name:
            results += run_seed(Path(name), options, seed)
    if options.json:
        print(json.dumps(results))


def run_seed(folder: Path, options: argparse.Namespace, seed: int) -> list[dict[str, object]]:
    make_datasets(folder, options, seed)
    results = [predict_and_score(folder, seed, "untrained", ["--base_model", BASE], seconds=0.0)]
    for way in options.ways:
        adapter = folder / f"adapter-{way}"
        start = time.perf_counter()
        launch(
            "training.sft", "--config", CONFIG_FILE, "--dataset_name",
            folder / ("shuffled" if way == "shuffled" else "plain"), "--model_name_or_path", BASE,
            "--base_model_id", "local/small-paligemma", "--output_dir", adapter,
            "--per_device_train_batch_size", 8, "--seed", seed, "--max_eval_samples", 0, *WAYS[way],
        )  # fmt: skip
        seconds = time.perf_counter() - start
        model: list[str | Path] = ["--adapter", adapter, "--base_model", BASE, *WAYS[way]]
        results.append(predict_and_score(folder, seed, way, model, seconds=seconds))
    for result in results:
        print(json.dumps(result), file=sys.stderr, flush=True)
    return results


def make_datasets(folder: Path, options: argparse.Namespace, seed: int) -> None:
    """Build the dataset folders `plain` and `shuffled` from the same rendered images."""
    python(
        "quickstart.rendering.render", "--output_dir", folder, "--train_rows", options.train_rows,
        "--test_rows", options.test_rows, "--seed", seed, "--level", options.level,
    )  # fmt: skip
    shuffle_labels(folder / "train.csv", folder / "train_shuffled.csv", seed=seed)
    for dataset, train_csv in (("plain", "train.csv"), ("shuffled", "train_shuffled.csv")):
        python(
            "dataset_builder.build", "--train_csv", folder / train_csv, "--test_csv", folder / "test.csv",
            "--image_dir", folder / "images", "--output_dir", folder / dataset,
        )  # fmt: skip


def shuffle_labels(source: Path, target: Path, *, seed: int) -> None:
    """Shuffle the labels of each entity among its rows."""
    with source.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    rng = random.Random(seed)
    for entity in sorted({row["entity_name"] for row in rows}):
        rows_of_entity = [row for row in rows if row["entity_name"] == entity]
        values = [row["entity_value"] for row in rows_of_entity]
        rng.shuffle(values)
        for row, value in zip(rows_of_entity, values, strict=True):
            row["entity_value"] = value
    with target.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def predict_and_score(
    folder: Path, seed: int, way: str, model: list[str | Path], *, seconds: float
) -> dict[str, object]:
    """Predict the test split with a model, which is given as options of inference.predict."""
    output = folder / f"{way}.csv"
    launch("inference.predict", "--dataset", folder / "plain", "--split", "test", "--output", output, *model)
    metrics = json.loads(
        python("inference.evaluate", "--predictions", output, "--references", folder / "test_answers.csv", "--json")
    )
    return {
        "way": way,
        "seed": seed,
        "rows": metrics["rows"],
        "f1_quantity": round(metrics["f1_quantity"], 4),
        "f1": round(metrics["f1"], 4),
        "training_seconds": round(seconds, 1),
    }


if __name__ == "__main__":
    main()
