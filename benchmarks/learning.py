"""Does training teach anything? LoRA and QLoRA (NF4) against the untrained base and against shuffled labels.

    python -m benchmarks.learning --seeds 0 1 2 --json

Every run goes through the public commands: rendered labels -> dataset folder -> training.sft -> inference.predict ->
inference.evaluate. Each seed makes new labels and another training. Shuffled labels are the true ones, handed to other
pictures of the same attribute: what can be learnt from them is what answers look like, not to read.
"""

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / "quickstart" / "base"
WAYS = {
    "lora": [],
    "nf4": ["--load_in_4bit", "true"],
    "shuffled": [],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--level", default="standard", help="plain, standard, hard")
    parser.add_argument("--train_rows", type=int, default=2400)
    parser.add_argument("--test_rows", type=int, default=320)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as name:
            results += run_seed(Path(name), options, seed)
    if options.json:
        print(json.dumps(results))


def run_seed(folder: Path, options: argparse.Namespace, seed: int) -> list[dict[str, object]]:
    python("quickstart.labels", "--output_dir", folder, "--train_rows", options.train_rows, "--test_rows",
           options.test_rows, "--seed", seed, "--level", options.level)  # fmt: skip
    shuffle_labels(folder / "train.csv", folder / "shuffled.csv", seed=seed)
    for dataset, train_csv in (("plain", "train.csv"), ("mixed", "shuffled.csv")):
        python("dataset_builder.build", "--train_csv", folder / train_csv, "--test_csv", folder / "test.csv",
               "--image_dir", folder / "images", "--output_dir", folder / dataset)  # fmt: skip
    results = [predict_and_score(folder, seed, "untrained", ["--base_model", BASE], seconds=0.0)]
    for way in options.ways:
        dataset = folder / ("mixed" if way == "shuffled" else "plain")
        adapter = folder / f"adapter-{way}"
        start = time.perf_counter()
        launch("training.sft", "--config", ROOT / "training/configs/quickstart.yaml", "--dataset_name", dataset,
               "--model_name_or_path", BASE, "--base_model_id", "local/small-paligemma", "--output_dir", adapter,
               "--per_device_train_batch_size", 8, "--seed", seed, "--max_eval_samples", 0, *WAYS[way])  # fmt: skip
        seconds = time.perf_counter() - start
        reader = ["--adapter", adapter, "--base_model", BASE, *WAYS[way]]
        results.append(predict_and_score(folder, seed, way, reader, seconds=seconds))
    for result in results:
        print(json.dumps(result), file=sys.stderr, flush=True)
    return results


def shuffle_labels(source: Path, target: Path, *, seed: int) -> None:
    with source.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    rng = random.Random(seed)
    for entity in sorted({row["entity_name"] for row in rows}):
        places = [number for number, row in enumerate(rows) if row["entity_name"] == entity]
        values = [rows[place]["entity_value"] for place in places]
        rng.shuffle(values)
        for place, value in zip(places, values, strict=True):
            rows[place]["entity_value"] = value
    with target.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def predict_and_score(folder: Path, seed: int, way: str, reader: list[object], *, seconds: float) -> dict[str, object]:
    output = folder / f"{way}.csv"
    launch("inference.predict", "--dataset", folder / "plain", "--split", "test", "--output", output, *reader)
    scores = json.loads(
        python("inference.evaluate", "--predictions", output, "--references", folder / "test_answers.csv", "--json")
    )
    return {
        "way": way,
        "seed": seed,
        "rows": scores["rows"],
        "f1_quantity": round(scores["f1_quantity"], 4),
        "f1": round(scores["f1"], 4),
        "training_seconds": round(seconds, 1),
    }


def python(module: str, *arguments: object) -> str:
    return _run([sys.executable, "-m", module, *map(str, arguments)])


def launch(module: str, *arguments: object) -> str:
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--quiet"]
    config = ["--config_file", str(ROOT / "training/accelerate_configs/cpu_2.yaml")]
    return _run([*accelerate, *config, "-m", module, *map(str, arguments)])


def _run(command: list[str]) -> str:
    # Two processes of one thread beat one of two at this size.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
