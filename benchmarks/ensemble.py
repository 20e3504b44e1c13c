"""Ensembles: the time and memory for all rows of test.csv, and what an ensemble of three seeds gains.

    python -m benchmarks.ensemble --test_csv test.csv.gz --json
    python -m benchmarks.ensemble --only gain --output_dir runs/ensemble --json

Speed: five files about all rows (131,187 random ones without --test_csv), three of them with confidences, whose
weights are fitted on labels of all rows, and applied.

Gain: adapters of several seeds are trained on the same rendered labels, and predict held-out ones. The weights are
fitted on the rows of one half of the images, and the ensemble is scored on the other half: its F1 (number and unit)
minus that of the file that is best on these rows, with a 95 % interval by a paired bootstrap over images. This is
repeated for several random halves of all images, which share rows, and for halves of disjoint parts of them, which are
independent of each other. Training takes minutes for each seed; with --output_dir the same command resumes.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.commands import BASE, CONFIG_FILE, launch, python
from benchmarks.results import print_result
from benchmarks.timing import time_command
from inference.metrics import calibration_error
from inference.references import read_references
from inference.rows import join_rows
from inference.submission import PREDICTIONS
from inference.tables import read_table
from inference.vote_decision import decide
from inference.vote_fitting import Labels, choose_prior, fit_weights, match_labels
from inference.vote_scores import score_votes
from inference.vote_weights import default_weights
from inference.votes import NO_VOTE, Votes, count_votes, read_files
from product_vqa.bootstrap import f1
from product_vqa.tables.layout import LONG
from product_vqa.task.schema import CHALLENGE, ENTITIES, UNITS_BY_ENTITY

TEST_ROWS = 131_187  # of the challenge's test.csv
PARTS = (2, 5, 10, 20)  # numbers of disjoint parts of the held-out rows
NUM_FILES, NUM_WITH_CONFIDENCES = 5, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("speed", "gain"), help="default: both")
    parser.add_argument("--test_csv", help="the challenge's test.csv, for the speed")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="random seeds of the trainings")
    parser.add_argument("--level", default="standard", help="difficulty of the labels: plain, standard, hard")
    parser.add_argument("--train_rows", type=int, default=2400)
    parser.add_argument("--test_rows", type=int, default=8000, help="held-out rows, to fit weights and to score")
    parser.add_argument("--draws", type=int, default=20, help="random halves of all images")
    parser.add_argument("--output_dir", help="folder to keep labels, adapters and predictions in")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    result: dict[str, Any] = {}
    if options.only != "gain":
        with tempfile.TemporaryDirectory(prefix="ensemble-") as work:
            result |= measure_speed(Path(work), options.test_csv)
    if options.only != "speed":
        kept = options.output_dir
        with tempfile.TemporaryDirectory(prefix="ensemble-") if kept is None else nullcontext(kept) as name:
            folder = Path(name) / options.level
            predictions = [predict_held_out(folder, seed, options) for seed in options.seeds]
            result |= measure_gain(predictions, folder / "labels.csv", draws=options.draws)
    print_result(result, as_json=options.json)


def measure_speed(work: Path, test_csv: str | None) -> dict[str, Any]:
    """The seconds and the peak memory of fitting on all rows, and of applying the weights."""
    rng = np.random.default_rng(0)
    if test_csv is None:
        rows = pd.DataFrame({"index": np.arange(TEST_ROWS), "entity_name": rng.choice(ENTITIES, TEST_ROWS)})
        rows["image_link"] = [f"https://shop.example/images/{number // 3 * 2:08d}.jpg" for number in range(TEST_ROWS)]
    else:
        rows = read_table(test_csv, columns=("index", "entity_name", "image_link"))
    rows.to_csv(work / "test.csv", index=False)
    labels = np.array([draw_quantity(rng, name) for name in rows["entity_name"]], dtype=object)
    rows.assign(entity_value=labels).to_csv(work / "labels.csv", index=False)
    names = [write_predictions(work, rows, labels, number=number, rng=rng) for number in range(NUM_FILES)]
    command = [sys.executable, "-m", "inference.ensemble", "--test_csv", "test.csv", "--predictions", *names]
    fitted = time_command(
        [*command, "--references", "labels.csv", "--save_weights", "weights.json", "--output", "fitted.csv"], cwd=work
    )
    applied = time_command([*command, "--weights", "weights.json", "--output", "applied.csv"], cwd=work)
    assert (work / "fitted.csv").read_bytes() == (work / "applied.csv").read_bytes()
    python("inference.check", "--submission", work / "applied.csv", "--test_csv", work / "test.csv")
    return {"rows": len(rows), "files": NUM_FILES, "fit": asdict(fitted), "apply": asdict(applied)}


def draw_quantity(rng: np.random.Generator, entity_name: str) -> str:
    return f"{rng.integers(1, 10_000) / rng.choice((1, 10, 100))} {rng.choice(UNITS_BY_ENTITY[entity_name])}"


def write_predictions(
    work: Path, rows: pd.DataFrame, labels: np.ndarray, *, number: int, rng: np.random.Generator
) -> str:
    """A file of predictions, 70 % of which are right: X.parquet with confidences, or X.csv in another order."""
    is_right = rng.random(len(rows)) < 0.7
    others = np.array([draw_quantity(rng, name) for name in rows["entity_name"]], dtype=object)
    predictions = np.where(is_right, labels, others)
    if number >= NUM_WITH_CONFIDENCES:
        table = pd.DataFrame({"index": rows["index"], "prediction": predictions})
        table.sample(frac=1, random_state=number).to_csv(work / f"{number}.csv", index=False)
        return f"{number}.csv"
    confidences = np.clip(rng.normal(np.where(is_right, 0.8, 0.5), 0.2), 0, 1)
    columns = {
        **{field.name: pa.nulls(len(rows), field.type) for field in PREDICTIONS},
        "index": pa.array(rows["index"].astype(int)),
        "image_link": pa.array(rows["image_link"]),
        "entity_name": pa.array(rows["entity_name"]),
        "prediction": pa.array(predictions),
        "answer": pa.array(predictions),
        "confidence": pa.array(confidences),
    }
    pq.write_table(pa.table(columns, schema=PREDICTIONS), work / f"{number}.parquet")
    return f"{number}.parquet"


def predict_held_out(folder: Path, seed: int, options: argparse.Namespace) -> Path:
    """Train an adapter with this seed and predict the held-out rows, unless that was done before."""
    make_dataset(folder, options)
    adapter, output = folder / f"adapter-{seed}", folder / f"seed-{seed}.parquet"
    if not (adapter / "adapter_model.safetensors").is_file():
        launch(
            "training.sft", "--config", CONFIG_FILE, "--dataset_name", folder / "dataset", "--output_dir", adapter,
            "--model_name_or_path", BASE, "--base_model_id", "local/small-paligemma", "--seed", seed,
            "--per_device_train_batch_size", 8, "--max_eval_samples", 0, "--eval_strategy", "no",
        )  # fmt: skip
        print(f"seed {seed}: trained", file=sys.stderr, flush=True)
    if not output.is_file():
        launch(
            "inference.predict", "--adapter", adapter, "--base_model", BASE, "--dataset", folder / "dataset",
            "--output", output.with_suffix(".csv"), "--batch_size", 64,
        )  # fmt: skip
        print(f"seed {seed}: predicted", file=sys.stderr, flush=True)
    return output


def make_dataset(folder: Path, options: argparse.Namespace) -> None:
    """Render labels and build the dataset of all seeds, and a CSV of the held-out labels with their images."""
    if (folder / "labels.csv").is_file():
        return
    python(
        "quickstart.rendering.render", "--output_dir", folder, "--train_rows", options.train_rows,
        "--test_rows", options.test_rows, "--level", options.level,
    )  # fmt: skip
    python(
        "dataset_builder.build", "--train_csv", folder / "train.csv", "--test_csv", folder / "test.csv",
        "--image_dir", folder / "images", "--output_dir", folder / "dataset",
    )  # fmt: skip
    test = pd.read_csv(folder / "test.csv")[["index", "image_link"]]
    answers = pd.read_csv(folder / "test_answers.csv", dtype=str).astype({"index": int})
    answers.merge(test, on="index", validate="one_to_one").to_csv(folder / "labels.csv", index=False)


def measure_gain(predictions: Sequence[Path], labels_csv: Path, *, draws: int) -> dict[str, Any]:
    """The gain over the best file in random halves of the images, and in halves of disjoint parts of them."""
    references = read_references(str(labels_csv), schema=CHALLENGE, layout=LONG)
    tables = read_files([str(path) for path in predictions], schema=CHALLENGE)
    votes, _ = count_votes(tables, join_rows(tables, labels=references, schema=CHALLENGE, layout=LONG))
    votes, labels = match_labels(votes, references)
    num_images = int(labels.images.max()) + 1
    rng = np.random.default_rng(0)
    shuffled = [rng.permutation(num_images) for _ in range(draws)]
    halves = [score_halves(votes, labels, images) for images in shuffled]
    result = {"held_out_rows": len(votes.rows), "files_f1": [round(_f1(labels, one), 4) for one in votes.choices.T]}
    result["random_halves"] = summarize(halves, rows=len(votes.rows))
    for num_parts in PARTS:
        parts = [score_halves(votes, labels, images) for images in np.array_split(shuffled[0], num_parts)]
        result[f"{num_parts}_parts"] = summarize(parts, rows=len(votes.rows) / num_parts)
    return result


def summarize(scored: Sequence[dict[str, float]], *, rows: float) -> dict[str, float]:
    """How often the gain is significant, and the means of all scores."""
    means = {name: round(float(np.mean([one[name] for one in scored])), 4) for name in scored[0]}
    significant = sum(one["gain_low"] > 0 for one in scored)
    return {"rows": round(rows), "draws": len(scored), "draws_above_0": significant, **means}


def score_halves(votes: Votes, labels: Labels, images: np.ndarray) -> dict[str, float]:
    """Fit on the rows of the first half of these images, and score on those of the second half."""
    first, second = np.array_split(images, 2)
    fit, held_out = (np.flatnonzero(np.isin(labels.images, half)) for half in (first, second))
    half = votes.take(fit), labels.take(fit)
    weights = fit_weights(*half, prior=choose_prior(*half))
    votes, labels = votes.take(held_out), labels.take(held_out)
    decision = decide(votes, weights)
    score = score_votes(votes, labels, decision.choices, weights)["all"]
    is_right = (decision.choices == labels.quantities) & (decision.choices != NO_VOTE)
    has_answer = ~np.isnan(decision.confidences)
    return {
        "best_f1": max(_f1(labels, choices) for choices in votes.choices.T),
        "ensemble_f1": _f1(labels, decision.choices),
        "default_weights_f1": _f1(
            labels, decide(votes, default_weights(len(score.weights), schema=CHALLENGE)).choices
        ),
        "gain": score.gain,
        "gain_low": score.gain_interval[0],
        "gain_high": score.gain_interval[1],
        "calibration_error": calibration_error(decision.confidences[has_answer], is_right[has_answer]),
    }


def _f1(labels: Labels, choices: np.ndarray) -> float:
    return float(f1(labels.count_outcomes(choices).sum(axis=0, keepdims=True))[0])


if __name__ == "__main__":
    main()
