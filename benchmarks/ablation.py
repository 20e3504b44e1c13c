"""Does fine-tuning work, and which settings matter? Compares ways to train, on labels that no model has seen.

    python -m benchmarks.ablation --seeds 0 1 2
    python -m benchmarks.ablation --seeds 0 1 2 --level hard --recipe --output_dir runs/ablation

Every run goes through the public commands: rendered labels -> dataset folder -> training.sft -> inference.predict.
Each seed has its own labels and its own training. The table has the F1 of each way (number and unit, on the questions
of all seeds together) and its difference from another way on the same questions, with 95 % confidence intervals by a
bootstrap over images. With `--output_dir` the datasets and results are kept, and the same command resumes.
"""

import argparse
import csv
import hashlib
import json
import random
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.commands import BASE, CONFIG_FILE, launch, python
from inference.references import join
from product_vqa.bootstrap import count_by_image, f1, interval, resample
from product_vqa.entity_f1.scoring import equal_as_quantities
from product_vqa.modeling.loading import LANGUAGE_MODEL_LINEARS, PROJECTOR_LINEAR, VISION_ATTENTION
from product_vqa.tables.layout import LONG
from product_vqa.task.schema import CHALLENGE
from quickstart.__main__ import ROWS_PER_STEP, computes_bfloat16

RARE_ENTITIES = ("maximum_weight_recommendation", "item_volume")
RARE_SHARE = 0.1  # of their rows are left in the dataset `rare`
RESAMPLES = 2000


@dataclass(frozen=True)
class Way:
    """A way to train: options of training.sft that differ from quickstart.yaml, and a dataset.

    `plain` has the correct labels. `shuffled` has the same labels, exchanged among the images of the same attribute:
    a model can learn from them what predictions look like, but not how to read. `rare` has few rows of two attributes.
    """

    options: Mapping[str, object] = field(default_factory=dict)
    dataset: str = "plain"
    compared_with: str = "lora"


WAYS = {
    "lora": Way(),
    "nf4": Way({"load_in_4bit": "true"}),
    "shuffled": Way(dataset="shuffled"),
    "language_model_only": Way({"lora_target_modules": LANGUAGE_MODEL_LINEARS}),
    "vision_too": Way({"lora_target_modules": "|".join((LANGUAGE_MODEL_LINEARS, PROJECTOR_LINEAR, VISION_ATTENTION))}),
    "r_8": Way({"lora_r": 8, "lora_alpha": 8}),
    "dropout": Way({"lora_dropout": 0.05}),
    "no_warmup": Way({"warmup_steps": 0}),
    "cosine": Way({"lr_scheduler_type": "cosine"}),
    "1_epoch": Way({"num_train_epochs": 1}),
    "3_epochs": Way({"num_train_epochs": 3}),
    "64_samples": Way({"per_device_train_batch_size": 32}),
    "64_samples_twice_the_rate": Way({"per_device_train_batch_size": 32, "learning_rate": 6e-3}),
    "rare": Way(dataset="rare"),
    "rare_oversampled": Way({"oversample_like": "test"}, dataset="rare", compared_with="rare"),
}
DEFAULT_WAYS = ("lora", "nf4", "shuffled")


@dataclass(frozen=True)
class Comparison:
    """The F1 of a way, on all questions or on those about one kind of attribute, with its 95 % interval."""

    way: str
    questions: str  # "all" or "rare attributes"
    f1: float
    f1_interval: tuple[float, float]
    exact: float  # share of the answers with the right number and unit
    compared_with: str
    difference: float
    difference_interval: tuple[float, float]
    training_seconds: float  # of one seed, on average


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--ways", nargs="+", default=list(DEFAULT_WAYS), choices=WAYS, help="what to train")
    chosen.add_argument("--recipe", action="store_true", help="train all ways but shuffled: two hours")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="random seeds of labels and training")
    parser.add_argument("--level", default="standard", help="difficulty of the labels: plain, standard, hard")
    parser.add_argument("--train_rows", type=int, default=4800)
    parser.add_argument("--test_rows", type=int, default=320)
    parser.add_argument("--output_dir", help="folder to keep everything in; the same command resumes in it")
    parser.add_argument("--json", action="store_true", help="print all results as JSON")
    options = parser.parse_args()
    ways = [way for way in WAYS if way != "shuffled"] if options.recipe else options.ways
    ways = list(dict.fromkeys(["lora", *(WAYS[way].compared_with for way in ways), *ways]))
    kept = None if options.output_dir is None else Path(options.output_dir) / options.level
    with tempfile.TemporaryDirectory() if kept is None else nullcontext(kept) as name:
        check_same_settings(Path(name), options)
        folders = [Path(name) / f"seed-{seed}" for seed in options.seeds]
        for folder, seed in zip(folders, options.seeds, strict=True):
            run_seed(folder, ways, options, seed=seed)
        answers = {way: read_answers(folders, way) for way in ("untrained", *ways)}
        seconds = {way: np.mean([read_seconds(folder, way) for folder in folders]) for way in answers}
    comparisons = compare(answers, {way: float(mean) for way, mean in seconds.items()})
    print(json.dumps([asdict(one) for one in comparisons]) if options.json else format_table(comparisons))


def run_seed(folder: Path, ways: Sequence[str], options: argparse.Namespace, *, seed: int) -> None:
    """Make the datasets of a seed, train each way and predict the test split, unless that was done before."""
    if not (folder / "test_answers.csv").is_file() or not all(
        (folder / WAYS[way].dataset / "build.json").is_file() for way in ways
    ):
        make_datasets(folder, {WAYS[way].dataset for way in ways} | {"plain"}, options, seed=seed)
    predict(folder, "untrained", ["--base_model", BASE], seconds=0.0)
    for name in ways:
        if (folder / f"{name}.json").is_file():
            continue
        way, adapter = WAYS[name], folder / f"adapter-{name}"
        chosen = {
            "per_device_train_batch_size": ROWS_PER_STEP // 2, "bf16": str(computes_bfloat16()).lower(),
            "max_eval_samples": 0, "eval_strategy": "no", **way.options,
        }  # fmt: skip
        launch(
            "training.sft", "--config", CONFIG_FILE, "--dataset_name", folder / way.dataset,
            "--model_name_or_path", BASE, "--base_model_id", "local/small-paligemma", "--output_dir", adapter,
            "--seed", seed, *(str(word) for option, value in chosen.items() for word in (f"--{option}", value)),
        )  # fmt: skip
        predict(folder, name, ["--adapter", adapter, "--base_model", BASE], seconds=training_seconds(adapter))


def training_seconds(adapter: Path) -> float:
    """The seconds of all steps of a run, those before an interruption too."""
    log = pd.read_csv(adapter / "log.csv")
    return 60 * float(log["minutes"].max())


def check_same_settings(folder: Path, options: argparse.Namespace) -> None:
    """End the process if the folder holds results of other rows, another configuration or another base model."""
    contents = [file.read_bytes() for file in (CONFIG_FILE, BASE / "model.safetensors")]
    settings = {
        "train_rows": options.train_rows,
        "test_rows": options.test_rows,
        "configuration and base model": hashlib.sha256(b"".join(contents)).hexdigest(),
    }
    file = folder / "settings.json"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings, indent=2) + "\n")
    elif json.loads(file.read_text()) != settings:
        sys.exit(f"{folder} has results of other settings ({file}): choose another --output_dir, or delete it")


def predict(folder: Path, way: str, model: list[str | Path], *, seconds: float) -> None:
    """Predict the test split with a model, which is given as options of inference.predict."""
    done = folder / f"{way}.json"  # written last
    if not done.is_file():
        output = folder / f"{way}.csv"
        launch("inference.predict", "--dataset", folder / "plain", "--split", "test", "--output", output, *model)
        done.write_text(json.dumps({"training_seconds": round(seconds, 1)}) + "\n")
        print(f"{folder.name}: {way} trained in {seconds:.0f} s", file=sys.stderr, flush=True)


def make_datasets(folder: Path, names: set[str], options: argparse.Namespace, *, seed: int) -> None:
    """Build the named datasets from the same rendered images."""
    python(
        "quickstart.rendering.render", "--output_dir", folder, "--train_rows", options.train_rows,
        "--test_rows", options.test_rows, "--seed", seed, "--level", options.level,
    )  # fmt: skip
    change_labels(folder / "train.csv", folder / "train_shuffled.csv", change=shuffle_labels, seed=seed)
    change_labels(folder / "train.csv", folder / "train_rare.csv", change=drop_rare, seed=seed)
    for name in sorted(names):
        train_csv = "train.csv" if name == "plain" else f"train_{name}.csv"
        python(
            "dataset_builder.build", "--train_csv", folder / train_csv, "--test_csv", folder / "test.csv",
            "--image_dir", folder / "images", "--output_dir", folder / name,
        )  # fmt: skip


Rows = list[dict[str, str]]


def change_labels(source: Path, target: Path, *, change: Callable[[Rows, random.Random], Rows], seed: int) -> None:
    """Write the rows of `source` to `target`, changed by `change(rows, rng)`."""
    with source.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    with target.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, rows[0])
        writer.writeheader()
        writer.writerows(change(rows, random.Random(seed)))


def shuffle_labels(rows: Rows, rng: random.Random) -> Rows:
    """Shuffle the labels of each entity among its rows."""
    for entity in sorted({row["entity_name"] for row in rows}):
        rows_of_entity = [row for row in rows if row["entity_name"] == entity]
        values = [row["entity_value"] for row in rows_of_entity]
        rng.shuffle(values)
        for row, value in zip(rows_of_entity, values, strict=True):
            row["entity_value"] = value
    return rows


def drop_rare(rows: Rows, rng: random.Random) -> Rows:
    """Keep a tenth of the rows of the rare entities."""
    return [row for row in rows if row["entity_name"] not in RARE_ENTITIES or rng.random() < RARE_SHARE]


def read_answers(folders: Sequence[Path], way: str) -> pd.DataFrame:
    """Read the predictions of a way for all seeds, next to their references and their images."""
    tables = []
    for folder in folders:
        table = join(folder / f"{way}.csv", folder / "test_answers.csv", schema=CHALLENGE, layout=LONG).drop(
            columns="image_link"
        )
        images = pd.read_csv(folder / "test.csv", usecols=["index", "image_link"])
        tables.append(table.merge(images, on="index", validate="one_to_one"))
    return pd.concat(tables, ignore_index=True)


def read_seconds(folder: Path, way: str) -> float:
    return float(json.loads((folder / f"{way}.json").read_text())["training_seconds"])


def compare(answers: Mapping[str, pd.DataFrame], seconds: Mapping[str, float]) -> list[Comparison]:
    """Compare each way with another one on the same questions; the datasets with rare attributes on these too."""
    comparisons = []
    for way, table in answers.items():
        other = WAYS[way].compared_with if way in WAYS else "lora"
        subsets = {"all": pd.Series(True, index=table.index)}
        if way in WAYS and WAYS[way].dataset == "rare":
            subsets["rare attributes"] = table["entity_name"].isin(RARE_ENTITIES)
        for questions, chosen in subsets.items():
            outcomes, others = (count_outcomes(one[chosen]) for one in (table, answers[other]))
            drawn, drawn_others = (resample(one, resamples=RESAMPLES) for one in (outcomes, others))  # the same images
            score, other_score = (float(f1(one.sum(axis=0, keepdims=True))[0]) for one in (outcomes, others))
            comparisons.append(
                Comparison(
                    way,
                    questions,
                    f1=round(score, 4),
                    f1_interval=rounded(interval(f1(drawn))),
                    exact=round(float(outcomes[:, 0].sum() / chosen.sum()), 4),
                    compared_with=other,
                    difference=round(score - other_score, 4),
                    difference_interval=rounded(interval(f1(drawn) - f1(drawn_others))),
                    training_seconds=round(seconds[way], 1),
                )
            )
    return comparisons


def count_outcomes(table: pd.DataFrame) -> np.ndarray:
    return count_by_image(
        list(table["image_link"]), list(table["prediction"]), list(table["reference"]), equal=equal_as_quantities
    )


def rounded(values: tuple[float, float]) -> tuple[float, float]:
    low, high = values
    return round(low, 4), round(high, 4)


def format_table(comparisons: Sequence[Comparison]) -> str:
    lines = ["| way | questions | F1 | right | difference | seconds |", "|---|---|---|---:|---|---:|"]
    for one in comparisons:
        (low, high), (lower, higher) = one.f1_interval, one.difference_interval
        difference = f"{one.difference:+.3f} ({lower:+.3f} to {higher:+.3f}) from {one.compared_with}"
        lines.append(
            f"| {one.way} | {one.questions} | {one.f1:.3f} ({low:.3f} to {high:.3f}) | {one.exact:.3f} | "
            f"{'' if one.way == one.compared_with else difference} | {one.training_seconds:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
